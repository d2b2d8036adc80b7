"""The certificates everything genuine must end in, pinned by the SHA-256 of their DER.

A certificate that arrives with evidence is a hint; only its equality with a pin makes it a root. AMD has one
root per product: a report of one product that chains to the root of another is not genuine. Everyone else has
one root per use, an `Anchor`: NVIDIA's root of devices does not vouch for reference values, nor the other way.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from strongroom.errors import ConfigError, VerifyError

SIMULATED_LABEL: Final = "INSECURE-SIMULATED"  # stands in the name of every simulated issuer


class Anchor(StrEnum):
    """Every use a root is pinned for, AMD's products apart; the value is also the name of the field in Roots."""

    INTEL = "intel"  # PCK certificates, TCB info, QE identity
    NVIDIA_DEVICE = "nvidia_device"  # GPUs and switches
    NVIDIA_RIM = "nvidia_rim"  # signers of reference values
    AZURE_VTPM = "azure_vtpm"
    GCP_VTPM = "gcp_vtpm"


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
    intel: frozenset[bytes] = frozenset()
    nvidia_device: frozenset[bytes] = frozenset()
    nvidia_rim: frozenset[bytes] = frozenset()
    azure_vtpm: frozenset[bytes] = frozenset()
    gcp_vtpm: frozenset[bytes] = frozenset()
    tpm_keys: frozenset[bytes] = (
        frozenset()
    )  # SHA-256 of the DER SPKI: TPMs believed by name, with nothing above

    def accepts(self, anchor: Anchor, der_sha256: bytes) -> bool:
        """Whether this root of `anchor` is a simulated one; VerifyError when it is not a root at all."""
        if der_sha256 in self.pins(anchor):
            return False
        if der_sha256 in self.insecure:
            return True
        raise VerifyError(f"root: sha256 is {der_sha256.hex()}, want the pinned {anchor} root")

    def pins(self, anchor: Anchor) -> frozenset[bytes]:
        """The SHA-256 digests of the genuine roots of `anchor`."""
        match anchor:
            case Anchor.INTEL:
                return self.intel
            case Anchor.NVIDIA_DEVICE:
                return self.nvidia_device
            case Anchor.NVIDIA_RIM:
                return self.nvidia_rim
            case Anchor.AZURE_VTPM:
                return self.azure_vtpm
            case Anchor.GCP_VTPM:
                return self.gcp_vtpm

    def with_insecure(self, sha256s: Iterable[bytes]) -> "Roots":
        """These roots, and simulated silicon whose root has one of these SHA-256 digests."""
        added = frozenset(sha256s)
        if any(len(digest) != 32 for digest in added):
            raise ConfigError("insecure root: want the 32 bytes of a SHA-256")
        return replace(self, insecure=self.insecure | added)

    def with_tpm_keys(self, sha256s: Iterable[bytes]) -> "Roots":
        """These roots, and TPMs whose attestation key has one of these SHA-256 digests (DER SPKI)."""
        added = frozenset(sha256s)
        if any(len(digest) != 32 for digest in added):
            raise ConfigError("tpm key: want the 32 bytes of a SHA-256")
        return replace(self, tpm_keys=self.tpm_keys | added)


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
    ),
    # Intel SGX Root CA
    intel=frozenset({bytes.fromhex("44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3")}),
    # NVIDIA Device Identity CA
    nvidia_device=frozenset(
        {bytes.fromhex("102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48")}
    ),
    # NVIDIA CoRIM signing Root CA
    nvidia_rim=frozenset({bytes.fromhex("12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1")}),
    # Azure Virtual TPM Root Certificate Authority 2023
    azure_vtpm=frozenset({bytes.fromhex("e6c596b17f8ffefba5c300f714cfb1260c6028704ecf7becc4ab5018efb00e95")}),
    # EK/AK CA Root of Google Cloud
    gcp_vtpm=frozenset({bytes.fromhex("594759594b9b61524f6c8ef668f7177f7b9066bc0674f2f49fe9e052be78beb2")}),
)
