"""Quotes of TPMs in files: with the PCR values, the log and the key that were given beside them."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from strongroom.cli.question import Answer, Question, freshness, name_of, spki_of
from strongroom.errors import ConfigError, FormatError, StrongroomError, VerifyError
from strongroom.evidence.detect import Kind
from strongroom.evidence.tcglog import LogKind, TCGLog
from strongroom.evidence.tpm import Hash, Scheme, TPMPublic, TPMQuote, TPMSignature
from strongroom.verify.roots import Anchor
from strongroom.verify.tcglog import confirmed
from strongroom.verify.tpm import SigningKey, TPMClaims, key_sha256, public_key, verify_quote
from strongroom.verify.tpm_chain import CertifiedKey, verify_ak_chain
from strongroom.wire.canonical import JSON, parse_json, unb64

_MAX_JSON: Final = 2 << 20


def verify_quotes(question: Question) -> Answer:
    """One quote, by a key that is certified, or is the one the asker named."""
    quote = TPMQuote.parse(question.pieces.need(Kind.TPM_QUOTE))
    signature = signature_of(question)
    public = _given_key(question)
    claims = judged(question, quote, signature, public, pcr_values(question))
    certified, gaps = _certified(question, public)
    root = certified.root_sha256.hex() if certified is not None else "the key you named"
    facts = (("signed by", f"tpm key {claims.key_sha256.hex()}"), ("root", root), *quote_facts(claims))
    log_facts, log_gaps = with_log(question, claims)
    is_simulated = certified is not None and certified.simulated
    return Answer("TPM quote", facts + log_facts, None, is_simulated, (*claims.not_checked, *gaps, *log_gaps))


def verify_json_quote(question: Question) -> Answer:
    """A quote in the CoCo project's JSON, whose key arrives bare."""
    value = parse_json(question.pieces.need(Kind.TPM_EVIDENCE), "tpm evidence", max_bytes=_MAX_JSON)
    try:
        message, signature, key, pcrs = _members(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(
            "tpm evidence: want ak_public, and tpm_quote with message, signature, pcrs"
        ) from error
    claims = judged(question, TPMQuote.parse(message), TPMSignature.parse(signature), _key(key), pcrs)
    _named(question, claims.key_sha256)
    facts = (
        ("signed by", f"tpm key {claims.key_sha256.hex()}"),
        ("root", "the key you named"),
        *quote_facts(claims),
    )
    return Answer("TPM quote", facts, None, False, (*claims.not_checked, *freshness(question)))


def judged(
    question: Question,
    quote: TPMQuote,
    signature: TPMSignature,
    key: TPMPublic | SigningKey,
    values: Mapping[int, bytes],
) -> TPMClaims:
    """The claims of a quote over one bank, whichever PCRs it chose; values of others are left aside."""
    if len(quote.pcr_select) != 1:
        raise VerifyError(f"tpm quote: {len(quote.pcr_select)} banks are quoted, want one")
    (selection,) = quote.pcr_select
    return verify_quote(
        quote,
        signature,
        key=key,
        nonce=question.nonce if question.nonce is not None else quote.extra_data,
        pcrs={pcr: value for pcr, value in values.items() if pcr in selection.pcrs},
        bank=selection.bank,
        wanted=selection.pcrs,
    )


def signature_of(question: Question) -> TPMSignature:
    bare = question.pieces.one(Kind.TPM_NUMBER)
    if bare is not None:  # Azure strips the wrapper
        return TPMSignature(Scheme.RSASSA, Hash.SHA256, (bare,))
    return TPMSignature.parse(question.pieces.need(Kind.TPM_SIGNATURE))


def pcr_values(question: Question) -> dict[int, bytes]:
    """PCR values as JSON: a list by index, or an object by number; hex."""
    value = parse_json(question.pieces.need(Kind.PCRS), "pcr values", max_bytes=_MAX_JSON)
    items = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else [])
    try:
        return {int(index): bytes.fromhex(text) for index, text in items if isinstance(text, str)}
    except ValueError as error:
        raise FormatError("pcr values: want hex by number") from error


