"""Mirrors strongroom/receipts/envelope.py."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.evidence.binding import Purpose, receipt_challenge
from strongroom.receipts.envelope import MAX_BYTES, from_stream, pack, parse, verify_envelope
from strongroom.receipts.hashing import RECEIPT_COMMENT, StreamHash
from strongroom.receipts.receipt import Receipt, sign
from strongroom.verify.lacking import LackingError
from strongroom.verify.roots import PRODUCTION
from strongroom.wire.canonical import pack_json
from tests.fakes.exchange import ENGINE, MODEL, NOT_BEFORE, NOW, events, receipt, receipt_bundle, spki
from tests.fakes.makers import World
from tests.fakes.silicon import MEASUREMENT, roots, silicon

CHIP = silicon()
ROOTS = roots(CHIP)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
EVIDENCE = receipt_bundle(CHIP, KEY)
RECEIPT = receipt(EVIDENCE)
RAW = pack(sign(RECEIPT, KEY), not_before=NOT_BEFORE, evidence=EVIDENCE)


def changed(**members: Any) -> bytes:
    return json.dumps({**json.loads(RAW), **members}).encode()


def signed(found: Receipt, evidence: Any = EVIDENCE) -> bytes:
    return pack(sign(found, KEY), not_before=NOT_BEFORE, evidence=evidence)


def test_an_honest_file_verifies() -> None:
    found, claims = verify_envelope(RAW, roots=ROOTS, now=NOW)
    assert found == RECEIPT
    assert claims.measurement == MEASUREMENT


def test_it_still_verifies_a_year_later() -> None:
    verify_envelope(RAW, roots=ROOTS, now=NOW + timedelta(days=365))


@pytest.mark.guarantee("G18")
def test_simulated_silicon_is_no_default_root() -> None:
    with pytest.raises(VerifyError):
        verify_envelope(RAW, roots=PRODUCTION, now=NOW)


@pytest.mark.guarantee("G12")
def test_a_flipped_bit_anywhere_is_refused() -> None:
    for position in range(0, len(RAW), 31):
        mutant = bytearray(RAW)
        mutant[position] ^= 1 << position % 7
        with pytest.raises(StrongroomError):
            verify_envelope(bytes(mutant), roots=ROOTS, now=NOW)


def test_a_cut_file_is_refused_at_every_length() -> None:
    for length in range(0, len(RAW), 37):
        with pytest.raises(FormatError):
            parse(RAW[:length])


@pytest.mark.guarantee("G12")
def test_a_receipt_signed_by_a_key_the_machine_never_spoke_for_is_refused() -> None:
    forger = Ed25519PrivateKey.generate()
    raw = pack(sign(RECEIPT, forger), not_before=NOT_BEFORE, evidence=EVIDENCE)
    with pytest.raises(VerifyError, match="report_data"):
        verify_envelope(raw, roots=ROOTS, now=NOW)


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize(
    ("found", "why"),
    [
        (replace(RECEIPT, model=replace(MODEL, root=bytes(32))), "its model is not"),
        (replace(RECEIPT, model=replace(MODEL, epoch=4)), "its model is not"),
        (replace(RECEIPT, engine=replace(ENGINE, version="0.31.0")), "its engine is not"),
        (replace(RECEIPT, evidence_sha256=bytes(32)), "other evidence"),
        (replace(RECEIPT, served_at=int(NOT_BEFORE.timestamp()) - 61), "served_at is"),
        (replace(RECEIPT, served_at=int(NOW.timestamp()) + 61), "served_at is"),
    ],
)
def test_a_receipt_that_contradicts_its_evidence_is_refused(found: Receipt, why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        verify_envelope(signed(found), roots=ROOTS, now=NOW)


@pytest.mark.guarantee("G7")
def test_evidence_for_another_minute_is_refused() -> None:
    with pytest.raises(VerifyError, match="challenge"):
        verify_envelope(changed(not_before=int(NOT_BEFORE.timestamp()) + 60), roots=ROOTS, now=NOW)


def test_evidence_of_another_boot_is_refused() -> None:
    other = receipt_bundle(CHIP, KEY, events(model=replace(MODEL, epoch=9)))
    with pytest.raises(VerifyError, match="other evidence"):
        verify_envelope(signed(RECEIPT, other), roots=ROOTS, now=NOW)


@pytest.mark.parametrize(
    "members",
    [
        {"more": 1},
        {"signature": 1},
        {"key": None},
        {"not_before": int(NOT_BEFORE.timestamp()) + 1},
        {"not_before": True},
        {"not_before": 2**62},
        {"not_before": 60 * (2**40 // 60 - 1)},  # further than a datetime reaches
        {"not_before": -60},
        {"receipt": {}},
        {"evidence": {}},
    ],
)
def test_other_files_are_refused(members: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        verify_envelope(changed(**members), roots=ROOTS, now=NOW)


def test_a_huge_file_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(FormatError, match="want at most"):
        parse(b" " * (MAX_BYTES + 1))


def test_a_file_brings_collateral_that_holds_for_its_time_and_no_longer() -> None:
    world = World(NOW, "tdx")
    challenge = receipt_challenge(NOT_BEFORE)
    evidence = world.carrying(purpose=Purpose.RECEIPT_KEY, challenge=challenge, key=spki(KEY))
    raw = signed(receipt(evidence), evidence)
    later = NOW + timedelta(days=365)
    verify_envelope(raw, roots=world.roots, now=NOW)
    # Nothing in it proves when it was made: whoever asks about today is not answered with the word of then.
    with pytest.raises(LackingError, match="want a newer issue"):
        verify_envelope(raw, roots=world.roots, now=later)
    verify_envelope(raw, roots=world.roots, now=later, collateral=World(later, "tdx").collateral)
    bare = signed(receipt(evidence), evidence.bare)
    assert parse(bare)[0] == parse(raw)[0]  # the signature does not speak of collateral
    with pytest.raises(LackingError, match="neither evidence nor verifier"):
        verify_envelope(bare, roots=world.roots, now=NOW)


def carrying(found: Receipt, times: int = 1) -> StreamHash:
    stream = StreamHash()
    comment = RECEIPT_COMMENT + pack_json(sign(found, KEY).to_json()) + b"\n\n"
    stream.update(b"data: 1\n\n" + comment * times + b"data: [DONE]\n\n")
    return stream


@pytest.mark.guarantee("G12")
def test_a_stream_carries_one_receipt_and_that_is_a_streams() -> None:
    streamed = replace(RECEIPT, stream=True)
    assert from_stream(carrying(streamed)).receipt == streamed
    with pytest.raises(FormatError, match="is for an answer that was no stream"):
        from_stream(carrying(RECEIPT))
    with pytest.raises(FormatError, match="more receipts than one"):
        from_stream(carrying(streamed, times=2))
    with pytest.raises(FormatError, match="no receipt"):
        from_stream(StreamHash())
