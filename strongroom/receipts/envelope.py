"""The receipt file: a signed receipt with the evidence for the key that signed it (docs/formats/receipt.md).

Whoever keeps this file can prove years later what answered, with the roots and a policy and nothing else: as of a time
at which they know to have had it. Nothing in the file proves that time. A key broken later can sign an earlier date,
and collateral of any date is public.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.binding import Purpose, receipt_challenge
from strongroom.evidence.bundle import MAX_PACKED, Bundle
from strongroom.evidence.collateral import Collateral
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.receipts.receipt import Engine, Model, Receipt, SignedReceipt, verify
from strongroom.verify.bundle import verify_bundle
from strongroom.verify.claims import Claims
from strongroom.verify.roots import Roots
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u

MAX_BYTES: Final = MAX_PACKED + 64 * 1024  # a bundle with its collateral, and the receipt
SKEW: Final = timedelta(seconds=60)  # how far the guest's clock may differ from the verifier's
_KEYS: Final = {"receipt", "signature", "key", "not_before", "evidence"}
_FAR: Final = 2**37  # unix seconds, beyond the year 6000; datetime holds little more


def pack(signed: SignedReceipt, *, not_before: datetime, evidence: Bundle) -> bytes:
    """The file's bytes. `not_before` is the whole minute that the key's evidence was made for."""
    return pack_json(
        {
            "receipt": signed.receipt.to_json(),
            "signature": b64u(signed.signature),
            "key": b64u(signed.key),
            "not_before": int(not_before.timestamp()),
            "evidence": evidence.to_json(),
        }
    )


def parse(raw: bytes) -> tuple[SignedReceipt, datetime, Bundle]:
    """Signed receipt, not_before and evidence, none of them verified. Raises FormatError."""
    value = parse_json(raw, "receipt file", max_bytes=MAX_BYTES)
    if not isinstance(value, dict) or value.keys() != _KEYS:
        raise FormatError(f"receipt file: want an object with exactly {', '.join(sorted(_KEYS))}")
    signed = SignedReceipt(
        receipt=Receipt.from_json(value["receipt"]),
        signature=_bytes(value, "signature"),
        key=_bytes(value, "key"),
    )
    return signed, _minute(value["not_before"]), Bundle.from_json(value["evidence"])


def verify_envelope(
    raw: bytes,
    *,
    roots: Roots,
    now: datetime,
    issuers: CertificateTable | None = None,
    collateral: Collateral | None = None,
) -> tuple[Receipt, Claims]:
    """Receipt and claims of the machine that signed it, all genuine at `now`; acceptable or not is for a policy.

    `collateral` and `issuers` are the caller's own, as for verify_bundle.
    Raises FormatError when bytes are wrong, VerifyError when evidence, signature or their agreement is.
    """
    signed, not_before, bundle = parse(raw)
    claims = verify_bundle(
        bundle,
        purpose=Purpose.RECEIPT_KEY,
        challenge=receipt_challenge(not_before),
        key=signed.key,
        roots=roots,
        now=now,
        issuers=issuers,
        collateral=collateral,
    )
    receipt = verify(signed, key=signed.key)
    if receipt.evidence_sha256 != bundle.digest:
        raise VerifyError("receipt: it names other evidence than the file holds")
    if receipt.model != Model.from_events(bundle.events):
        raise VerifyError("receipt: its model is not the one the evidence names")
    if receipt.engine != Engine.from_events(bundle.events):
        raise VerifyError("receipt: its engine is not the one the evidence names")
    _require_time(receipt.served_at, not_before=not_before, now=now)
    return receipt, claims


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
