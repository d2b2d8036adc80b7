"""The door's answers: what a client gets, what the engine gets, and the receipt for both."""

import json
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import h11
import pytest

from strongroom.errors import (
    MachineError,
    VerifyError,
)
from strongroom.evidence.binding import EXPORTER_LABEL, Purpose, channel_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.host.attested import AttestedConnection
from strongroom.ratls.acceptance import accept, spki
from strongroom.receipts.envelope import verify_envelope
from strongroom.receipts.hashing import RECEIPT_COMMENT, StreamHash
from strongroom.receipts.receipt import SignedReceipt
from strongroom.verify.bundle import verify_bundle
from strongroom.wire.canonical import parse_json
from tests.fakes.opened import (
    JSON_TYPE,
    MARKER,
    ROOTS,
    TOKENS,
    Client,
    House,
    chat,
    house_in,
    policy,
    wait_for,
)
from tests.fakes.silicon import MEASUREMENT
from tests.fakes.vllm import WORDS


def test_a_verified_client_gets_an_answer_and_a_receipt_for_it(house: House) -> None:
    now = datetime.now(UTC)
    url = f"https://127.0.0.1:{house.door.port}"
    with AttestedConnection.open(url, policy=policy(), roots=ROOTS, now=now, timeout=10) as connection:
        question = chat(temperature=0)
        token = {"authorization": f"Bearer {TOKENS['ann']}"}
        response = connection.request(
            "POST", "/v1/chat/completions", headers={**JSON_TYPE, **token}, body=question
        )
        answer = response.read()
        assert response.status == 200
        assert json.loads(answer)["choices"][0]["message"]["content"] == "".join(WORDS)
        receipt_id = response.header("x-strongroom-receipt")
        raw = connection.request("GET", f"/v1/receipts/{receipt_id}", headers=token).read()
    receipt, claims = verify_envelope(raw, roots=ROOTS, now=datetime.now(UTC))
    receipt.require_bodies(request_sha256=sha256(question).digest(), response_sha256=sha256(answer).digest())
    assert receipt.complete and receipt.endpoint == "/v1/chat/completions"
    assert claims.measurement == MEASUREMENT


@pytest.mark.guarantee("G12")
def test_a_stream_arrives_byte_for_byte_and_its_receipt_binds_every_byte(client: Client) -> None:
    question = chat(stream=True, stream_options={"include_usage": True})
    status, headers, answer = client.ask("POST", "/v1/chat/completions", question)
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    events = [event for event in answer.split(b"\n\n") if not event.startswith(b":")]
    assert len(events) == len(WORDS) + 3 and events[-2:] == [b"data: [DONE]", b""]
    assert json.loads(events[-3][6:])["usage"]["completion_tokens"] == len(WORDS)
    _, _, raw = client.ask("GET", f"/v1/receipts/{headers['x-strongroom-receipt']}")
    receipt, _ = verify_envelope(raw, roots=ROOTS, now=datetime.now(UTC))
    assert receipt.complete
    *_, carried, last, empty = answer.split(b"\n\n")
    assert (last, empty) == (b"data: [DONE]", b"")
    signed = SignedReceipt.from_json(parse_json(carried.removeprefix(RECEIPT_COMMENT), "receipt"))
    assert signed.receipt == receipt
    hashed = StreamHash()
    hashed.update(answer)
    good = {"request_sha256": sha256(question).digest(), "response_sha256": hashed.digest()}
    assert hashed.digest() == sha256(b"\n\n".join(events)).digest()
    receipt.require_bodies(**good)
    for body, name in ((question, "request_sha256"), (answer, "response_sha256")):
        with pytest.raises(VerifyError):
            receipt.require_bodies(**{**good, name: sha256(body + b"\n").digest()})


@pytest.mark.guarantee("G12")
def test_one_receipt_for_one_tenant(client: Client, house: House) -> None:
    _, headers, _ = client.ask(
        "POST", "/v1/completions", json.dumps({"model": "tiny", "prompt": "x"}).encode()
    )
    target = f"/v1/receipts/{headers['x-strongroom-receipt']}"
    assert client.ask("GET", target)[0] == 200
    with house.dial() as stream:
        assert Client(stream, "bob").ask("GET", target)[0] == 404
    with house.dial() as stream:
        assert Client(stream, None).ask("GET", target)[0] == 401


def test_whole_answers_lose_only_the_engines_internals(client: Client, house: House) -> None:
    _, headers, body = client.ask("POST", "/v1/chat/completions", chat())
    answer = json.loads(body)
    assert answer["id"] == f"chatcmpl-{headers['x-strongroom-receipt']}"
    assert answer["usage"]["total_tokens"] == 3 + len(WORDS) and answer["logprob"] == -0.25
    assert "kv_transfer_params" not in answer and "metrics" not in answer


