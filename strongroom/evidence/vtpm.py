"""A TPM's quote, and what it is read with, as plain bytes. Whether it is genuine is for strongroom.verify."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON, unb64u
from strongroom.wire.cbor import CBOR

PCRS: Final = 24
_SHA256: Final = 32
_KEYS: Final = {"attest", "signature", "public", "certificates", "pcrs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TPMEvidence:
    """One quote over PCRs of the SHA-256 bank."""

    attest: bytes  # TPMS_ATTEST
    signature: bytes  # TPMT_SIGNATURE
    public: bytes = b""  # TPMT_PUBLIC of the attestation key; empty where the report names the key
    certificates: bytes = b""  # DER chain of that key, leaf first, concatenated; may be empty
    pcrs: tuple[tuple[int, bytes], ...]  # index and value, ascending: exactly those quoted

    def __post_init__(self) -> None:
        indices = [index for index, _ in self.pcrs]
        if indices != sorted({*indices} & {*range(PCRS)}):
            raise FormatError(
                f"tpm evidence: pcrs are {indices[:PCRS]}, want each of 0..{PCRS - 1} once, in order"
            )
        if any(len(value) != _SHA256 for _, value in self.pcrs):
            raise FormatError(f"tpm evidence: a pcr value is not {_SHA256} bytes")

    @property
    def values(self) -> Mapping[int, bytes]:
        return dict(self.pcrs)

    @property
    def indices(self) -> frozenset[int]:
        return frozenset(index for index, _ in self.pcrs)

    def to_cbor(self) -> dict[str, CBOR]:
        return {
            "attest": self.attest,
            "signature": self.signature,
            "public": self.public,
            "certificates": self.certificates,
            "pcrs": [[index, value] for index, value in self.pcrs],
        }

    @classmethod
    def from_json(cls, value: JSON, at: str) -> Self:
        if not isinstance(value, dict) or value.keys() != _KEYS:
            raise FormatError(f"{at}: want exactly the keys {', '.join(sorted(_KEYS))}")
        pcrs = value["pcrs"]
        if not isinstance(pcrs, list) or len(pcrs) > PCRS:
            raise FormatError(f"{at}.pcrs: want a list of at most {PCRS}")
        return cls(
            attest=_bytes(value["attest"], f"{at}.attest"),
            signature=_bytes(value["signature"], f"{at}.signature"),
            public=_bytes(value["public"], f"{at}.public"),
            certificates=_bytes(value["certificates"], f"{at}.certificates"),
            pcrs=tuple(_pcr(item, f"{at}.pcrs[{n}]") for n, item in enumerate(pcrs)),
        )


def _pcr(value: JSON, at: str) -> tuple[int, bytes]:
    match value:
        case [index, text] if type(index) is int:
            return index, _bytes(text, at)
    raise FormatError(f"{at}: want an index and a value")


def _bytes(value: JSON, at: str) -> bytes:
    if not isinstance(value, str):
        raise FormatError(f"{at}: must be text")
    return unb64u(value, at)
