"""A receipt verified from docs/formats alone: hashlib, json and a signature library, none of our modules.

The certificate chain of the silicon is left to AMD's specification; everything else on the two pages is here.
"""

import base64
import json
import re
from hashlib import sha256, sha384
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sidecars.proxy.receipts.answers import receipt_answer
from sidecars.proxy.receipts.book import DONE
from sidecars.proxy.routes import Route
from strongroom.receipts.envelope import pack
from strongroom.receipts.receipt import sign
from tests.fakes import book as fake
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


def check(signed: dict[str, Any], message: bytes) -> None:
    key, signature = unb64u(signed["key"]), unb64u(signed["signature"])
    ed25519 = load_der_public_key(key[:44])
    assert isinstance(ed25519, Ed25519PublicKey)
    ed25519.verify(signature[:64], message)
    if key[44:]:
        ml_dsa = load_der_public_key(key[44:])
        assert isinstance(ml_dsa, MLDSA65PublicKey)
        ml_dsa.verify(signature[64:], message, b"strongroom")


def in_the_log(receipt: dict[str, Any], proof: dict[str, Any]) -> bool:
    """RFC 9162, 2.1.3.2, over the leaf of docs/formats/receipt-log.md."""
    signed = proof["head"]
    check(signed, b"strongroom/log-head/v1\0" + canonical(signed["head"]))
    found = sha256(b"\0strongroom/receipt/v2\0" + canonical(receipt)).digest()
    fn, sn = proof["index"], signed["head"]["size"] - 1
    for p in map(bytes.fromhex, proof["path"]):
        assert sn
        if fn & 1 or fn == sn:
            found = sha256(b"\1" + p + found).digest()
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = sha256(b"\1" + found + p).digest()
        fn, sn = fn >> 1, sn >> 1
    return bool(sn == 0 and found.hex() == signed["head"]["root"])


def verify_by_hand(raw: bytes) -> dict[str, Any]:
    file = json.loads(raw)
    found, evidence = file["receipt"], file["evidence"]
    assert file.keys() - {"proof"} == {"receipt", "signature", "key", "not_before", "evidence"}
    assert "proof" not in file or in_the_log(found, file["proof"])
    check(file, b"strongroom/receipt/v2\0" + canonical(found))
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


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("hybrid", [False, True])
def test_a_stream_its_receipt_and_its_place_in_the_log(hybrid: bool) -> None:
    book = fake.book(fake.plan(receipts={"hybrid": hybrid}))
    ann, body = fake.tenant(book.plan), b""
    for number in range(6):
        one = book.witness(
            id=f"{number:032x}", route=Route.CHAT, tenant=ann, received=b"q", forwarded=b"", stream=True
        )
        one.delivered(b": ping\n\ndata: {}\n\n")
        body = b": ping\n\ndata: {}\n\n" + one.receipt_comment() + DONE
    raw = receipt_answer(book, ann, f"{5:032x}", proof=True)
    assert raw is not None
    found = verify_by_hand(raw)
    bare = re.sub(rb"(\A|(?<=\n\n)):[ -~]{0,65536}\n\n(?!\xEF\xBB\xBF)", b"", body)
    assert found["response_sha256"] == sha256(bare).hexdigest() and found["stream"]
    (carried,) = re.findall(rb"\n\n: strongroom-receipt ([ -~]*)\n\n", body)
    check(json.loads(carried), b"strongroom/receipt/v2\0" + canonical(found))
    assert json.loads(carried) == {name: json.loads(raw)[name] for name in ("receipt", "signature", "key")}
