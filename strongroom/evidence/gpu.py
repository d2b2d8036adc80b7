"""The evidence of one GPU or switch as plain bytes. Whether it is genuine is for strongroom.verify."""

from dataclasses import dataclass

from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON, unb64u
from strongroom.wire.cbor import CBOR, as_json


@dataclass(frozen=True, slots=True, order=True)
class GPUEvidence:
    """One device: its kind ("hopper", "blackwell", "ls10"), SPDM report, and DER chain concatenated."""

    kind: str
    certificates: bytes
    report: bytes

    def to_cbor(self) -> CBOR:
        return {"kind": self.kind, "report": self.report, "certificates": self.certificates}

    def to_json(self) -> JSON:
        return as_json(self.to_cbor())

    @classmethod
    def from_json(cls, value: JSON, at: str) -> "GPUEvidence":
        if not isinstance(value, dict) or value.keys() != {"kind", "report", "certificates"}:
            raise FormatError(f"{at}: want exactly the keys kind, report, certificates")
        kind, report, certificates = value["kind"], value["report"], value["certificates"]
        if not isinstance(kind, str) or not isinstance(report, str) or not isinstance(certificates, str):
            raise FormatError(f"{at}: every value must be text")
        return cls(
            kind=kind,
            report=unb64u(report, f"{at}.report"),
            certificates=unb64u(certificates, f"{at}.certificates"),
        )
