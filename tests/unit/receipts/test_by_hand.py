"""A receipt verified from docs/formats alone: hashlib, json and a signature library, none of our modules.

The certificate chain of the silicon is left to AMD's specification; everything else on the two pages is here.
"""

import base64
import json
from hashlib import sha256, sha384
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from strongroom.receipts.envelope import pack
from strongroom.receipts.receipt import sign
from tests.fakes.exchange import NOT_BEFORE, receipt, receipt_bundle
from tests.fakes.silicon import silicon


def unb64u(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def enc(x: bytes) -> bytes:
    return len(x).to_bytes(8, "big") + x


def head(events: list[dict[str, str]]) -> bytes:
    found = bytes(48)
    for event in events:
        name, payload = event["name"].encode(), unb64u(event["payload"])
        found = sha384(found + sha384(b"strongroom/event/v1\0" + enc(name) + enc(payload)).digest()).digest()
    return found


def verify_by_hand(raw: bytes) -> dict[str, Any]:
    file = json.loads(raw)
    found, evidence = file["receipt"], file["evidence"]
    assert file.keys() == {"receipt", "signature", "key", "not_before", "evidence"}
    key = load_der_public_key(unb64u(file["key"]))
    assert isinstance(key, Ed25519PublicKey)
    key.verify(unb64u(file["signature"]), b"strongroom/receipt/v1\0" + canonical(found))
    minutes, loose = divmod(file["not_before"], 60)
    assert loose == 0
    challenge = b"strongroom/receipt-challenge/v1\0" + minutes.to_bytes(8, "big")
    parts = (b"receipt-key", challenge, unb64u(file["key"]), b"", head(evidence["events"]))
    report_data = b"strongroom/rd/v1" + sha384(b"".join(map(enc, parts))).digest()
    assert unb64u(evidence["report"])[0x50:0x90] == report_data
    assert found["evidence_sha256"] == sha256(canonical(evidence)).hexdigest()
    log = {event["name"]: unb64u(event["payload"]) for event in evidence["events"]}
    engine = json.loads(log["engine"])
    del engine["flags"]
    assert (found["model"], found["engine"]) == (json.loads(log["model"]), engine)
    assert isinstance(found, dict)
    return found


KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
EVIDENCE = receipt_bundle(silicon(), KEY)
RAW = pack(sign(receipt(EVIDENCE), KEY), not_before=NOT_BEFORE, evidence=EVIDENCE)


def test_the_pages_are_enough_to_verify_a_receipt() -> None:
    assert verify_by_hand(RAW)["complete"] is True


@pytest.mark.guarantee("G12")
def test_and_to_see_a_change() -> None:
    with pytest.raises(InvalidSignature):
        verify_by_hand(RAW.replace(b'"complete":true', b'"complete":false'))
