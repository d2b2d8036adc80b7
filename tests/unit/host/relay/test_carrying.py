"""Mirrors strongroom/host/relay/carrying.py: what a local client gets of honest servers, and of all the others."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strongroom.appraise.policy import Policy
from strongroom.errors import ProtocolError, StrongroomError, TransportError, VerifyError
from strongroom.host.attested import AttestedConnection
from strongroom.host.exchange import Proof, ProvenExchange
from strongroom.host.http1 import Limits, Response
from strongroom.host.relay.carrying import _MOST_AFTER, Asked, Carrying, _End, told
from strongroom.host.relay.pool import Connection, Pool
from strongroom.host.sealedhttp import ForgottenKeyError
from strongroom.host.yamltext import parse_yaml
from strongroom.receipts.receipt import SignedReceipt, sign
from tests.fakes.machine import Machine, Request, policy_text, serving

CHAT = "/v1/chat/completions"
DONE = b"data: [DONE]\n\n"
MARKS = (b"data: [DONE]", b"data:[DONE]")


@dataclass
class Client:
    """A local client that keeps what it got."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    leaves_after: int = 1 << 30
    on_send: Callable[[], None] = lambda: None

    def whole(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        self.start(status, headers)
        self.body, self.ended = body, True

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        assert not self.status, "a second head"
        self.status, self.headers = status, dict(headers)

    def send(self, data: bytes) -> None:
        if len(self.body) >= self.leaves_after:
            raise TransportError("connect: the local client left")
        self.body += data
        self.on_send()

    def end(self) -> None:
        self.ended = True


@dataclass
class Set:
    pool: Pool
    policy: Policy
    kept: list[Proof] = field(default_factory=list)

    def carrying(self, asked: Asked) -> Carrying:
        return Carrying(self.pool, asked, prove=self._prove, keep=self.kept.append)

    def ask(self, asked: Asked, client: Client | None = None) -> tuple[Client, StrongroomError | None]:
        client = client or Client()
        return client, self.carrying(asked).run(client)

    def _prove(self, exchange: ProvenExchange) -> Proof:
        return exchange.prove(policy=self.policy, roots=self.policy.roots, now=datetime.now(UTC))


@contextmanager
def carried(machine: Machine) -> Iterator[Set]:
    policy = Policy.from_raw(parse_yaml(policy_text(machine), "policy"))
    with serving(machine) as url:
        pool = Pool(
            lambda: AttestedConnection.open(url, policy=policy, roots=policy.roots, now=datetime.now(UTC))
        )
        try:
            yield Set(pool, policy)
        finally:
            pool.close()


def chat(*, stream: bool) -> Asked:
    body = json.dumps({"stream": stream, "messages": []}).encode()
    return Asked(method="POST", target=CHAT, token="t", body=body)


@dataclass
class Streaming(Machine):
    """Says what it streams."""

    carries: bool = True


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("stream", [True, False])
def test_a_proven_answer_passes_byte_for_byte(stream: bool) -> None:
    machine = Streaming()
    with carried(machine) as carrier:
        client, error = carrier.ask(chat(stream=stream))
    assert error is None and client.status == 200 and client.ended
    assert client.body.endswith(DONE) if stream else client.body == machine.body(False)[0]
    assert len(carrier.kept) == 1 and client.headers["x-strongroom-receipt"] == carrier.kept[0].receipt.id


@dataclass
class Lying(Streaming):
    def receipt(self, identifier: str, request: Request, response: bytes) -> SignedReceipt:
        honest = super().receipt(identifier, request, response).receipt
        return sign(replace(honest, response_sha256=bytes(32)), self.receipt_key)


@pytest.mark.guarantee("G12")
def test_a_whole_answer_that_is_not_proven_is_no_answer() -> None:
    with carried(Lying()) as carrier:
        client, error = carrier.ask(chat(stream=False))
    assert isinstance(error, VerifyError) and not carrier.kept
    assert client.status == 502 and client.headers["x-should-retry"] == "false"
    said = json.loads(client.body)["error"]
    assert said["code"] == "verification_failed" and "response body hashes to" in said["message"]


@pytest.mark.guarantee("G12")
def test_a_stream_that_is_not_proven_has_an_error_for_its_end() -> None:
    with carried(Lying()) as carrier:
        client, error = carrier.ask(chat(stream=True))
    assert isinstance(error, VerifyError) and not carrier.kept
    assert client.status == 200 and not client.ended and DONE not in client.body
    last = client.body.rstrip().rpartition(b"data: ")[2]
    assert json.loads(last)["error"]["code"] == "verification_failed"


@dataclass
class Talkative(Lying):
    """Its end is not the very end: what it streams after [DONE] is one of these."""

    after: bytes = b""
    end: bytes = DONE

    def carrying(self, pieces: list[bytes], signed: SignedReceipt) -> list[bytes]:
        return [*super().carrying(pieces, signed)[:-1], self.end, self.after]


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize(
    "end", [DONE, b"data:[DONE]\n\n", b"data: [DONE]\r\n\r\n", b"event: x\ndata: [DONE]\n\n"]
)
@pytest.mark.parametrize("after", [b": ping\n\n", b"\n", b"data: {}\n\n", b"x" * 100])
def test_no_end_passes_before_the_proof_whatever_follows_it(end: bytes, after: bytes) -> None:
    with carried(Talkative(after=after, end=end)) as carrier:
        client, error = carrier.ask(chat(stream=True))
    assert isinstance(error, VerifyError) and not client.ended
    assert b"[DONE]" not in client.body and b"verification_failed" in client.body


@given(
    st.lists(st.sampled_from([*MARKS, b"\n", b"\r", b"\n\n", b"data: ", b"[DONE]", b"da", b"ta:", b"{}"])),
    st.lists(st.integers(0, 60), max_size=8),
)
@example([b"d", b"ata: [DONE]"], [1])
@example([b"xd", b"ata: [DONE]"], [2])
@example([b"{}\n", b"data:", b" [DONE]\n\n"], [5, 9, 12])
def test_what_passes_is_all_before_the_first_end(tokens: list[bytes], places: list[int]) -> None:
    body, end, passed = b"".join(tokens), _End(), b""
    ends = sorted({min(place, len(body)) for place in places} | {len(body)})
    for low, high in zip([0, *ends], ends, strict=False):
        passed += end.before(body[low:high])
    assert passed + end.held == body
    found = re.search(rb"(?:\A|(?<=[\r\n]))data: ?\[DONE\]", body)
    if found:
        assert len(passed) == found.start()
    else:
        assert any(mark.startswith(end.held) for mark in MARKS)


def test_what_comes_after_the_end_is_bounded() -> None:
    end = _End()
    assert end.before(DONE + bytes(_MOST_AFTER - len(DONE))) == b""
    with pytest.raises(ProtocolError, match="goes on after its end"):
        end.before(b"x")


@dataclass
class Forgetful:
    """A connection whose server has begun anew `times` times since it was verified."""

    inner: Connection
    times: list[int]

    def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"",
                limits: Limits | None = None) -> Response:  # fmt: skip
        if self.times[0]:
            self.times[0] -= 1
            raise ForgottenKeyError("the key that was verified is no longer in use")
        return self.inner.request(method, path, headers, body, limits)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)


