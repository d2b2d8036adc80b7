"""GPU evidence as plain bytes. Nothing can verify it yet, so a verifier refuses a bundle that has any."""

from dataclasses import dataclass

from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON, b64u, unb64u


@dataclass(frozen=True, slots=True, order=True)
class GPUEvidence:
    """One device: its kind ("hopper", "blackwell", "ls10"), SPDM report, and DER chain concatenated."""

    kind: str
    certificates: bytes
    report: bytes

    def to_json(self) -> JSON:
        return {"kind": self.kind, "report": b64u(self.report), "certificates": b64u(self.certificates)}

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
