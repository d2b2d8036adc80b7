"""SGX quotes, which Strongroom refuses wherever it asks for a TD: decoded and judged here with its parts alone.

Chains, signatures and levels are those of the TDX verifier. What differs stands below: the layout of version 3,
the identity of the other quoting enclave, and levels without a TDX part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from strongroom.errors import VerifyError
from strongroom.evidence.enclave import EnclaveReport
from strongroom.evidence.outline import Outline
from strongroom.evidence.outline_tdx import quote as outline_quote
from strongroom.evidence.tdx import TDXQuote
from strongroom.verify import tdx as verifier
from strongroom.verify.intel_json import Member
from strongroom.verify.roots import Roots
from strongroom.verify.tdx_chain import Clock, Path, check_signature, pck_path, signed_object
from strongroom.verify.tdx_collateral import QE_IDENTITY, TCB_INFO
from strongroom.verify.tdx_tcb import ISVLevel, PlatformLevel, Standing, standing_of, worst
from tests.vectors import tdx
from tests.vectors.index import Vector, VectorSet
from tests.vectors.judge import Observation


@dataclass(frozen=True, slots=True)
class SGXQuote:
    """The parts of a quote, by the names of its outline."""

    raw: bytes
    parts: Mapping[str, bytes]

    @classmethod
    def read(cls, raw: bytes) -> "SGXQuote":
        out = Outline(raw, "sgx quote")
        outline_quote(out)
        return cls(raw, {field.name: raw[field.offset :][: field.size] for field in out.fields})

    def number(self, name: str) -> int:
        return int.from_bytes(self.parts[name], "little")

    @property
    def qe_report(self) -> EnclaveReport:
        start = self.raw.index(self.parts["attestation_key (x, y)"]) + 64
        return EnclaveReport.parse(self.raw[start:][:384])

    def check_signatures(self, path: Path) -> None:
        key = self.parts["attestation_key (x, y)"]
        qe = self.qe_report
        check_signature(self.parts["qe_report_signature (r, s)"], qe.pack(), path.key, "qe report: signature")
        if qe.report_data != sha256(key + self.parts["qe_auth_data"]).digest().ljust(64, b"\0"):
            raise VerifyError("qe report: report_data differs")
        signed = self.raw[: 48 + 384]
        signature = self.parts["quote_signature (r, s)"]
        check_signature(signature, signed, verifier._attestation_key(key), "sgx quote: signature")


def observe_quote(vector: Vector, vectors: VectorSet, roots: Roots) -> Observation:
    """A quote under each collateral the index names, after the TDX verifier has refused it."""
    raw = vectors.read(vector, "quote")
    refused = Observation()
    refused.attempt(lambda: TDXQuote.parse(raw))
    observed = Observation()
    if not refused.refusals:
        observed.refusals.append(VerifyError("sgx quote: taken for one of a td"))
    quote = SGXQuote.read(raw)
    observed.found["fields"] = _fields(quote)
    evaluations = vector.expect.get("evaluations", [])
    now = datetime.fromisoformat(evaluations[0]["at"]) if evaluations else vectors.generated
    path = observed.attempt(lambda: signed_path(quote, roots, now))
    observed.found["signature_chain_valid"] = path is not None
    if path is not None:
        observed.found |= tdx.path_fields(path)
        observed.found["qe"] = tdx.qe_fields(quote.qe_report)
        observed.found["evaluations"] = [
            observed.attempt(lambda e=e: _evaluate(quote, e, vectors, roots))  # type: ignore[misc]
            for e in evaluations
        ]
    return observed


def signed_path(quote: SGXQuote, roots: Roots, now: datetime) -> Path:
    pem = quote.parts["pck_certificate_chain"].removesuffix(b"\0")
    path = pck_path(pem, roots=roots, clock=Clock(now))
    quote.check_signatures(path)
    return path


def _fields(quote: SGXQuote) -> dict[str, Any]:
    parts = quote.parts
    body = {
        name.lower(): parts[f"report_body.{name}"].hex()
        for name in ("CPUSVN", "MISCSELECT", "ATTRIBUTES", "MRENCLAVE", "MRSIGNER")
    }
    used = len(quote.raw) - len(parts.get("after the quote", b""))
    return body | {
        "version": quote.number("version"),
        "att_key_type": quote.number("attestation_key_type"),
        "tee_type": hex(quote.number("tee_type")),
        "body_type": None,
        "qe_vendor_id": parts["qe_vendor_id"].hex(),
        "user_data": parts["user_data"].hex(),
        "quote_length_used": used,
        "trailing_bytes": len(quote.raw) - used,
        "signature_data_length": quote.number("signature_data_length"),
        "isvprodid": quote.number("report_body.ISVPRODID"),
        "isvsvn": quote.number("report_body.ISVSVN"),
        "report_data": parts["report_body.REPORTDATA"].hex(),
    }


def _evaluate(
    quote: SGXQuote, evaluation: dict[str, Any], vectors: VectorSet, roots: Roots
) -> dict[str, Any]:
    collateral = tdx.collateral_of(vectors.bytes_at(evaluation["collateral"]))
    clock = Clock(datetime.fromisoformat(evaluation["at"]))
    path = pck_path(quote.parts["pck_certificate_chain"].removesuffix(b"\0"), roots=roots, clock=clock)
    signers = verifier._signers(collateral, path, roots, clock)
    verifier._check_revocations(collateral, path, signers, clock)
    info = Member.parse(signed_object(collateral.tcb_info, TCB_INFO, signers[0]), "tcb info")
    identity = Member.parse(signed_object(collateral.qe_identity, QE_IDENTITY, signers[1]), "qe identity")
    info.want("id", "SGX")
    identity.want("id", "QE")
    for document, what in ((identity, "qe identity"), (info, "tcb info")):
        clock.check(document.moment("issueDate"), document.moment("nextUpdate"), what)
    platform = _platform(info, path)
    qe = standing_of(ISVLevel.read_all(identity), quote.qe_report.isv_svn, "qe report")
    status = worst(platform.status, qe.status).value
    ours = {"status": status, "advisory_ids": sorted({*platform.advisories, *qe.advisories})}
    return evaluation | {
        "expected": {
            "platform_tcb_status": platform.status.value,
            "tcb_date": tdx._day(platform),
            "advisory_ids": list(platform.advisories),
            "qe_status": qe.status.value,
            "tdx_module_status": None,
            "window": [clock.valid_from.isoformat(), clock.valid_until.isoformat()],
        },
        **{
            name: tdx.opinion(ours, theirs, refused=False)
            for name, theirs in evaluation.items()
            if name.startswith("dcap_qvl")
        },
    }


def _platform(info: Member, path: Path) -> Standing:
    pck = verifier._extension(path.leaf)
    if info.octets("fmspc", 6) != pck.fmspc:
        raise VerifyError("tcb info: is for another fmspc")
    for level in info.members("tcbLevels", most=256):
        read = PlatformLevel.read(level)
        if read.covers(pck, bytes(16)):
            return read.standing
    raise VerifyError("tcb info: no level covers this platform")
