"""The door from outside: real TLS clients on loopback, a stub engine, simulated silicon behind the agent's socket."""

import asyncio
import json
import logging
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

import h11
import pytest

from sidecars.proxy.door import GONE, Door
from sidecars.proxy.intake import LEAST
from sidecars.proxy.plan import Plan
from strongroom.appraise.policy import Policy
from strongroom.errors import (
    ConfigError,
    MachineError,
    ProtocolError,
    StrongroomError,
    TransportError,
    VerifyError,
)
from strongroom.evidence.binding import EXPORTER_LABEL, Purpose, channel_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import EventLog
from strongroom.host.attested import AttestedConnection
from strongroom.host.tls import TLSStream, connect
from strongroom.ratls.acceptance import accept, spki
from strongroom.receipts.envelope import verify_envelope
from strongroom.receipts.hashing import RECEIPT_COMMENT, StreamHash
from strongroom.receipts.keys import DoorKeys
from strongroom.receipts.receipt import SignedReceipt
from strongroom.verify.bundle import verify_bundle
from strongroom.wire.canonical import parse_json
from tests import ROOT
from tests.fakes.agent import Agent
from tests.fakes.exchange import ENGINE, MODEL, events
from tests.fakes.served import SECRET
from tests.fakes.silicon import HOST_DATA, MEASUREMENT, roots, silicon
from tests.fakes.vllm import VLLM, WORDS

CHIP: Final = silicon()
ROOTS: Final = roots(CHIP)
MARKER: Final = "correct horse battery staple"
TOKENS: Final = {"ann": "token-of-ann", "bob": "token-of-bob"}
JSON_TYPE: Final = {"content-type": "application/json"}
POST: Final = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer token-of-ann\r\n"
_T = TypeVar("_T")


def policy() -> Policy:
    return Policy.from_raw(
        {
            "version": 1,
            "measurements": [{"name": "test", "value": MEASUREMENT.hex()}],
            "host_data": [HOST_DATA.hex()],
            "insecure_simulated_roots": [CHIP.pki.ark_sha256.hex()],
        }
    )


