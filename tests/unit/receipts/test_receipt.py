"""Mirrors strongroom/receipts/receipt.py."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.receipts.receipt import (
    _KEYS,
    CACHES,
    Engine,
    Letterhead,
    Model,
    Receipt,
    SignedReceipt,
    sign,
    verify,
)
from strongroom.wire.canonical import pack_json
from tests.fakes.exchange import ENGINE, MODEL, events, receipt, receipt_bundle, spki, tls_key
from tests.fakes.silicon import silicon

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RECEIPT = receipt(receipt_bundle(silicon(), KEY))
SIGNED = sign(RECEIPT, KEY)


def test_json_round_trips() -> None:
    assert Receipt.from_json(RECEIPT.to_json()) == RECEIPT


def test_a_signature_verifies() -> None:
    assert verify(SIGNED, key=spki(KEY)) == RECEIPT


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize(
    "change",
    [
        {"id": "f" * 32},
        {"served_at": RECEIPT.served_at + 1},
        {"endpoint": "/v1/completions"},
        {"method": "GET"},
        {"model": replace(MODEL, name="other")},
        {"model": replace(MODEL, root=bytes(32))},
        {"model": replace(MODEL, epoch=2)},
        {"engine": replace(ENGINE, version="0.31.0")},
        {"engine": replace(ENGINE, flags_sha256=bytes(32))},
        {"request_sha256": bytes(32)},
        {"response_sha256": bytes(32)},
        {"complete": False},
        {"evidence_sha256": bytes(32)},
        {"stream": True},
        {"cache": "tenant"},
    ],
    ids="-".join,
)
def test_every_field_is_signed(change: dict[str, Any]) -> None:
    with pytest.raises(VerifyError, match="signature does not match"):
        verify(replace(SIGNED, receipt=replace(RECEIPT, **change)), key=spki(KEY))


@pytest.mark.guarantee("G12")
def test_every_byte_of_the_signature_counts() -> None:
    for position in range(64):
        mutant = bytearray(SIGNED.signature)
        mutant[position] ^= 1
        with pytest.raises(VerifyError):
            verify(replace(SIGNED, signature=bytes(mutant)), key=spki(KEY))
    with pytest.raises(VerifyError):
        verify(replace(SIGNED, signature=SIGNED.signature[:-1]), key=spki(KEY))


def test_another_key_is_refused() -> None:
    other = Ed25519PrivateKey.generate()
    with pytest.raises(VerifyError, match="another key"):
        verify(SIGNED, key=spki(other))
    with pytest.raises(VerifyError, match="does not match"):
        verify(replace(SIGNED, key=spki(other)), key=spki(other))


UNKNOWN_CURVE = bytes.fromhex(
    "3059301306072a8648ce3d020106082a8648ce3d030102034200" + "04" + "11" * 64
)  # P-192v2, of which the library has the name only


@pytest.mark.parametrize("key", [spki(tls_key()), UNKNOWN_CURVE, b"", b"not a key"])
def test_only_ed25519_keys_count(key: bytes) -> None:
    with pytest.raises(FormatError, match="receipt: key is"):
        verify(SignedReceipt(receipt=RECEIPT, signature=SIGNED.signature, key=key), key=key)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": "strongroom/receipt/v1"}, "version is"),
        ({"more": 1}, "'more' is unknown"),
        ({"id": "A" * 32}, "32 hex digits"),
        ({"id": "a" * 31}, "32 hex digits"),
        ({"served_at": True}, "whole number"),
        ({"served_at": -1}, "whole number"),
        ({"endpoint": ""}, "printable"),
        ({"endpoint": "/v1\n"}, "printable"),
        ({"complete": 1}, "want true or false"),
        ({"stream": None}, "want true or false"),
        ({"cache": "everyone"}, "want one of request, tenant, user"),
        ({"cache": 1}, "printable"),
        ({"request_sha256": "AB" * 32}, "64 lowercase hex"),
        ({"request_sha256": "ab" * 31}, "64 lowercase hex"),
        ({"model": []}, "want an object"),
        ({"model": {"name": "tiny"}}, "'epoch' is missing"),
        ({"engine": None}, "want an object"),
    ],
)
def test_other_json_is_refused(change: dict[str, Any], why: str) -> None:
    good = RECEIPT.to_json()
    assert isinstance(good, dict)
    with pytest.raises(FormatError, match=why):
        Receipt.from_json({**good, **change})


@pytest.mark.parametrize("key", [*_KEYS])
def test_a_missing_key_is_refused(key: str) -> None:
    good = RECEIPT.to_json()
    assert isinstance(good, dict)
    with pytest.raises(FormatError, match=f"'{key}' is missing"):
        Receipt.from_json({k: v for k, v in good.items() if k != key})


@pytest.mark.guarantee("G12")
def test_bodies_must_hash_to_what_it_says() -> None:
    good = {"request_sha256": RECEIPT.request_sha256, "response_sha256": RECEIPT.response_sha256}
    RECEIPT.require_bodies(**good)
    for name in good:
        with pytest.raises(VerifyError, match=name.partition("_")[0]):
            RECEIPT.require_bodies(**{**good, name: bytes(32)})


def test_model_and_engine_come_from_the_event_log() -> None:
    assert Model.from_events(events()) == MODEL
    assert Engine.from_events(events()) == ENGINE


def test_a_log_without_them_is_refused() -> None:
    with pytest.raises(FormatError, match="no event model"):
        Model.from_events(EventLog())
    with pytest.raises(FormatError, match="event engine: got list"):
        Engine.from_events(EventLog((Event("engine", pack_json([])),)))


@given(
    cache=st.sampled_from(CACHES),
    complete=st.booleans(),
    stream=st.booleans(),
    endpoint=st.sampled_from(["/v1/chat/completions", "/v1/completions"]),
    served_at=st.integers(0, 2**53 - 1),
    hashes=st.tuples(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32)),
)
def test_a_letterhead_packs_what_the_receipt_packs(
    cache: str, complete: bool, stream: bool, endpoint: str, served_at: int, hashes: tuple[bytes, bytes]
) -> None:
    answered = replace(
        RECEIPT,
        cache=cache,
        complete=complete,
        stream=stream,
        endpoint=endpoint,
        served_at=served_at,
        request_sha256=hashes[0],
        response_sha256=hashes[1],
    )
    model = replace(MODEL, name='a "model" \\ \u00e9')
    letterhead = Letterhead(model=model, engine=ENGINE, evidence_sha256=RECEIPT.evidence_sha256)
    assert letterhead.receipt(answered) == replace(answered, model=model)
    for _ in range(2):  # the second time from what was packed before
        assert letterhead.signed_part(answered) == replace(answered, model=model).signed_part


def test_what_a_stream_carries_round_trips() -> None:
    assert SignedReceipt.from_json(SIGNED.to_json()) == SIGNED
    for name in ("receipt", "signature", "key"):
        with pytest.raises(FormatError, match=f"'{name}' is missing"):
            SignedReceipt.from_json({k: v for k, v in SIGNED.to_json().items() if k != name})
    with pytest.raises(FormatError, match="want base64url text"):
        SignedReceipt.from_json({**SIGNED.to_json(), "signature": 1})
