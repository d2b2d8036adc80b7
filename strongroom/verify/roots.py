"""The certificates everything genuine must end in, pinned by the SHA-256 of their DER.

A certificate that arrives with evidence is a hint; only its equality with a pin makes it a root. There is one
root per product: a report of one product that chains to the root of another is not genuine.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from strongroom.errors import ConfigError

SIMULATED_LABEL: Final = "INSECURE-SIMULATED"  # stands in the name of every simulated issuer


@dataclass(frozen=True, slots=True)
class RootPin:
    """One AMD root key certificate, and serials under it known to be revoked when this was written."""

    ark_sha256: bytes
    revoked_serials: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if len(self.ark_sha256) != 32:
            raise ConfigError(f"root pin: {len(self.ark_sha256)} bytes, want the 32 of a SHA-256")


@dataclass(frozen=True, slots=True)
class Roots:
    """Whom a verifier believes. `insecure` names simulated roots and is empty in production."""

    amd: Mapping[str, RootPin]  # by product
    insecure: frozenset[bytes] = frozenset()

    def with_insecure(self, sha256s: Iterable[bytes]) -> "Roots":
        """These roots, and simulated silicon whose root has one of these SHA-256 digests."""
        added = frozenset(sha256s)
        if any(len(digest) != 32 for digest in added):
            raise ConfigError("insecure root: want the 32 bytes of a SHA-256")
        return replace(self, insecure=self.insecure | added)


PRODUCTION: Final = Roots(
    amd=MappingProxyType(
        {
            "Milan": RootPin(
                bytes.fromhex("69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd")
            ),
            "Genoa": RootPin(
                bytes.fromhex("4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"),
                revoked_serials=frozenset({0x20001}),  # the first SEV-Genoa, revoked by AMD's own list
            ),
            "Turin": RootPin(
                bytes.fromhex("1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a")
            ),
        }
    )
)
