"""Collateral: what vendors sign about their silicon, carried along so that a verifier needs no network.

No report commits to it, and it needs no binding: every entry is signed by its vendor and says itself how long it
holds. Names say what an entry is; several entries of one kind are told apart after a slash.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON, unb64u

AMD_CRL: Final = "amd-crl"  # DER revocation list of the ARK
INTEL_TCB_INFO: Final = "intel-tcb-info"  # the signed JSON document, byte for byte
INTEL_TCB_INFO_CHAIN: Final = "intel-tcb-info-chain"  # PEM
INTEL_QE_IDENTITY: Final = "intel-qe-identity"
INTEL_QE_IDENTITY_CHAIN: Final = "intel-qe-identity-chain"
INTEL_ROOT_CRL: Final = "intel-root-crl"  # DER
INTEL_PCK_CRL: Final = "intel-pck-crl"  # DER
INTEL_PCK_CRL_CHAIN: Final = "intel-pck-crl-chain"
NVIDIA_RIM: Final = "nvidia-rim"  # nvidia-rim/<id of the reference values>: XML
NVIDIA_OCSP: Final = "nvidia-ocsp"  # nvidia-ocsp/<any name>: DER response about a certificate of a device
NVIDIA_RIM_OCSP: Final = "nvidia-rim-ocsp"  # the same about a certificate of a signer of reference values

MAX_BYTES: Final = 1 << 20  # of all entries together
MAX_ENTRIES: Final = 128
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,63}(/[A-Za-z0-9._-]{1,128})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Collateral:
    """Named bytes, each name once, in the order of the names."""

    entries: tuple[tuple[str, bytes], ...] = ()

    def __post_init__(self) -> None:
        names = [name for name, _ in self.entries]
        if names != sorted(set(names)):
            raise FormatError("collateral: names repeat or are out of order")
        if len(names) > MAX_ENTRIES:
            raise FormatError(f"collateral: {len(names)} entries, want at most {MAX_ENTRIES}")
        if (size := sum(len(data) for _, data in self.entries)) > MAX_BYTES:
            raise FormatError(f"collateral: {size} bytes, want at most {MAX_BYTES}")
        for name, data in self.entries:
            if not _NAME.fullmatch(name):
                raise FormatError(f"collateral: name is {name[:80]!a}, want a kind, or a kind and /name")
            if not data:
                raise FormatError(f"collateral: {name} is empty")

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return iter(self.entries)

    def find(self, name: str) -> bytes | None:
        return dict(self.entries).get(name)

    def over(self, other: "Collateral") -> "Collateral":
        """Both, where an entry of this one wins over one of `other` with the same name."""
        return Collateral.of(dict(other.entries) | dict(self.entries))

    @classmethod
    def of(cls, entries: Mapping[str, bytes]) -> Self:
        return cls(tuple(sorted(entries.items())))

    @classmethod
    def from_json(cls, value: JSON, at: str) -> Self:
        if not isinstance(value, dict) or not value or len(value) > MAX_ENTRIES:
            raise FormatError(f"{at}: want an object of 1..{MAX_ENTRIES} entries")
        entries = {}
        for name, text in value.items():
            if not isinstance(text, str):
                raise FormatError(f"{at}.{name[:80]}: must be text")
            entries[name] = unb64u(text, f"{at}.{name[:80]}")
        return cls.of(entries)
