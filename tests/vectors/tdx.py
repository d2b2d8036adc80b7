"""TDX quotes under their collateral, and the report a guest gets of itself, as Strongroom sees them."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha384
from typing import Any

from strongroom.evidence.enclave import EnclaveReport
from strongroom.evidence.pck import PCKExtension
from strongroom.evidence.tdx import TDReport, TDReportBody, TDXQuote
from strongroom.verify import tdx as verifier
from strongroom.verify.qe_identity import QEIdentity
from strongroom.verify.roots import Roots
from strongroom.verify.tdx import TDXClaims, verify_quote
from strongroom.verify.tdx_chain import Clock, Path, pck_path, signed_object
from strongroom.verify.tdx_collateral import QE_IDENTITY, TCB_INFO, TDXCollateral
from strongroom.verify.tdx_tcb import Standing, TCBInfo
from strongroom.wire.canonical import parse_json
from tests.vectors.index import Vector, VectorSet
from tests.vectors.judge import Observation

_ATTRIBUTES = {"debug": 0, "sept_ve_disable": 28, "migratable": 29, "pks": 30, "kl": 31, "perfmon": 63}


def observe_quote(vector: Vector, vectors: VectorSet, roots: Roots) -> Observation:
    """A quote by itself, then under each collateral the index names with its date."""
    observed = Observation({name: vector.expect[name] for name in ("at",) if name in vector.expect})
    raw = vectors.read(vector, "quote")
    quote = observed.attempt(lambda: TDXQuote.parse(raw, trailing="any"))
    if quote is None:
        return observed
    observed.found["fields"] = quote_fields(quote, raw)
    if "at" in vector.expect:
        collateral = vectors.read(vector, "collateral")
        now = datetime.fromisoformat(vector.expect["at"])
        observed.attempt(lambda: verify_quote(quote, collateral_of(collateral), roots=roots, now=now))
        return observed
    evaluations = vector.expect.get("evaluations", [])
    moments = [datetime.fromisoformat(evaluation["at"]) for evaluation in evaluations]
    path = observed.attempt(lambda: signed_path(quote, roots, moments[0] if moments else vectors.generated))
    observed.found["signature_chain_valid"] = path is not None
    if path is None:
        return observed
    observed.found |= path_fields(path)
    observed.found["qe"] = qe_fields(quote.qe_report)
    observed.found["evaluations"] = [
        _evaluate(quote, evaluation, vectors, roots, observed) for evaluation in evaluations
    ]
    return observed


def observe_tdreport(vector: Vector, vectors: VectorSet, roots: Roots) -> Observation:
    """A TDREPORT: its two inner hashes are checked by its parser."""
    del roots
    raw = vectors.read(vector, "report")
    observed = Observation()
    report = observed.attempt(lambda: TDReport.parse(raw))
    if report is not None:
        body = report.body
        observed.found |= body_fields(body) | {
            "type": raw[:4].hex(),
            "tee_tcb_info_hash_ok": raw[32:80] == sha384(raw[256:495]).digest(),
            "tee_info_hash_ok": raw[80:128] == sha384(raw[512:1024]).digest(),
            "attributes": body.td_attributes.to_bytes(8, "little").hex(),
            "mrtd": body.mr_td.hex(),
        }
    return observed


def signed_path(quote: TDXQuote, roots: Roots, now: datetime) -> Path:
    """The path of the quote's own certificates, after all three of its signatures held."""
    path = pck_path(quote.pck_chain.removesuffix(b"\0"), roots=roots, clock=Clock(now))
    verifier._check_signatures(quote, path)
    return path


def quote_fields(quote: TDXQuote, raw: bytes) -> dict[str, Any]:
    used = len(raw) - len(quote.trailing)
    return body_fields(quote.body) | {
        "version": quote.version,
        "att_key_type": quote.att_key_type,
        "tee_type": hex(quote.tee_type),
        "body_type": quote.body_type,
        "qe_vendor_id": quote.qe_vendor_id.hex(),
        "user_data": quote.user_data.hex(),
        "quote_length_used": used,
        "trailing_bytes": len(quote.trailing),
        "signature_data_length": used - len(quote.signed_part) - 4,
    }


def body_fields(body: TDReportBody) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in body.__slots__:
        value = getattr(body, name)
        shown = value.to_bytes(8, "little") if isinstance(value, int) else value
        if shown is not None:
            found[name] = shown.hex()
    found["td_attributes_bits"] = {name: bool(body.td_attributes >> n & 1) for name, n in _ATTRIBUTES.items()}
    return found


def path_fields(path: Path) -> dict[str, Any]:
    pck = verifier._extension(path.leaf)
    return {
        "pck": pck_fields(pck),
        "pck_not_before": path.leaf.not_valid_before_utc.isoformat(),
        "pck_not_after": path.leaf.not_valid_after_utc.isoformat(),
        "pck_issuer": path.leaf.issuer.rfc4514_string().partition("CN=")[2].partition(",")[0],
    }


