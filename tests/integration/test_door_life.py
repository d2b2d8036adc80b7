"""The door as a process that is stopped, killed, crowded and lied to, before an engine's double."""

import contextlib
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Final

import pytest

from sidecars.proxy.door import GONE
from strongroom.host.run import Child
from tests.fakes.asking import ask, asking, chat, connection, said
from tests.fakes.served import Served, opened, served
from tests.fakes.taint import tainted

TOKENS: Final = {"ann": "token-of-ann-which-is-long", "bob": "token-of-bob-which-is-long"}
ANN, BOB = TOKENS.values()
CHAT: Final = "/v1/chat/completions"
CROWD: Final = 10_000
ORIGINS: Final = 64  # loopback addresses that they come from
GIB: Final = 1 << 30


@pytest.fixture
def door(socket_dir: Path) -> Iterator[tuple[Served, Child]]:
    with served(socket_dir, tokens=TOKENS, settings={"canary": {"every_s": 1}}) as made:
        yield made


def wait_for(ready: Callable[[], bool], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextlib.contextmanager
def stalled(behind: Served, token: str = ANN) -> Iterator[HTTPResponse]:
    """A streamed answer that has begun, and waits for the engine."""
    behind.engine.stall_after = 2
    with asking(behind.port, "POST", CHAT, chat("hello", stream=True), token=token) as response:
        assert response.read1(1)
        behind.engine.stall_after = None
        yield response


def resume(behind: Served) -> None:
    behind.loop.call_soon_threadsafe(behind.engine.go.set)


@pytest.mark.guarantee("G10")
def test_a_drained_door_turns_away_who_comes_and_lets_running_answers_finish(
    door: tuple[Served, Child],
) -> None:
    behind, process = door
    early = connection(behind.port)  # before, and idle
    early.request("GET", "/healthz")
    assert early.getresponse().read() == b'{"status":"open"}'
    with stalled(behind) as response:
        process.signal(signal.SIGTERM)
        wait_for(lambda: "told to stop" in behind.log)
        headers = {"authorization": f"Bearer {BOB}", "content-type": "application/json"}
        early.request("POST", CHAT, body=b"{}", headers=headers)
        refused = early.getresponse()
        assert (refused.status, refused.getheader("retry-after")) == (503, "5")
        late = ask(behind.port, "POST", CHAT, chat("x"), token=BOB)
        assert (late.status, late.json()["error"]["code"]) == (503, "draining")
        assert ask(behind.port, "GET", "/healthz").status == 503
        assert process.status is None
        resume(behind)
        assert response.read().endswith(b"data: [DONE]\n\n")
    assert process.wait(20) == 0
    early.close()
    assert [asked.path for asked in behind.engine.asked] == [CHAT]


@pytest.mark.guarantee("G10")
@pytest.mark.guarantee("G12")
def test_a_door_told_twice_cuts_what_runs_and_says_so(door: tuple[Served, Child]) -> None:
    behind, process = door
    with stalled(behind) as response:
        process.signal(signal.SIGTERM)
        wait_for(lambda: "told to stop" in behind.log)
        process.signal(signal.SIGTERM)
        body = bytearray()
        with pytest.raises(HTTPException):
            take(response, body)
    assert b"[DONE]" not in body and b'"engine_error"' in body
    assert process.wait(20) == 0
    wait_for(lambda: behind.engine.aborted == 1)


def take(response: HTTPResponse, into: bytearray) -> None:
    while data := response.read1(65536):
        into += data
    if not response.isclosed():
        raise HTTPException("the answer has no end")


@pytest.mark.guarantee("G10")
def test_an_engine_that_dies_while_the_door_drains_ends_it_at_once(door: tuple[Served, Child]) -> None:
    behind, process = door
    with stalled(behind):
        process.signal(signal.SIGTERM)
        wait_for(lambda: "told to stop" in behind.log)
        behind.do(behind.engine.die())
        assert process.wait(10) in {0, GONE}  # whichever of the two ends is seen first


@pytest.mark.guarantee("G10")
def test_a_killed_door_comes_back_as_the_same_one(door: tuple[Served, Child]) -> None:
    behind, process = door
    ids = [
        ask(behind.port, "POST", CHAT, chat("hello"), token=ANN).headers["x-strongroom-receipt"]
        for _ in range(3)
    ]
    before = ask(behind.port, "GET", "/v1/receipts/log/head").json()
    song = (behind.directory / "runtime" / "canary").read_bytes()
    with stalled(behind) as response:
        process.signal(signal.SIGKILL)
        with pytest.raises((HTTPException, OSError)):
            take(response, bytearray())
    wait_for(lambda: behind.engine.aborted == 1)
    salts = [asked.body["cache_salt"] for asked in behind.engine.asked]
    with opened(behind):
        assert ask(behind.port, "POST", CHAT, chat("hello"), token=ANN).status == 200
        after = ask(behind.port, "GET", "/v1/receipts/log/head").json()
        assert size(after) > size(before) >= len(ids)
        target = f"/v1/receipts/log/consistency?first={size(before)}&second={size(after)}"
        assert ask(behind.port, "GET", target).status == 200
    assert behind.engine.asked[-1].body["cache_salt"] == salts[0]
    assert (behind.directory / "runtime" / "canary").read_bytes() == song


def size(head: Any) -> int:
    """Of the log, wherever in a head it stands."""
    found = head["size"] if "size" in head else head["head"]["size"]
    assert type(found) is int
    return found


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize(
    ("notes", "why"),
    [
        ([[0, -0.5, -2.0], [0, -0.25, -3.0]], "engine: the canary's answer changed at token 0"),
        ([[84, None, None], [87, -0.25, -3.0]], "engine: the canary got numbers that are none"),
        ([], "engine: the canary got an empty answer"),
    ],
)
def test_an_engine_that_begins_to_answer_garbage_closes_the_door(
    door: tuple[Served, Child], notes: list[Any], why: str
) -> None:
    behind, process = door
    behind.engine.notes = notes
    assert process.wait(20) == GONE
    assert behind.log.splitlines()[-1] == f"ERROR the door is closed: {why}"


NULL: Final[dict[str, Any]] = {"content": [{"token": "a", "logprob": None, "top_logprobs": []}]}


@pytest.mark.guarantee("G10")
@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("stream", [True, False])
def test_garbage_in_a_live_answer_closes_the_door_and_reaches_nobody(
    door: tuple[Served, Child], stream: bool
) -> None:
    behind, process = door
    behind.engine.logprobs = NULL
    question = chat("hello", stream=stream, logprobs=True)
    got = bytearray()
    with (
        contextlib.suppress(HTTPException, OSError),
        asking(behind.port, "POST", CHAT, question, token=ANN) as response,
    ):
        assert response.status == (200 if stream else 502)
        take(response, got)
    assert b'"logprob"' not in got and b"[DONE]" not in got
    assert process.wait(20) == GONE
    assert (
        behind.log.splitlines()[-1]
        == "ERROR the door is closed: engine: it answered with numbers that are none"
    )


@pytest.mark.guarantee("G14")
@pytest.mark.guarantee("G11")
def test_nothing_that_was_said_is_anywhere(door: tuple[Served, Child]) -> None:
    behind, process = door
    word = "zanzibar-{}-marker".format
    planted = [word(place) for place in ("prompt", "tool", "salt", "stop", "bad", "path", "answer")]
    prompt, tool, salt, stop, bad, path, answer = planted
    behind.engine.says = (answer[:9], answer[9:], answer)
    tools = [{"type": "function", "function": {"name": tool, "parameters": {"type": "object"}}}]
    for body in (
        chat(prompt, cache_salt=salt, user=prompt),
        chat(prompt, stream=True, stop=[stop], tools=tools),
        chat(prompt, **{bad: bad}),
        chat(prompt, seed=bad),
        b'{"model":"tiny","messages":"' + prompt.encode(),
    ):
        found = ask(behind.port, "POST", CHAT, body, token=ANN)
        if found.status == 200:
            assert answer in (said(found.body) if b"data:" in found.body else found.body.decode())
    with stalled(behind), asking(behind.port, "POST", CHAT, chat(prompt, stream=True), token=ANN):
        ask(behind.port, "GET", f"/{path}", token=f"{ANN}-{bad}")
    behind.engine.error = (500, {"error": {"message": f"trace: {prompt}"}})
    assert ask(behind.port, "POST", CHAT, chat(prompt), token=ANN).status == 502
    assert any(prompt in str(asked.body) for asked in behind.engine.asked)
    words = [*planted, *TOKENS.values()]
    assert tainted(words, folders=[behind.directory], pids=[process.pid]) == []
    for target in ("/state", "/metrics"):
        page = admin(behind, target)
        assert not [shown for shown in words if shown.encode() in page]
    process.signal(signal.SIGSEGV)  # dies as if by a defect of a library: no core
    assert process.wait(20) == -signal.SIGSEGV
    assert tainted(words, folders=[behind.directory], pids=[]) == []


def admin(behind: Served, target: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(behind.directory / "runtime" / "admin.sock"))
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: door\r\n\r\n".encode())
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return answer


def resident(process: Child) -> int:
    """Bytes of memory that the process has in use."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def descriptors(process: Child) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


@pytest.mark.slow
def test_ten_thousand_idle_connections_are_outlived(door: tuple[Served, Child]) -> None:
    behind, process = door
    assert answers(
        behind, source="127.0.2.1"
    )  # from now on the book's files and a connection to the engine are open
    before, memory = descriptors(process), resident(process)
    with ExitStack() as stack:
        for number in range(CROWD):
            idle = stack.enter_context(socket.socket())
            idle.setblocking(False)
            idle.bind((f"127.0.1.{number % ORIGINS + 1}", 0))
            with contextlib.suppress(BlockingIOError, ConnectionError):
                idle.connect(("127.0.0.1", behind.port))
        wait_for(lambda: answers(behind, source="127.0.2.1"))
        assert resident(process) - memory < GIB
        assert process.status is None
    wait_for(lambda: descriptors(process) <= before + 2)
    assert answers(behind, source="127.0.2.1")


def answers(behind: Served, *, source: str) -> bool:
    try:
        return ask(behind.port, "POST", CHAT, chat("hello"), token=ANN, source=source).status == 200
    except (OSError, HTTPException):
        return False


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["content-length: 1073741824", "transfer-encoding: chunked"])
def test_a_body_of_a_gigabyte_is_refused_for_the_price_of_a_small_one(
    door: tuple[Served, Child], framing: str
) -> None:
    behind, process = door
    memory = resident(process)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    lines = ["host: a", f"authorization: Bearer {ANN}", "content-type: application/json", framing]
    head = "\r\n".join([f"POST {CHAT} HTTP/1.1", *lines])
    piece = b"x" * (1 << 20)
    chunk = b"%x\r\n%b\r\n" % (len(piece), piece) if "chunked" in framing else piece
    sent = 0
    with context.wrap_socket(socket.create_connection(("127.0.0.1", behind.port), timeout=30)) as stream:
        stream.sendall(head.encode() + b"\r\n\r\n")
        with contextlib.suppress(OSError):
            while sent < GIB:
                stream.sendall(chunk)
                sent += len(piece)
        assert stream.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert resident(process) - memory < 256 << 20
    assert behind.engine.asked == []
    assert ask(behind.port, "POST", CHAT, chat("hello"), token=ANN).status == 200


@pytest.mark.guarantee("G17")
def test_what_the_engine_does_not_serve_is_not_there(door: tuple[Served, Child]) -> None:
    behind, _ = door
    assert (
        ask(behind.port, "POST", "/v1/embeddings", {"model": "tiny", "input": "x"}, token=ANN).status == 404
    )
    assert ask(behind.port, "POST", "/v1/embeddings", {"model": "tiny", "input": "x"}).status == 401
