"""Azure's HCL reports with the quotes of their vTPMs, as Strongroom sees them."""

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from strongroom.evidence.hcl import HCLReport, ReportType, RuntimeData
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.tdx import TDReport, TDXQuote
from strongroom.evidence.tpm import Hash, Scheme, TPMQuote, TPMSignature
from strongroom.verify import azure as verifier
from strongroom.verify.azure import AzureEvidence, attestation_key, verify_azure_snp
from strongroom.verify.roots import Anchor, Roots
from strongroom.verify.tpm import verify_quote
from tests.vectors import snp, tdx
from tests.vectors.index import Vector, VectorSet, certificates, window
from tests.vectors.judge import Observation
from tests.vectors.tpm import ak_chain, pcr_values, quote_fields, spki

_RSA = (Scheme.RSASSA, Hash.SHA256)  # Azure ships the bare number
_SNP_FIELDS = (
    "version",
    "policy",
    "vmpl",
    "measurement",
    "host_data",
    "id_key_digest",
    "reported_tcb",
    "chip_id",
)


def observe_hcl(vector: Vector, vectors: VectorSet, roots: Roots) -> Observation:
    """The report, what binds its JSON, the quote by the key in it, and the hardware's own evidence."""
    observed = Observation()
    raw = vectors.read(vector, "hcl")
    hcl = observed.attempt(lambda: HCLReport.parse(raw))
    if hcl is None:
        return observed
    report_data = _hardware_report_data(hcl)
    observed.found |= _hcl_fields(hcl, raw, report_data)
    observed.found["report_data_bound"] = report_data == hcl.report_data
    runtime = observed.attempt(lambda: _bound(hcl))
    if runtime is None:
        return observed
    observed.found |= _runtime_fields(runtime)
    if "quote" in vector.paths:
        _observe_quote(vector, vectors, runtime, observed)
    if "vcek" in vector.paths:
        _observe_snp(hcl, vector, vectors, roots, observed)
    if "td_quote" in vector.paths:
        _observe_td(hcl, vectors.read(vector, "td_quote"), observed, vectors, roots)
    if "ak_cert" in vector.paths:
        _observe_ak(vectors.read(vector, "ak_cert"), runtime, observed, vectors, roots)
    return observed


def evidence_of(vector: Vector, vectors: VectorSet, hcl: HCLReport) -> AzureEvidence:
    quote = TPMQuote.parse(vectors.read(vector, "quote"))
    (selection,) = quote.pcr_select
    values = pcr_values(vectors.read(vector, "pcrs"))
    return AzureEvidence(
        hcl=hcl,
        quote=quote,
        signature=TPMSignature(*_RSA, (vectors.read(vector, "sig"),)),
        pcrs={pcr: values[pcr] for pcr in selection.pcrs},
    )


def _bound(hcl: HCLReport) -> RuntimeData:
    """The JSON, once the hardware's report carries its hash."""
    return verifier._bound_runtime(hcl, _hardware_report_data(hcl))


def _observe_quote(vector: Vector, vectors: VectorSet, runtime: RuntimeData, observed: Observation) -> None:
    quote = TPMQuote.parse(vectors.read(vector, "quote"))
    (selection,) = quote.pcr_select
    values = pcr_values(vectors.read(vector, "pcrs"))
    claims = observed.attempt(
        lambda: verify_quote(
            quote,
            TPMSignature(*_RSA, (vectors.read(vector, "sig"),)),
            key=attestation_key(runtime),
            nonce=quote.extra_data,
            pcrs={pcr: values[pcr] for pcr in selection.pcrs},
            bank=selection.bank,
            wanted=selection.pcrs,
        )
    )
    fields = quote_fields(quote, claims)
    observed.found |= fields | {"quote_signature_valid": fields["signature_valid"]}