def quote_facts(claims: TPMClaims) -> tuple[tuple[str, str], ...]:
    return (
        ("nonce", claims.nonce.hex()),
        *((f"pcr {pcr} ({claims.bank})", value.hex()) for pcr, value in claims.pcrs.items()),
        ("boots", f"{claims.reset_count} since cleared, {claims.restart_count} resumed"),
    )


def with_log(question: Question, claims: TPMClaims) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Facts and gaps of the log beside a quote; the registers it does not explain are named, not refused."""
    raw = question.pieces.one(Kind.EVENT_LOG)
    gaps = freshness(question)
    if raw is None:
        return (), (*gaps, "what was measured: no event log given")
    log = TCGLog.parse(raw, LogKind.TPM)
    explained = [pcr for pcr in claims.pcrs if _explains(log, pcr, claims)]
    others = [str(pcr) for pcr in claims.pcrs if pcr not in explained]
    if not explained:
        raise VerifyError("event log: replay differs from the quote in every pcr")
    if others:
        gaps = (*gaps, f"pcr {', '.join(others)}: the log does not lead to the quoted value")
    return (("log", f"leads to the quoted pcr {', '.join(map(str, explained))}"),), gaps


def _explains(log: TCGLog, pcr: int, claims: TPMClaims) -> bool:
    try:
        confirmed(log, {pcr: claims.pcrs[pcr]}, claims.bank)
    except StrongroomError:
        return False
    return True


def _given_key(question: Question) -> TPMPublic | SigningKey:
    area = question.pieces.one(Kind.TPM_KEY)
    if area is not None:
        return TPMPublic.parse(area)
    if question.key is None:
        raise ConfigError("tpm quote: no key given, want its public area beside it, or --key FILE")
    return _key(question.key)


def _certified(
    question: Question, public: TPMPublic | SigningKey
) -> tuple[CertifiedKey | None, tuple[str, ...]]:
    wanted = key_sha256(public_key(public) if isinstance(public, TPMPublic) else public)
    given = question.certificates()
    leaf = next((der for der in given if sha256(spki_of(der)).digest() == wanted), None)
    if leaf is None:
        _named(question, wanted)
        return None, ()
    chain = question.path_of(leaf)
    anchor = Anchor.AZURE_VTPM if "Azure" in name_of(chain[-1]) else Anchor.GCP_VTPM
    certified = verify_ak_chain(chain, anchor=anchor, roots=question.roots, now=question.now)
    return certified, certified.not_checked


def _named(question: Question, key: bytes) -> None:
    """Refuse a key nobody vouches for: whoever wrote the evidence may have made it."""
    if question.key is None or sha256(question.key).digest() != key:
        raise VerifyError(f"tpm key: nobody vouches for {key.hex()}, want its certificates, or it as --key")


def _members(value: JSON) -> tuple[bytes, bytes, bytes, dict[int, bytes]]:
    if not isinstance(value, dict) or not isinstance(quote := value["tpm_quote"], dict):
        raise TypeError
    pcrs = quote["pcrs"]
    if not isinstance(pcrs, list):
        raise TypeError
    return (
        unb64(str(quote["message"]), "tpm evidence.message"),
        unb64(str(quote["signature"]), "tpm evidence.signature"),
        unb64(str(value["ak_public"]), "tpm evidence.ak_public"),
        dict(enumerate(bytes.fromhex(v) if isinstance(v, str) else bytes(v) for v in pcrs)),  # type: ignore[arg-type]
    )


def _key(der: bytes) -> SigningKey:
    try:
        key = load_der_public_key(der)
    except ValueError as error:
        raise FormatError("tpm evidence: ak_public is not a public key") from error
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey):
        raise FormatError("tpm evidence: ak_public is neither RSA nor elliptic")
    return key
