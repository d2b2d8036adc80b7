"""Mirrors strongroom/receipts/aci.py. The vectors are those of the draft."""

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.errors import FormatError, VerifyError
from strongroom.receipts.aci import (
    FORWARDED,
    RECEIVED,
    RETURNED,
    X25519,
    ACIReceipt,
    EncryptionKey,
    Keyset,
    Step,
    TLSKey,
    hashed,
    report_data,
    sign,
    statement,
    verify,
)
from strongroom.wire.canonical import pack_json

KEY = Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32)
KEYSET = Keyset(
    subject="dstack-app://example-app",
    not_after=1_800_000_000,
    receipt_key_id="receipt-1",
    receipt_key=KEY.public_key().public_bytes_raw(),
    encryption=EncryptionKey(
        key_id="e2ee-1",
        algo=X25519,
        public_key=bytes.fromhex("5dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef22"),
    ),
    tls=TLSKey(spki_sha256=bytes([0xC0]) * 32, domain="api.example.com"),
)
NONCE = bytes(range(32)).hex()
RECEIPT = sign(
    ACIReceipt(
        receipt_id="r1",
        chat_id="chat-1",
        model=None,
        workload_keyset_digest=KEYSET.digest,
        endpoint="/v1/chat/completions",
        method="POST",
        served_at=1_790_000_000,
        event_log=(
            Step(type=RECEIVED, body_hash=hashed(b"in")),
            Step(type=FORWARDED, body_hash=hashed(b"given")),
            Step(type=RETURNED, body_hash=hashed(b"out")),
        ),
        key_id="receipt-1",
    ),
    KEY,
)


def test_the_keyset_of_the_vector() -> None:
    assert KEYSET.receipt_key.hex() == "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"
    assert KEYSET.digest == "sha256:53a5cd44b30dcc51999754c719f2628a041f174ecbf9662a6f8e898a10cd9371"
    assert pack_json(KEYSET.to_json()).startswith(
        b'{"e2ee_public_keys":[{"algo":"x25519-aes-256-gcm-hkdf-sha256"'
    )


def test_the_statement_of_the_vector() -> None:
    said = statement(KEYSET.digest, None)
    assert (
        said == f'{{"keyset_digest":"{KEYSET.digest}","nonce":null,"purpose":"aci.report_data.v1"}}'.encode()
    )
    assert report_data(KEYSET.digest, NONCE) == (
        bytes.fromhex("df2174d28130852b413646a3786927b93e94c11d770268b65def8bdba45cb49e") + bytes(32)
    )
    assert report_data(KEYSET.digest, None) == (
        bytes.fromhex("0633919ca3f00e97bafaa3304278eb22420cc3ff0d19f87dfca2d3f7508150bc") + bytes(32)
    )


@pytest.mark.parametrize("nonce", ["", "00", NONCE.upper(), NONCE + "00", "zz" * 32, NONCE + "\n"])
def test_a_nonce_is_64_lowercase_hex(nonce: str) -> None:
    with pytest.raises(FormatError, match=r"^nonce: "):
        statement(KEYSET.digest, nonce)


def test_a_keyset_digest_has_one_form() -> None:
    with pytest.raises(FormatError, match=r"^keyset digest: "):
        statement(KEYSET.digest[7:], None)


def test_another_key_is_another_keyset() -> None:
    others = [
        replace(KEYSET, subject=None),
        replace(KEYSET, not_after=0),
        replace(KEYSET, receipt_key=bytes(32)),
        replace(KEYSET, encryption=None),
        replace(KEYSET, tls=None),
        replace(KEYSET, tls=TLSKey(spki_sha256=bytes([0xC0]) * 32)),
    ]
    assert len({keyset.digest for keyset in (KEYSET, *others)}) == 7


def test_a_receipt_makes_a_round_trip_and_verifies() -> None:
    again = ACIReceipt.from_json(json.loads(json.dumps(RECEIPT.to_json())))
    assert again == RECEIPT
    verify(again, keyset=KEYSET)


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize(
    "change",
    [
        {"receipt_id": "r2"},
        {"chat_id": None},
        {"model": "m"},
        {"endpoint": "/"},
        {"method": "GET"},
        {"served_at": 1_790_000_001},
        {"event_log": RECEIPT.event_log[:-1]},
        {"event_log": (*RECEIPT.event_log, RECEIPT.event_log[-1])},
        {"event_log": (RECEIPT.event_log[0], RECEIPT.event_log[2], RECEIPT.event_log[1])},
        {"event_log": (replace(RECEIPT.event_log[0], more={"x": 1}), *RECEIPT.event_log[1:])},
        {"signature": "00" * 64},
        {"signature": ""},
        {"workload_keyset_digest": hashed(b"")},
        {"key_id": "receipt-2"},
        {"served_at": 1_800_000_001},
    ],
)
def test_any_change_is_detected(change: dict[str, Any]) -> None:
    with pytest.raises(VerifyError, match="aci receipt"):
        verify(replace(RECEIPT, **change), keyset=KEYSET)


def test_a_receipt_of_another_key_is_refused() -> None:
    forged = sign(RECEIPT, Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32))
    with pytest.raises(VerifyError, match="does not match"):
        verify(forged, keyset=KEYSET)


@pytest.mark.parametrize(
    "change",
    [
        {"api_version": "aci/2"},
        {"served_at": True},
        {"served_at": -1},
        {"event_log": {}},
        {"event_log": []},
        {"event_log": [{"type": RECEIVED}]},
        {"event_log": [{"type": RETURNED, "body_hash": hashed(b"")}]},
        {"event_log": [{"type": RECEIVED, "body_hash": "00"}]},
        {"event_log": [{"type": RECEIVED, "body_hash": hashed(b"")}] * 65},
        {"signature": "00"},
        {"signature": None},
        {"workload_keyset_digest": "00"},
        {"model": 1},
        {"more": 1},
    ],
)
def test_a_wrong_member_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="aci receipt"):
        ACIReceipt.from_json(RECEIPT.to_json() | change)