class House:
    """Door, engine and agent on one event loop in a thread of its own."""

    def __init__(self, directory: Path, *, tenants: bool = True, log: EventLog | None = None) -> None:
        self.directory = directory
        self.engine = VLLM()
        self.agent = Agent(CHIP, log or events())
        self.credential = self._credential(tenants)
        self.door = Door(Plan.parse(self.credential), DoorKeys.from_secret(SECRET), directory=directory)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._life: Any = None
        self.do(self.agent.start(directory / "evidence.sock"))

    def _credential(self, tenants: bool) -> bytes:
        value = {
            "listen_host": "127.0.0.1",
            "listen_port": 0,
            "engine_socket": str(self.directory / "engine.sock"),
            "evidence_socket": str(self.directory / "evidence.sock"),
            "names": ["door.example", "127.0.0.1"],
            "model": MODEL.to_json(),
            "engine": ENGINE.to_json(),
            "tenants": [
                {"name": name, "token_sha256": sha256(token.encode()).hexdigest()}
                for name, token in TOKENS.items()
                if tenants
            ],
            "cache": "tenant",
        }
        return json.dumps(value).encode()

    def do(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def start_engine(self) -> None:
        self.do(self.engine.start(self.directory / "engine.sock"))

    def start_door(self, *, until: str = "open") -> None:
        self._life = asyncio.run_coroutine_threadsafe(self.door.run(), self._loop)
        wait_for(lambda: self.door.state == until or self._life.done())

    def exit_code(self) -> int:
        code = self._life.result(30)
        assert isinstance(code, int)
        return code

    def close(self) -> None:
        if self._life is not None and not self._life.done():
            self._life.cancel()
            wait_for(lambda: self.door.state in {"closed", "certified", "starting"})
        self.do(self.engine.die())
        self.do(self.agent.stop())
        self.do(_settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def dial(self) -> TLSStream:
        assert self.door.port is not None
        return connect("127.0.0.1", self.door.port, timeout=10)


async def _settle() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.sleep(0.01)


def wait_for(ready: Callable[[], bool]) -> None:
    for _ in range(1000):
        if ready():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen within ten seconds")


@contextmanager
def house_in(directory: Path, *, tenants: bool = True) -> Iterator[House]:
    house = House(directory, tenants=tenants)
    try:
        house.start_engine()
        house.start_door()
        yield house
    finally:
        house.close()


@pytest.fixture
def house(socket_dir: Path) -> Iterator[House]:
    with house_in(socket_dir) as house:
        yield house


class Client:
    """A plain HTTP client that keeps body bytes exactly as they came."""

    def __init__(self, stream: TLSStream, tenant: str | None = "ann") -> None:
        self.stream, self.tenant = stream, tenant
        self._h11 = h11.Connection(h11.CLIENT)

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        self.begin(method, target, body, headers)
        status, found = self.head()
        return status, found, b"".join(self.body())

    def begin(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        lines = {"host": "door", **(headers or {})}
        if self.tenant is not None:
            lines["authorization"] = f"Bearer {TOKENS.get(self.tenant, self.tenant)}"
        if body:
            lines |= {**JSON_TYPE, "content-length": str(len(body))}
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        out = self._h11.send(h11.Request(method=method, target=target, headers=list(lines.items()))) or b""
        if body:
            out += self._h11.send(h11.Data(data=body)) or b""
        self.stream.send(out + (self._h11.send(h11.EndOfMessage()) or b""))

    def head(self) -> tuple[int, dict[str, str]]:
        event = self._event()
        assert isinstance(event, h11.Response)
        return event.status_code, {k.decode(): v.decode() for k, v in event.headers}

    def body(self) -> Iterator[bytes]:
        while isinstance(event := self._event(), h11.Data):
            yield bytes(event.data)
        assert isinstance(event, h11.EndOfMessage)

    def _event(self) -> Any:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(self.stream.recv())
        return event


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    with house.dial() as stream:
        yield Client(stream)


def chat(prompt: str = "hello", **fields: Any) -> bytes:
    message = {"role": "user", "content": prompt}
    return json.dumps({"model": "tiny", "messages": [message], **fields}).encode()


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


@pytest.mark.parametrize("tenant", [None, "eve"])
def test_strangers_get_401_before_their_body_is_read(house: House, tenant: str | None) -> None:
    with house.dial() as stream:
        client = Client(stream, tenant)
        client.begin("POST", "/v1/chat/completions", chat("x" * 300_000))
        status, headers = client.head()
        assert (status, headers["www-authenticate"], headers["connection"]) == (401, "Bearer", "close")
    assert house.engine.asked == []


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 400),
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /healthz HTTP/1.0\r\nHost: a\r\n\r\n", 505),
        (b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (POST + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415),
        (POST + b"Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n", 413),
    ],
)  # fmt: skip
def test_broken_requests_get_one_answer_and_nothing_reaches_the_engine(
    house: House, sent: bytes, status: int
) -> None:
    with house.dial() as stream:
        stream.send(sent)
        assert stream.recv().startswith(b"HTTP/1.1 %d " % status)
    assert house.engine.asked == []


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


def test_a_client_that_leaves_frees_the_engine(house: House) -> None:
    house.engine.stall_after = 2
    receipt_id = ""
    for stream_it in (True, False):
        before = house.engine.aborted
        with house.dial() as stream:
            client = Client(stream)
            client.begin("POST", "/v1/chat/completions", chat(stream=stream_it))
            if stream_it:
                receipt_id = client.head()[1]["x-strongroom-receipt"]
                next(client.body())
            else:
                wait_for(lambda: len(house.engine.asked) == 2)
        wait_for(lambda: house.engine.aborted == before + 1)  # noqa: B023 - called at once
    with house.dial() as stream:
        _, _, raw = Client(stream).ask("GET", f"/v1/receipts/{receipt_id}")
    assert not verify_envelope(raw, roots=ROOTS, now=datetime.now(UTC))[0].complete


def test_a_client_that_does_not_read_is_cut_and_frees_the_engine(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.host.door.peer.STALL", 0.2)
    house.engine.repeat = 40_000  # some 30 MB, more than all buffers on the way hold
    with house.dial() as stream:
        Client(stream).begin("POST", "/v1/chat/completions", chat(stream=True))
        wait_for(lambda: house.engine.aborted == 1)
    with house.dial() as stream:
        assert Client(stream).ask("GET", "/healthz")[0] == 200


def test_a_client_that_reads_slowly_is_served(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.host.door.peer.STALL", 0.2)
    house.engine.says, house.engine.repeat = ("x" * 60_000,), 200
    assert house.door.port is not None
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", house.door.port))
    with TLSStream(sock, "127.0.0.1") as stream:
        client = Client(stream)
        client.begin("POST", "/v1/chat/completions", chat(stream=True))
        assert client.head()[0] == 200
        body = bytearray()
        for number, piece in enumerate(client.body()):
            body += piece
            if number < 30:
                time.sleep(0.05)  # all buffers on the way are full, and move in strides
    assert body.endswith(b"data: [DONE]\n\n") and house.engine.aborted == 0


def test_a_question_takes_as_many_places_as_it_asks_answers(client: Client, house: House) -> None:
    most = places_of("ann", house)
    several = {"model": "tiny", "prompt": ["a"] * (most // 16 + 1), "n": 16}
    status, _, body = client.ask("POST", "/v1/completions", json.dumps(several).encode())
    assert status == 400 and b"error" in body and not house.engine.asked
    few = several | {"n": 2}
    assert client.ask("POST", "/v1/completions", json.dumps(few).encode())[0] == 200


def test_slow_bodies_take_no_place(house: House) -> None:
    slow = [house.dial() for _ in range(places_of("ann", house) + 1)]
    try:
        for stream in slow:
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKENS['ann']}\r\n"
            )
            stream.send(head.encode() + b"content-type: application/json\r\ncontent-length: 5000000\r\n\r\n{")
        service = house.door._service
        assert service is not None
        wait_for(lambda: service.intake.open_each.total() == len(slow))
        assert service.intake.total == len(slow) * LEAST
        with house.dial() as stream:
            assert Client(stream).ask("POST", "/v1/chat/completions", chat())[0] == 200
    finally:
        for stream in slow:
            stream.close()
    wait_for(lambda: service.intake.total == 0)


def test_a_question_that_the_engine_has_is_kept_no_longer(house: House) -> None:
    house.engine.hangs = True
    service = house.door._service
    assert service is not None
    ours = [tracemalloc.Filter(True, f"*/{folder}/*") for folder in ("sidecars/proxy", "strongroom/host")]
    with house.dial() as stream:
        tracemalloc.start()
        try:
            Client(stream).begin("POST", "/v1/chat/completions", chat("x" * (4 << 20)))
            wait_for(lambda: len(house.engine.asked) == 1)
            wait_for(lambda: service.intake.total == 0)
            held = tracemalloc.take_snapshot().filter_traces(ours)
        finally:
            tracemalloc.stop()
        assert service.gateway.running == 1
    assert sum(trace.size for trace in held.traces) < 1 << 20


def test_a_whole_answer_that_is_cut_is_charged_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecars.proxy.completions.UNSEEN", 1_000_000)
    house.engine.hangs = True
    with house.dial() as stream:
        Client(stream).begin("POST", "/v1/chat/completions", chat("x" * 4000))
        wait_for(lambda: len(house.engine.asked) == 1)
    wait_for(lambda: house.engine.aborted == 1)
    with house.dial() as stream:
        usage = json.loads(Client(stream).ask("GET", "/v1/usage")[2])
    assert usage["prompt_tokens"] >= 1000 and usage["completion_tokens"] >= 1


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


@pytest.mark.guarantee("G12")
def test_a_finished_answer_is_read_to_its_end_while_the_door_closes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.host.door.peer.HIGH_WATER", 64 << 20)  # all of it waits in the door
    house.engine.says = ("x" * (12 << 20),)
    service = house.door._service
    assert service is not None
    with house.dial() as stream:
        client = Client(stream)
        client.begin("POST", "/v1/chat/completions", chat())
        wait_for(lambda: len(house.engine.asked) == 1)
        wait_for(lambda: service.gateway.running == 0)
        house.do(house.door.drain())
        house._life.cancel()
        wait_for(lambda: house.door.state == "closed")
        assert client.head()[0] == 200 and len(b"".join(client.body())) > 12 << 20


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


@pytest.mark.guarantee("G9")
def test_nothing_listens_before_the_canary_sang(socket_dir: Path) -> None:
    house = House(socket_dir)
    try:
        house.start_door(until="certified")
        assert house.door.port is None
        assert admin_state(socket_dir)["state"] == "certified"
        house.engine.healthy = False
        house.start_engine()
        time.sleep(0.7)
        assert house.engine.sung == 0
        assert admin_state(socket_dir)["state"] == "certified"
        house.engine.healthy = True
        wait_for(lambda: house.door.state == "open")
        assert house.engine.sung == 2
        assert admin_state(socket_dir)["state"] == "open"
    finally:
        house.close()


def admin_state(directory: Path) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(directory / "admin.sock"))
        sock.sendall(b"GET /state HTTP/1.1\r\nHost: door\r\n\r\n")
        answer = b""
        while data := sock.recv(4096):
            answer += data
    state: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return state


def test_the_agent_learns_which_certificate_is_shown(client: Client, house: House) -> None:
    client.ask("GET", "/v1/models")
    state = admin_state(house.directory)
    der = client.stream.peer_certificate_der
    assert state == {
        "state": "open",
        "spki_sha256": sha256(spki(der)).hexdigest(),
        "certificate_sha256": sha256(der).hexdigest(),
        "requests": 1,
    }


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize(
    ("knob", "value", "why"), [("canary", "", "empty answer"), ("name", "other", "exactly 'tiny'")]
)
def test_a_wrong_engine_never_opens_the_door(socket_dir: Path, knob: str, value: str, why: str) -> None:
    house = House(socket_dir)
    try:
        setattr(house.engine, knob, value)
        house.start_engine()
        house.start_door()
        with pytest.raises(ProtocolError, match=why):
            house.exit_code()
        assert house.door.port is None
    finally:
        house.close()


@pytest.mark.parametrize("log", [EventLog(), events(model=type(MODEL)(name="tiny", root=bytes(32), epoch=3))])
def test_a_plan_the_evidence_contradicts_is_refused(socket_dir: Path, log: EventLog) -> None:
    house = House(socket_dir, log=log)
    try:
        house.start_engine()
        house.start_door()
        with pytest.raises(StrongroomError) as caught:
            house.exit_code()
        assert isinstance(caught.value, ConfigError) or "no event" in str(caught.value)
        assert house.door.port is None
    finally:
        house.close()


@pytest.mark.guarantee("G10")
def test_the_engines_death_closes_the_door_and_every_connection(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.engine.stall_after = 1
    port = house.door.port
    assert port is not None
    with house.dial() as idle, house.dial() as busy:
        client = Client(busy)
        client.begin("POST", "/v1/chat/completions", chat(stream=True))
        client.head()
        pieces = client.body()
        next(pieces)
        house.do(house.engine.die())
        assert house.exit_code() == GONE == 75
        with pytest.raises((h11.RemoteProtocolError, TransportError)):
            list(pieces)
        assert idle.recv() == b""
    with pytest.raises(TransportError):
        connect("127.0.0.1", port, timeout=2)
    assert house.door.state == "closed"
    assert "the door is closed: engine: " in caplog.text


STRANGER: Final = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    if heard := connection.recv(65536):
        print(heard, flush=True)
"""


@pytest.mark.guarantee("G9")
@pytest.mark.guarantee("G10")
def test_an_engine_that_sang_no_canary_hears_nothing(house: House) -> None:
    path = house.directory / "engine.sock"
    path.unlink()  # the one that sang lives on, and with it the sentinel
    stranger = subprocess.Popen(
        [sys.executable, "-c", STRANGER, str(path)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    with stranger:
        assert stranger.stdout is not None and stranger.stdout.readline() == b"ready\n"
        with house.dial() as stream:
            assert Client(stream).ask("POST", "/v1/chat/completions", chat())[0] == 503
        assert house.exit_code() == GONE
        stranger.kill()
        assert stranger.stdout.read() == b""


@pytest.mark.guarantee("G10")
def test_an_unwell_engine_closes_the_door(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecars.proxy.engine.canary.HEALTH_EVERY", 0.05)
    house.engine.healthy = False
    assert house.exit_code() == GONE


def test_the_standard_library_can_talk_to_the_door(house: House) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", house.door.port or 0), timeout=10) as sock,
        context.wrap_socket(sock, server_hostname="door.example") as stream,
    ):
        assert stream.version() == "TLSv1.3"
        stream.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := stream.recv(65536):
            answer += data
    assert answer.endswith(b'{"status":"open"}')


def test_a_slow_head_is_ended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecars.proxy.serving.HEAD", 0.05)
    with house.dial() as stream:
        stream.send(b"GET /healthz HTTP/1.1\r\n")
        assert b"408" in stream.recv()


def test_a_slow_body_is_ended(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecars.proxy.serving.BODY", 0.05)
    client.stream.send(POST + b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{")
    assert b"408" in client.stream.recv()


def test_silence_is_ended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecars.proxy.serving.IDLE", 0.05)
    with house.dial() as stream:
        assert stream.recv() == b""


def test_a_handshake_that_never_ends_is_ended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.host.door.peer.HANDSHAKE", 0.05)
    with socket.create_connection(("127.0.0.1", house.door.port or 0), timeout=10) as sock:
        assert sock.recv(1) == b""


def test_connections_are_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecars.proxy.door.MAX_CONNECTIONS", 1)
    with house.dial(), pytest.raises(TransportError):
        house.dial()


def test_one_origin_cannot_take_every_connection(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecars.proxy.door.MAX_EACH", 1)
    with house.dial(), pytest.raises(TransportError):
        house.dial()


def test_one_origin_cannot_take_every_turn_for_evidence(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.host.door.turns.MAX_WAITING_EACH", 0)
    with house.dial() as stream:
        target = f"/.well-known/strongroom/evidence?nonce={bytes(32).hex()}"
        status, headers, _ = Client(stream).ask("GET", target)
    assert (status, headers["retry-after"]) == (429, "2")


def places_of(tenant: str, house: House) -> int:
    service = house.door._service
    assert service is not None
    return service.admission._accounts[tenant].concurrent


def test_too_many_in_flight_is_429(house: House) -> None:
    house.engine.stall_after = 0
    most = places_of("ann", house)
    held = [house.dial() for _ in range(most)]
    try:
        for stream in held:
            Client(stream).begin("POST", "/v1/chat/completions", chat())
        wait_for(lambda: len(house.engine.asked) == most)
        with house.dial() as stream:
            status, headers, _ = Client(stream).ask("POST", "/v1/chat/completions", chat())
            assert (status, headers["retry-after"]) == (429, "1")
    finally:
        for stream in held:
            stream.close()


def test_the_certificate_is_renewed_while_serving(socket_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.host.door.identity.RENEW_LOOK", 0.05)
    with house_in(socket_dir) as house, house.dial() as old:
        house.agent.refusal = "busy"
        monkeypatch.setattr("strongroom.host.door.identity.RENEW_AFTER", timedelta(0))
        time.sleep(0.2)
        house.agent.refusal = None
        first = sha256(old.peer_certificate_der).hexdigest()
        wait_for(lambda: admin_state(house.directory)["certificate_sha256"] != first)
        with house.dial() as new:
            assert new.peer_certificate_der != old.peer_certificate_der
        nonce = bytes(32)
        status, _, body = Client(old).ask("GET", f"/.well-known/strongroom/evidence?nonce={nonce.hex()}")
        assert status == 200
        verify_bundle(
            Bundle.from_json(json.loads(body)["channel"]),
            purpose=Purpose.CHANNEL,
            challenge=channel_challenge(nonce, old.exporter(EXPORTER_LABEL, 32, nonce)),
            key=spki(old.peer_certificate_der),
            roots=ROOTS,
            now=datetime.now(UTC),
        )


class Process:
    """The door as the service manager starts it: a credential, a runtime directory, a notify socket."""

    def __init__(self, house: House) -> None:
        directory = house.directory
        (directory / "door").write_bytes(house.credential)
        (directory / "door-secret").write_bytes(SECRET)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.settimeout(20)
        self._notify.bind(str(directory / "notify"))
        environment = {
            "PATH": "/usr/bin:/bin",
            "CREDENTIALS_DIRECTORY": str(directory),
            "RUNTIME_DIRECTORY": str(directory),
            "NOTIFY_SOCKET": str(directory / "notify"),
            "WATCHDOG_USEC": "200000",
        }
        self.child = subprocess.Popen(
            [sys.executable, "-B", "-m", "sidecars.proxy"],
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.told: list[str] = []

    def told_until(self, line: str) -> None:
        while line not in self.told:
            self.told += self._notify.recv(4096).decode().splitlines()

    def end(self) -> tuple[int, list[str]]:
        try:
            _, errors = self.child.communicate(timeout=20)
        finally:
            self.child.kill()
            self._notify.close()
        return self.child.returncode, errors.splitlines()


@pytest.mark.guarantee("G10")
def test_the_process_says_ready_then_open_and_ends_with_75(socket_dir: Path) -> None:
    house = House(socket_dir)
    try:
        process = Process(house)
        process.told_until("STATUS=certified: the door stays closed until the engine answers")
        assert "READY=1" in process.told and "STATUS=open" not in process.told
        house.start_engine()
        process.told_until("STATUS=open")
        process.told_until("WATCHDOG=1")
        house.do(house.engine.die())
        code, lines = process.end()
        assert code == GONE
        assert lines[-1] == "ERROR the door is closed: engine: it closed the connection"
        assert lines[0].startswith("INFO the door is open on 127.0.0.1 port ")
        assert len(lines) == 2
    finally:
        house.close()


def test_the_process_ends_with_0_when_it_is_told_to(socket_dir: Path) -> None:
    house = House(socket_dir)
    try:
        process = Process(house)
        house.start_engine()
        process.told_until("STATUS=open")
        process.child.terminate()
        assert process.end()[0] == 0
    finally:
        house.close()


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("credential", "code", "why"),
    [
        (b"{}", 3, "strongroom-proxy: door.cache: missing key"),
        (None, 9, "strongroom-proxy: evidence socket"),
    ],
)
def test_the_process_ends_with_one_sentence(
    socket_dir: Path, credential: bytes | None, code: int, why: str
) -> None:
    house = House(socket_dir)
    try:
        house.credential = credential or house.credential
        house.do(house.agent.stop())
        found, lines = Process(house).end()
        assert (found, len(lines)) == (code, 1)
        assert lines[0].startswith(why)
    finally:
        house.close()
