"""Evidence in files, verified without any network: what it is, who vouches for it, what could not be checked."""

from collections.abc import Callable, Mapping
from typing import Final

from strongroom.cli.offline_azure import verify_hcl
from strongroom.cli.offline_nvidia import verify_devices, verify_manifest
from strongroom.cli.offline_tpm import verify_json_quote, verify_quotes
from strongroom.cli.question import Answer, Question, claims_facts, freshness, spki_of
from strongroom.errors import ConfigError, VerifyError
from strongroom.evidence.binding import Purpose, channel_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.detect import MAX_BYTES, Kind
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.snp_json import from_kbs
from strongroom.evidence.tdx import TDXQuote
from strongroom.verify.bundle import snp_claims, tdx_claims, verify_bundle
from strongroom.verify.claims import Claims
from strongroom.verify.snp import verify_report
from strongroom.verify.tdx import verify_quote
from strongroom.wire.canonical import JSON, parse_json, unb64u

_MAX_JSON: Final = MAX_BYTES
_UNSIGNED: Final = {
    Kind.TDREPORT: "its MAC means something on the machine that made it alone; ask that for a quote",
    Kind.EVENT_LOG: "unsigned; want the tpm quote over its registers beside it",
    Kind.CC_LOG: "unsigned; want the tdx quote over its registers beside it",
    Kind.PCRS: "unsigned; want the tpm quote over them beside it",
}


def verify_pieces(question: Question) -> Answer:
    """The answer about the most telling piece there is, or the first error that says why it is not genuine."""
    pieces = question.pieces
    for kinds, verify in _ORDER:
        if pieces.of(*kinds):
            return verify(question)
    for kind, why in _UNSIGNED.items():
        if pieces.of(kind):
            raise VerifyError(f"{kind}: {why}")
    found = ", ".join(dict.fromkeys(str(piece.kind) for piece in pieces.pieces))
    raise ConfigError(f"evidence: {found} alone, want evidence beside it")


def _bundle(question: Question) -> Answer:
    data = question.pieces.need(Kind.BUNDLE)
    bundle = Bundle.parse(data) if data[:1] == b"{" else Bundle.parse_cbor(data)
    if question.key is None:
        raise ConfigError(
            "evidence bundle: speaks for one key, want --key FILE with that key or its certificate"
        )
    challenge = question.nonce if question.nonce is not None else bundle.challenge
    claims = _verified(question, bundle, bundle.purpose, challenge, question.key)
    return _of_claims(f"evidence bundle for {bundle.purpose}", claims, freshness(question))


def _kept(question: Question) -> Answer:
    kept = _object(question.pieces.need(Kind.KEPT), "kept evidence")
    answer = kept.get("answer")
    channel = answer.get("channel") if isinstance(answer, dict) else None
    nonce, exporter, der = (_octets(kept, name) for name in ("nonce", "exporter", "certificate"))
    bundle = Bundle.from_json(channel)
    challenge = channel_challenge(nonce, exporter)
    claims = _verified(question, bundle, Purpose.CHANNEL, challenge, spki_of(der))
    gap = "that this connection was yours: whoever kept the evidence says so"
    return _of_claims("kept evidence of one connection", claims, (gap,))


def _verified(question: Question, bundle: Bundle, purpose: Purpose, challenge: bytes, key: bytes) -> Claims:
    own = question.supplied(bundle)
    return verify_bundle(
        bundle,
        purpose=purpose,
        challenge=challenge,
        key=key,
        roots=question.roots,
        now=question.now,
        issuers=own.certificates,
        collateral=own.collateral,
    )


def _snp(question: Question) -> Answer:
    own = question.pieces.one(Kind.SNP_KBS)
    if own is not None:
        report, table = from_kbs(parse_json(own, "snp evidence", max_bytes=_MAX_JSON))
    else:
        report = SNPReport.parse(question.pieces.need(Kind.SNP))
        table = CertificateTable.parse(question.pieces.one(Kind.SNP_TABLE) or b"")
    question.check_nonce(report.report_data, "snp report: report_data")
    table, crl = question.amd_table(report, table)
    endorsement = verify_report(report, table, roots=question.roots, now=question.now, crl=crl)
    claims = snp_claims(report, endorsement, None)
    return _of_claims(f"AMD SEV-SNP report, version {report.version}", claims, freshness(question))


def _tdx(question: Question) -> Answer:
    quote = TDXQuote.parse(question.pieces.need(Kind.TDX))
    question.check_nonce(quote.body.report_data, "tdx quote: report_data")
    claims = verify_quote(quote, question.tdx_collateral(quote), roots=question.roots, now=question.now)
    return _of_claims(
        f"Intel TDX quote, version {quote.version}", tdx_claims(claims, None), freshness(question)
    )


def _of_claims(what: str, claims: Claims, gaps: tuple[str, ...]) -> Answer:
    return Answer(
        what=what,
        facts=claims_facts(claims),
        claims=claims,
        simulated=claims.simulated,
        not_checked=(*claims.not_checked, *gaps),
    )


def _object(data: bytes, subject: str) -> dict[str, JSON]:
    value = parse_json(data, subject, max_bytes=_MAX_JSON)
    if not isinstance(value, dict):
        raise ConfigError(f"{subject}: want an object")
    return value


def _octets(value: Mapping[str, JSON], name: str) -> bytes:
    text = value.get(name)
    if not isinstance(text, str):
        raise ConfigError(f"kept evidence: {name} must be text")
    return unb64u(text, f"kept evidence.{name}")


_ORDER: Final[tuple[tuple[tuple[Kind, ...], Callable[[Question], Answer]], ...]] = (
    ((Kind.KEPT,), _kept),
    ((Kind.BUNDLE,), _bundle),
    ((Kind.HCL,), verify_hcl),
    ((Kind.SNP, Kind.SNP_KBS), _snp),
    ((Kind.TDX,), _tdx),
    ((Kind.TPM_EVIDENCE,), verify_json_quote),
    ((Kind.TPM_QUOTE,), verify_quotes),
    ((Kind.GPU, Kind.GPUS), verify_devices),
    ((Kind.RIM,), verify_manifest),
)