def pck_fields(pck: PCKExtension) -> dict[str, Any]:
    flags = (pck.dynamic_platform, pck.cached_keys, pck.smt_enabled)
    return {
        "ppid": pck.ppid.hex(),
        "comp": list(pck.sgx_tcb_components),
        "pcesvn": pck.pce_svn,
        "cpusvn": pck.cpu_svn.hex(),
        "pceid": pck.pce_id.hex(),
        "fmspc": pck.fmspc.hex(),
        "sgxtype": pck.sgx_type,
        "piid": (pck.platform_instance_id or b"").hex(),
        "conf": {f"7.{n}": "ff" if flag else "00" for n, flag in enumerate(flags, 1) if flag is not None},
    }


def qe_fields(qe: EnclaveReport) -> dict[str, Any]:
    return {
        "isvsvn": qe.isv_svn,
        "isvprodid": qe.isv_prod_id,
        "mrsigner": qe.mr_signer.hex(),
        "attributes": qe.attributes.hex(),
        "miscselect": qe.misc_select.to_bytes(4, "little").hex(),
    }


def opinion(ours: Mapping[str, Any] | None, theirs: Mapping[str, Any], *, refused: bool) -> dict[str, Any]:
    """Another verifier's recorded verdict as ours: equal where both accept, and both refuse or neither."""
    if "error" in theirs:
        return {"error": theirs["error"] if refused else "accepted"}
    return {"status": "refused"} if ours is None else dict(ours)


def _evaluate(
    quote: TDXQuote, evaluation: dict[str, Any], vectors: VectorSet, roots: Roots, observed: Observation
) -> dict[str, Any]:
    raw = vectors.bytes_at(evaluation["collateral"])
    collateral = observed.attempt(lambda: collateral_of(raw))
    if collateral is None:
        return {}
    now = datetime.fromisoformat(evaluation["at"])
    claims = observed.attempt(lambda: verify_quote(quote, collateral, roots=roots, now=now))
    found: dict[str, Any] = {"collateral": evaluation["collateral"], "at": evaluation["at"]}
    if claims is None:
        found["expected"] = observed.attempt(lambda: _standings(quote, collateral, roots, now)) or {}
    else:
        found["expected"] = _told(claims)
    ours: dict[str, Any] | None = None
    if claims is not None:
        ours = {"status": claims.tcb_status.value, "advisory_ids": list(claims.advisories)}
    is_bad = claims is None or quote.body.debug or not quote.body.sept_ve_disable
    for name, theirs in evaluation.items():
        if name.startswith("dcap_qvl"):
            # That library also refuses what is a policy's matter here: debug guests, no SEPT_VE_DISABLE.
            found[name] = opinion(ours, theirs, refused=is_bad)
    return found


def _told(claims: TDXClaims) -> dict[str, Any]:
    return {
        "platform_tcb_status": claims.platform.status.value,
        "tcb_date": _day(claims.platform),
        "advisory_ids": list(claims.platform.advisories),
        "qe_status": claims.qe.status.value,
        "tdx_module_status": claims.module.status.value if claims.module is not None else None,
        "window": [claims.valid_from.isoformat(), claims.valid_until.isoformat()],
    }


def _standings(quote: TDXQuote, collateral: TDXCollateral, roots: Roots, now: datetime) -> dict[str, Any]:
    """The parts of a verdict that verify_quote would not give: what still stands when no level covers."""
    clock = Clock(now)
    path = pck_path(quote.pck_chain.removesuffix(b"\0"), roots=roots, clock=clock)
    signers = verifier._signers(collateral, path, roots, clock)
    verifier._check_revocations(collateral, path, signers, clock)
    identity = QEIdentity.parse(signed_object(collateral.qe_identity, QE_IDENTITY, signers[1]))
    info = TCBInfo.parse(signed_object(collateral.tcb_info, TCB_INFO, signers[0]))
    for document, what in ((identity, "qe identity"), (info, "tcb info")):
        clock.check(document.issue_date, document.next_update, what)
    pck = verifier._extension(path.leaf)
    covering = [level for level in info.levels if level.covers(pck, quote.body.tee_tcb_svn)]
    module = info.module_standing(quote.body, quote.body.tee_tcb_svn)
    return {
        "platform_tcb_status": covering[0].standing.status.value if covering else "NotSupported",
        "tcb_date": _day(covering[0].standing) if covering else None,
        "advisory_ids": list(covering[0].standing.advisories) if covering else [],
        "qe_status": identity.standing(quote.qe_report).status.value,
        "tdx_module_status": module.status.value if module is not None else None,
        "window": [clock.valid_from.isoformat(), clock.valid_until.isoformat()],
    }


def _day(standing: Standing) -> str:
    return standing.tcb_date.strftime("%Y-%m-%dT%H:%M:%SZ")


def collateral_of(raw: bytes) -> TDXCollateral:
    return TDXCollateral.from_json(parse_json(raw, "tdx collateral", max_bytes=1 << 20))