@pytest.mark.parametrize(
    "asked", [chat(stream=True), chat(stream=False), Asked(method="GET", target="/v1/receipts/x")]
)
@pytest.mark.parametrize("times", [1, 2])
def test_a_server_that_began_anew_is_verified_anew_and_asked_once_more(asked: Asked, times: int) -> None:
    machine, left, opened = Streaming(), [times], list[Connection]()
    with carried(machine) as carrier:
        verified = carrier.pool._open

        def open_() -> Connection:
            opened.append(verified())
            return cast(Connection, Forgetful(opened[-1], left))

        carrier.pool._open = open_
        with carrier.pool.borrowed(), carrier.pool.borrowed():
            pass  # both stay, idle
        client, error = carrier.ask(asked)
    if times == 1:
        assert error is None and client.ended and client.status in (200, 404)
    else:
        assert isinstance(error, ForgottenKeyError) and client.status == 502
    assert len(opened) == 3, "the other one that was idle is of no use either"
    assert len(machine.prompts) == (times == 1 and asked.method == "POST")


def test_a_gets_answer_passes_and_so_does_an_error() -> None:
    machine = Machine()
    with carried(machine) as carrier:
        client, error = carrier.ask(Asked(method="GET", target="/v1/receipts/none", token="secret"))
        assert error is None and client.status == 404
        client, error = carrier.ask(Asked(method="POST", target="/v1/else", body=b"{}"))
        assert error is None and client.status == 404 and json.loads(client.body)["error"]
    asked = [request for request in machine.requests if request.target.startswith("/v1/")]
    assert [request.headers.get("authorization") for request in asked] == ["Bearer secret", None]


@pytest.mark.guarantee("G8")
def test_no_byte_leaves_for_a_server_that_is_refused() -> None:
    machine = Machine()
    policy = Policy.from_raw(parse_yaml(policy_text(machine, host_data=["00" * 32]), "policy"))
    with serving(machine) as url:
        pool = Pool(
            lambda: AttestedConnection.open(url, policy=policy, roots=policy.roots, now=datetime.now(UTC))
        )
        client, error = Set(pool, policy).ask(chat(stream=False))
    assert error is not None and client.status == 502 and "host_data" in client.body.decode()
    assert not machine.prompts


def test_a_client_that_leaves_ends_the_servers_work() -> None:
    with carried(Streaming()) as carrier:
        client, error = carrier.ask(chat(stream=True), Client(leaves_after=1))
    assert isinstance(error, TransportError) and not client.ended and not carrier.kept


def test_cancelled_before_it_began_it_asks_nothing() -> None:
    machine = Machine()
    with carried(machine) as carrier:
        carrying, client = carrier.carrying(chat(stream=True)), Client()
        carrying.cancel()
        assert isinstance(carrying.run(client), TransportError)
    assert client.status == 0 and not machine.requests


def test_cancelled_on_its_way_it_says_no_more() -> None:
    with carried(Streaming()) as carrier:
        carrying = carrier.carrying(chat(stream=True))
        client = Client(on_send=carrying.cancel)
        assert carrying.run(client) is not None
    assert b"error" not in client.body


def test_a_connection_tells_whether_it_is_quiet_and_ends_from_elsewhere() -> None:
    machine = Streaming()
    with carried(machine) as carrier, carrier.pool.borrowed() as connection:
        assert connection.is_quiet
        answer = connection.request("GET", "/v1/receipts/none")
        assert answer.read() and connection.is_quiet
        connection.abort()
        assert not connection.is_quiet
        with pytest.raises(TransportError):
            connection.request("GET", "/v1/receipts/none")
        connection.abort()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TransportError("gone"), "server_unreachable"),
        (VerifyError("forged"), "verification_failed"),
        (StrongroomError("else\nnext line"), "server_refused"),
    ],
)
def test_what_went_wrong_is_told_in_openais_words(error: StrongroomError, code: str) -> None:
    refusal = told(error)
    said = json.loads(refusal.body())["error"]
    assert refusal.status == 502 and said["code"] == code and "\n" not in said["message"]
    assert ("x-should-retry" in refusal.headers) is (code != "server_unreachable")
