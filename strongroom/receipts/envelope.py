"""The receipt file: a signed receipt with the evidence for the key that signed it (docs/formats/receipt.md).

Whoever keeps this file can prove years later what answered, with the roots and a policy and nothing else: as of a time
at which they know to have had it. Nothing in the file proves that time. A key broken later can sign an earlier date,
and collateral of any date is public.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.binding import Purpose, receipt_challenge
from strongroom.evidence.bundle import MAX_PACKED, Bundle
from strongroom.evidence.collateral import Collateral
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.receipts.hashing import StreamHash
from strongroom.receipts.log import Inclusion
from strongroom.receipts.receipt import Engine, Model, Receipt, SignedReceipt, verify
from strongroom.verify.bundle import verify_bundle
from strongroom.verify.claims import Claims
from strongroom.verify.roots import Roots
from strongroom.wire.canonical import JSON, pack_json, parse_json, unb64u

MAX_BYTES: Final = MAX_PACKED + 64 * 1024  # a bundle with its collateral, and the receipt
SKEW: Final = timedelta(seconds=60)  # how far the guest's clock may differ from the verifier's
_KEYS: Final = frozenset({"receipt", "signature", "key", "not_before", "evidence"})
_PROOF: Final = "proof"
_CARRIED: Final = "stream: its receipt"
_FAR: Final = 2**37  # unix seconds, beyond the year 6000; datetime holds little more


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerEvidence:
    """What a machine shows for its receipt key."""

    key: bytes
    not_before: datetime
    bundle: Bundle

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        """Out of a receipt file, or of what a door answers under /.well-known/strongroom. Not verified."""
        if isinstance(value, dict) and isinstance(inner := value.get("receipt_key"), dict):
            value = inner
        if not isinstance(value, dict) or not {"key", "not_before"} <= value.keys():
            raise FormatError("evidence of the receipt key: want an object with key, not_before and bundle")
        bundle = value["evidence"] if "evidence" in value else value.get("bundle")
        return cls(
            key=_bytes(value, "key"),
            not_before=_minute(value["not_before"]),
            bundle=Bundle.from_json(bundle),
        )


def pack(signed: SignedReceipt, *, not_before: datetime, evidence: Bundle, proof: JSON = None) -> bytes:
    """The file's bytes. `not_before` is the whole minute that the key's evidence was made for."""
    value: dict[str, JSON] = {
        **signed.to_json(),
        "not_before": int(not_before.timestamp()),
        "evidence": evidence.to_json(),
    }
    return pack_json(value if proof is None else {**value, _PROOF: proof})


def parse(raw: bytes) -> tuple[SignedReceipt, datetime, Bundle]:
    """Signed receipt, not_before and evidence, none of them verified. Raises FormatError."""
    value = _members(raw)
    signed = SignedReceipt.from_json({name: value[name] for name in ("receipt", "signature", "key")})
    return signed, _minute(value["not_before"]), Bundle.from_json(value["evidence"])


def parse_proof(raw: bytes) -> Inclusion | None:
    """The receipt's place in the log if the file names one, not verified. Raises FormatError."""
    value = _members(raw)
    return Inclusion.from_json(value[_PROOF]) if _PROOF in value else None


def _members(raw: bytes) -> Mapping[str, JSON]:
    value = parse_json(raw, "receipt file", max_bytes=MAX_BYTES)
    if not isinstance(value, dict) or value.keys() - {_PROOF} != _KEYS:
        raise FormatError(f"receipt file: want an object with exactly {', '.join(sorted(_KEYS))}")
    return value


def verify_envelope(
    raw: bytes,
    *,
    roots: Roots,
    now: datetime,
    issuers: CertificateTable | None = None,
    collateral: Collateral | None = None,
) -> tuple[Receipt, Claims]:
    """Receipt and claims of the machine that signed it, all genuine at `now`; acceptable or not is for a policy.

    `collateral` and `issuers` are the caller's own, as for verify_bundle. A proof in the file is verified too.
    Raises FormatError when bytes are wrong, VerifyError when evidence, signature or their agreement is.
    """
    signed, not_before, bundle = parse(raw)
    signer = SignerEvidence(key=signed.key, not_before=not_before, bundle=bundle)
    receipt, claims = verify_receipt(
        signed, signer, roots=roots, now=now, issuers=issuers, collateral=collateral
    )
    if (proof := parse_proof(raw)) is not None:
        proof.require(receipt, key=signed.key)
    return receipt, claims


def verify_receipt(
    signed: SignedReceipt,
    signer: SignerEvidence,
    *,
    roots: Roots,
    now: datetime,
    issuers: CertificateTable | None = None,
    collateral: Collateral | None = None,
) -> tuple[Receipt, Claims]:
    """The same of a receipt that came without its evidence."""
    claims = verify_bundle(
        signer.bundle,
        purpose=Purpose.RECEIPT_KEY,
        challenge=receipt_challenge(signer.not_before),
        key=signer.key,
        roots=roots,
        now=now,
        issuers=issuers,
        collateral=collateral,
    )
    receipt = verify(signed, key=signer.key)
    if receipt.evidence_sha256 != signer.bundle.digest:
        raise VerifyError("receipt: it names other evidence than the file holds")
    if receipt.model != Model.from_events(signer.bundle.events):
        raise VerifyError("receipt: its model is not the one the evidence names")
    if receipt.engine != Engine.from_events(signer.bundle.events):
        raise VerifyError("receipt: its engine is not the one the evidence names")
    _require_time(receipt.served_at, not_before=signer.not_before, now=now)
    return receipt, claims


def from_stream(stream: StreamHash) -> SignedReceipt:
    """The receipt that a stream of events carried, not verified.

    Raises FormatError unless it carried exactly one, and that is a stream's.
    """
    if len(stream.receipts) != 1:
        raise FormatError(
            f"stream: it carries {'more receipts than one' if stream.receipts else 'no receipt'}"
        )
    signed = SignedReceipt.from_json(parse_json(stream.receipts[0], _CARRIED), _CARRIED)
    if not signed.receipt.stream:  # its hash would be over every byte, also of this comment
        raise FormatError(f"{_CARRIED} is for an answer that was no stream")
    return signed


def _require_time(served_at: int, *, not_before: datetime, now: datetime) -> None:
    first, last = (not_before - SKEW).timestamp(), (now + SKEW).timestamp()
    if not first <= served_at <= last:
        raise VerifyError(f"receipt: served_at is {served_at}, want {int(first)}..{int(last)}")


def _bytes(value: Mapping[str, JSON], key: str) -> bytes:
    text = value[key]
    if not isinstance(text, str):
        raise FormatError(f"receipt file: {key} is {type(text).__name__}, want base64url text")
    return unb64u(text, f"receipt file: {key}")


def _minute(value: JSON) -> datetime:
    # the evidence commits to minutes, so a loose second could be changed unseen
    if type(value) is not int or not 0 <= value < _FAR or value % 60:
        raise FormatError("receipt file: not_before is not a whole minute in unix seconds")
    return datetime.fromtimestamp(value, UTC)