def _observe_snp(
    hcl: HCLReport, vector: Vector, vectors: VectorSet, roots: Roots, observed: Observation
) -> None:
    report = SNPReport.parse(hcl.hardware_report)
    leaf = vectors.read(vector, "vcek")
    inner = Observation(refusals=observed.refusals)
    endorsement = snp.observe_leaf(leaf, report, inner, vectors, roots, [])
    fields = snp.report_fields(report)
    observed.found["snp"] = {name: fields[name] for name in _SNP_FIELDS}
    observed.found["snp_signature_valid"] = endorsement is not None
    observed.found["product"] = endorsement.product if endorsement is not None else None
    (certificate,) = certificates(leaf)
    issuers = [c.public_bytes(Encoding.DER) for c in vectors.path_of(certificate)]
    table = CertificateTable(vcek=leaf, ask=issuers[0], ark=issuers[1])
    evidence = evidence_of(vector, vectors, hcl)
    now = vectors.moment([window(certificate)])
    observed.attempt(
        lambda: verify_azure_snp(
            evidence,
            table,
            nonce=evidence.quote.extra_data,
            wanted=frozenset(evidence.pcrs),
            roots=roots,
            now=now,
        )
    )


def _observe_td(hcl: HCLReport, raw: bytes, observed: Observation, vectors: VectorSet, roots: Roots) -> None:
    quote = observed.attempt(lambda: TDXQuote.parse(raw))
    report = observed.attempt(lambda: TDReport.parse(hcl.hardware_report))
    if quote is None or report is None:
        return
    pem = certificates(quote.pck_chain)
    path = observed.attempt(lambda: tdx.signed_path(quote, roots, vectors.moment(window(c) for c in pem)))
    observed.found |= {
        "td_quote_signature_chain_valid": path is not None,
        "td_quote_report_data_equal": quote.body.report_data == report.body.report_data,
        "td_quote_mrtd": quote.body.mr_td.hex(),
        "td_quote_mrtd_equals_tdreport": quote.body.mr_td == report.body.mr_td,
        "td_attributes": quote.body.td_attributes.to_bytes(8, "little").hex(),
    }


def _observe_ak(
    raw: bytes, runtime: RuntimeData, observed: Observation, vectors: VectorSet, roots: Roots
) -> None:
    leaf = certificates(raw)[0]
    issuers = vectors.path_of(leaf)
    observed.found["ak_cert"] = {
        "subject": _common_name(leaf.subject),
        "issuer": _common_name(leaf.issuer),
        "validity": [at.isoformat() for at in window(leaf)],
        "key_is_hcl_ak": spki(leaf.public_key()) == spki(attestation_key(runtime)),
        "pem_has_trailing_padding": raw.rstrip() != raw.rstrip().rstrip(b"\0"),
    }
    observed.found["ak_chain_valid_to_root_2023"] = ak_chain(
        leaf, issuers, Anchor.AZURE_VTPM, observed, vectors, roots
    )


def _hcl_fields(hcl: HCLReport, raw: bytes, report_data: bytes) -> dict[str, Any]:
    size = int.from_bytes(raw[8:12], "little")
    return {
        "hcl_version": hcl.version,
        "report_size": size,
        "request_type": int.from_bytes(raw[12:16], "little"),
        "report_type": hcl.report_type.name,
        "hash_type": int.from_bytes(raw[1228:1232], "little"),
        "variable_data_size": len(hcl.variable_data),
        "trailing_bytes": len(raw) - size,
        "variable_data_hash": hcl.hash_type.digest(hcl.variable_data).hex(),
        "report_data": report_data.hex(),
    }


def _runtime_fields(runtime: RuntimeData) -> dict[str, Any]:
    return {
        "key_ids": list(runtime.keys),
        "vm_configuration": dict(runtime.configuration),
        "user_data": runtime.user_data.hex().upper() if runtime.user_data is not None else None,
    }


def _hardware_report_data(hcl: HCLReport) -> bytes:
    if hcl.report_type is ReportType.SNP:
        return SNPReport.parse(hcl.hardware_report).report_data
    return TDReport.parse(hcl.hardware_report).body.report_data


def _common_name(name: x509.Name) -> str:
    return f"CN={name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value!s}"