@pytest.mark.guarantee("G17")
def test_the_engine_gets_our_headers_our_id_and_our_fields_only(client: Client, house: House) -> None:
    hostile = {
        "x-request-id": "mine",
        "x-data-parallel-rank": "1",
        "x-session-id": "s",
        "traceparent": "00-0-0-0",
        "cookie": "a=b",
        "te": "trailers",
    }
    _, headers, _ = client.ask("POST", "/v1/chat/completions", chat(user="u", cache_salt="theirs"), hostile)
    (asked,) = house.engine.asked
    assert asked.headers.keys() == {
        "host", "accept", "content-type", "content-length", "x-request-id", "connection",
    }  # fmt: skip
    assert asked.headers["x-request-id"] == headers["x-strongroom-receipt"] != "mine"
    assert asked.body.keys() == {"model", "messages", "cache_salt"}
    assert asked.body["cache_salt"] != "theirs"


@pytest.mark.guarantee("G13")
def test_the_engine_sees_one_salt_for_each_tenant(house: House) -> None:
    for tenant, salt in (("ann", None), ("ann", None), ("bob", None), ("ann", "x"), ("bob", "x")):
        with house.dial() as stream:
            assert Client(stream, tenant).ask("POST", "/v1/chat/completions", chat(cache_salt=salt))[0] == 200
    salts = [asked.body["cache_salt"] for asked in house.engine.asked]
    assert salts[0] == salts[1] and len(set(salts)) == 4


@pytest.mark.guarantee("G13")
def test_anonymous_requests_share_nothing(socket_dir: Path) -> None:
    with house_in(socket_dir, tenants=False) as house:
        for _ in range(2):
            with house.dial() as stream:
                assert Client(stream, None).ask("POST", "/v1/chat/completions", chat())[0] == 200
        assert len({asked.body["cache_salt"] for asked in house.engine.asked}) == 2


def test_models_are_listed_without_a_path(client: Client) -> None:
    _, _, body = client.ask("GET", "/v1/models")
    (model,) = json.loads(body)["data"]
    assert (model["id"], model["max_model_len"]) == ("tiny", 2048)
    assert b"/" not in body


def test_a_connection_serves_many_requests_and_outlives_refused_fields(client: Client) -> None:
    assert client.ask("GET", "/healthz")[0] == 200
    status, _, body = client.ask("POST", "/v1/chat/completions", chat(prompt_embeds="x"))
    assert status == 400
    assert json.loads(body)["error"] == {
        "message": "field prompt_embeds is not accepted here",
        "type": "invalid_request_error",
        "param": "prompt_embeds",
        "code": "unknown_field",
    }
    assert client.ask("POST", "/v1/chat/completions", chat())[0] == 200
    assert client.ask("GET", "/v1/models")[0] == 200


@pytest.mark.guarantee("G8")
def test_channel_evidence_speaks_for_one_connection(house: House) -> None:
    nonce = bytes(range(32))
    found = []
    for _ in range(2):
        with house.dial() as stream:
            status, _, body = Client(stream, None).ask(
                "GET", f"/.well-known/strongroom/evidence?nonce={nonce.hex()}"
            )
            assert status == 200
            exporter = stream.exporter(EXPORTER_LABEL, 32, nonce)
            found.append(
                (stream.peer_certificate_der, exporter, Bundle.from_json(json.loads(body)["channel"]))
            )

    def check(certificate: bytes, exporter: bytes, bundle: Bundle, nonce: bytes = nonce) -> None:
        challenge = channel_challenge(nonce, exporter)
        now = datetime.now(UTC)
        verify_bundle(
            bundle, purpose=Purpose.CHANNEL, challenge=challenge, key=spki(certificate), roots=ROOTS, now=now
        )

    (certificate, exporter, bundle), (_, other_exporter, other_bundle) = found
    check(certificate, exporter, bundle)
    accept(certificate, roots=ROOTS, now=datetime.now(UTC))
    for wrong in ((other_exporter, bundle), (exporter, other_bundle)):
        with pytest.raises(VerifyError, match="challenge"):
            check(certificate, *wrong)
    with pytest.raises(VerifyError, match="challenge"):
        check(certificate, exporter, bundle, bytes(32))


def test_no_evidence_to_be_had_is_said_without_detail(client: Client, house: House) -> None:
    house.agent.refusal = "evidence request: unit may not ask"
    status, _, body = client.ask("GET", f"/.well-known/strongroom/evidence?nonce={'00' * 32}")
    assert status == 503 and b"unit" not in body


@pytest.mark.guarantee("G12")
def test_no_answer_goes_out_before_its_receipt_is_kept(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sidecars.proxy.receipts.stored.StoredLog.append", _full)
        for _ in range(3):
            with house.dial() as stream:
                status, _, body = Client(stream).ask("POST", "/v1/chat/completions", chat())
            assert status == 500 and b"receipt_unavailable" in body and b"choices" not in body
    with house.dial() as stream:
        status, headers, _ = Client(stream).ask("POST", "/v1/chat/completions", chat())
        assert status == 200
        found = Client(stream)
        assert found.ask("GET", f"/v1/receipts/{headers['x-strongroom-receipt']}")[0] == 200


def _full(*_: object) -> int:
    raise MachineError("receipt log: no room for another record")


@pytest.mark.guarantee("G12")
def test_a_receipt_that_cannot_be_made_hides_no_departure(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "strongroom.proxy")
    monkeypatch.setattr("sidecars.proxy.receipts.stored.StoredLog.append", _full)
    house.engine.stall_after = 2
    with house.dial() as stream:
        client = Client(stream)
        client.begin("POST", "/v1/chat/completions", chat(stream=True))
        client.head()
        next(client.body())
    wait_for(lambda: house.engine.aborted == 1)
    wait_for(lambda: " cut" in caplog.text)
    assert "no room" in caplog.text and "refused 500" not in caplog.text


def collect(pieces: Iterator[bytes], into: bytearray) -> None:
    for piece in pieces:
        into += piece


@pytest.mark.guarantee("G12")
def test_an_answer_the_engine_breaks_off_is_visibly_incomplete(house: House) -> None:
    house.engine.break_after = 2
    with house.dial() as stream:
        client = Client(stream)
        client.begin("POST", "/v1/chat/completions", chat(stream=True))
        receipt_id = client.head()[1]["x-strongroom-receipt"]
        body = bytearray()
        with pytest.raises(h11.RemoteProtocolError, match="incomplete chunked read"):
            collect(client.body(), body)
    *_, last, empty = bytes(body).split(b"\n\n")
    assert json.loads(last[6:])["error"]["code"] == "engine_error" and empty == b""
    assert b"[DONE]" not in body
    with house.dial() as stream:
        _, _, raw = Client(stream).ask("GET", f"/v1/receipts/{receipt_id}")
    receipt, _ = verify_envelope(raw, roots=ROOTS, now=datetime.now(UTC))
    assert not receipt.complete
    assert receipt.response_sha256 == sha256(body).digest()


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize(
    ("last", "whole"),
    [
        (b"", False),
        (b'data: {"choices":[]}\n\n', False),
        (b'data: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n', True),
    ],
)
def test_a_stream_without_its_end_or_with_an_error_is_not_complete(
    house: House, last: bytes, whole: bool
) -> None:
    house.engine.last = last
    with house.dial() as stream:
        client = Client(stream)
        client.begin("POST", "/v1/chat/completions", chat(stream=True))
        receipt_id = client.head()[1]["x-strongroom-receipt"]
        body = bytearray()
        with (
            nullcontext()
            if whole
            else pytest.raises(h11.RemoteProtocolError, match="incomplete chunked read")
        ):
            collect(client.body(), body)
    with house.dial() as stream:
        _, _, raw = Client(stream).ask("GET", f"/v1/receipts/{receipt_id}")
    receipt, _ = verify_envelope(raw, roots=ROOTS, now=datetime.now(UTC))
    assert not receipt.complete
    hashed = StreamHash()
    hashed.update(bytes(body))
    assert receipt.response_sha256 == hashed.digest()


@pytest.mark.parametrize(
    ("engine", "status", "message"),
    [
        ((400, {"error": {"message": f"bad: {MARKER}"}}), 400, f"bad: {MARKER}"),
        ((500, {"error": {"message": f"trace: {MARKER}"}}), 502, "the engine could not answer this request"),
        ((503, {"error": {"message": MARKER}}), 503, "the engine is busy"),
        ((400, {"detail": MARKER}), 502, "the engine could not answer this request"),
    ],
)
def test_the_engines_errors(
    client: Client, house: House, engine: tuple[int, dict[str, Any]], status: int, message: str
) -> None:
    house.engine.error = engine
    found, headers, body = client.ask("POST", "/v1/chat/completions", chat(stream=True))
    assert (found, json.loads(body)["error"]["message"]) == (status, message)
    assert "x-strongroom-receipt" not in headers


@pytest.mark.guarantee("G14")
def test_nothing_said_is_logged(
    house: House, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    bodies = [
        chat(MARKER),
        chat(MARKER, stream=True),
        chat(MARKER, cache_salt=MARKER),
        chat(MARKER, **{MARKER: 1}),
        chat(MARKER)[:-1],
        chat(stop=[MARKER * 99]),
    ]
    for body in bodies:
        with house.dial() as stream:
            Client(stream).ask("POST", "/v1/chat/completions", body)
    for error in ((400, {"error": {"message": MARKER}}), (500, {"error": {"message": MARKER}})):
        house.engine.error = error
        with house.dial() as stream:
            Client(stream).ask("POST", "/v1/chat/completions", chat(MARKER))
    with house.dial() as stream:
        stream.send(f"GET /{MARKER.replace(' ', '-')} HTTP/1.1\r\nHost: {MARKER}\r\n\r\n".encode())
        stream.recv()
    wait_for(lambda: caplog.text.count("POST /v1/chat/completions") == 8)
    shown = caplog.text + "".join(capfd.readouterr())
    assert caplog.text.count("POST /v1/chat/completions") == 8
    for secret in (MARKER, MARKER.replace(" ", "-"), *TOKENS.values(), *WORDS[:2]):
        assert secret not in shown
