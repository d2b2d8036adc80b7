"""Mirrors guest/coco/server.py and __main__.py: bounds, and hostile clients on both sockets."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final

import pytest

from guest.coco import __main__ as process
from guest.coco import server
from guest.coco.plan import Plan
from strongroom.errors import MachineError
from tests import ROOT
from tests.fakes.coco import SECRET, Coco, everything, free_port, served

GET: Final = b"GET /cdh/resource/default/db/password HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coco]:
    with served(tmp_path_factory.mktemp("s"), plan=Plan(rules=everything(), port=free_port())) as coco:
        yield coco


def raw(coco: Coco, *pieces: bytes, end: bool = False) -> bytes:
    """Everything the unix socket says to these bytes."""
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(10)
        client.connect(str(coco.socket))
        for piece in pieces:
            client.sendall(piece)
        if end:
            client.shutdown(socket.SHUT_WR)
        said = b""
        while data := client.recv(65536):
            said += data
        return said


def status_of(said: bytes) -> int:
    return int(said.split(b" ", 2)[1])


def test_loopback_is_served_by_uid(shared: Coco) -> None:
    client = http.client.HTTPConnection("127.0.0.1", shared.plan.port, timeout=10)
    client.request("GET", "/cdh/resource/default/db/password")
    answer = client.getresponse()
    assert (answer.status, answer.read()) == (200, SECRET)
    assert answer.getheader("Content-Type") == "application/octet-stream"
    assert answer.getheader("Cache-Control") == "no-store"
    client.close()


def test_a_request_may_come_in_pieces(shared: Coco) -> None:
    said = raw(shared, *(GET[n : n + 1] for n in range(len(GET))))
    assert status_of(said) == 200 and said.endswith(SECRET)


def test_who_has_said_all_still_gets_the_answer(shared: Coco) -> None:
    assert raw(shared, GET, end=True).endswith(SECRET)


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ((b"\x16\x03\x01\x02\x00\x01\x00",), 400),
        ((b"GET / HTTP/1.0\r\n\r\n",), 400),
        ((b"GET x HTTP/1.1\r\n\r\n",), 400),
        ((b"GET / HTTP/1.1\r\nA: " + b"b" * 9000,), 431),
        ((b"POST /aa/aael HTTP/1.1\r\nContent-Length: 65537\r\n\r\n", b"x" * 70000), 413),
        ((b"POST /aa/aael HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",), 413),
        ((b"POST /aa/aael HTTP/1.1\r\nContent-Length: -1\r\n\r\n",), 400),
        ((b"POST /aa/aael HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",), 411),
        ((b"POST /aa/aael HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",), 400),
    ],
)
def test_what_breaks_http_is_answered_once(shared: Coco, pieces: tuple[bytes, ...], status: int) -> None:
    said = raw(shared, *pieces, end=True)
    assert status_of(said) == status and said.count(b"HTTP/1.1 ") == 1


def test_a_client_that_waits_for_a_word_gets_it(shared: Coco) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(10)
        client.connect(str(shared.socket))
        client.sendall(b"POST /aa/aael HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert client.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        assert client.recv(4096).startswith(b"HTTP/1.1 400 Bad Request")


def test_who_says_nothing_or_too_slowly_is_let_go(shared: Coco, monkeypatch: pytest.MonkeyPatch) -> None:
    assert raw(shared, end=True) == b""
    monkeypatch.setattr(server, "ARRIVAL", 0.2)
    monkeypatch.setattr(server, "LINGER", 0.1)
    assert status_of(raw(shared, GET[:20])) == 408
    assert shared.get("/cdh/resource/default/db/password")[0] == 200


def test_who_does_not_take_the_answer_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DEPARTURE", 0.2)
    with served(tmp_path) as coco, closing(socket.socket(socket.AF_UNIX)) as client:
        told = next(uri for uri in coco.keeper.resources if uri.tag == "password")
        coco.keeper.resources[told] = bytes(180_000)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.connect(str(coco.socket))
        client.sendall(GET)
        client.settimeout(10)
        time.sleep(1.0)
        taken = 0
        with pytest.raises(OSError) as cut:  # noqa: PT011, PT012  reset, or whatever was under way and then nothing
            while data := client.recv(65536):
                taken += len(data)
            raise ConnectionResetError
        assert not isinstance(cut.value, TimeoutError) and taken < 180_000 + 400
        assert coco.get("/info")[0] == 200


def until(coco: Coco, status: int) -> bool:
    """Whether the socket comes to answer so, within a few seconds."""
    for _ in range(50):
        with suppress(OSError, http.client.HTTPException):  # cut off: as good as any other answer
            if coco.get("/info")[0] == status:
                return True
        time.sleep(0.1)
    return False


def test_one_caller_does_not_take_every_connection(shared: Coco, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_OF_ONE", 3)
    with ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(shared.socket))
            client.sendall(GET[:10])
        assert until(shared, 503)
        monkeypatch.setattr(server, "MAX_OPEN", 0)
        with pytest.raises(OSError, match=r".*"):  # no room to say even that
            shared.get("/info")
        monkeypatch.undo()
    assert until(shared, 200)


def test_many_strangers_at_once_leave_it_serving(shared: Coco) -> None:
    with ExitStack() as stack:
        for _ in range(600):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(shared.socket))  # waits while the queue is full
    assert until(shared, 200)


@pytest.mark.guarantee("G11")
def test_a_defect_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_: object) -> None:
        raise ValueError(SECRET.hex())

    monkeypatch.setattr("guest.coco.rest.Rest.answer", broken)
    with served(tmp_path) as coco:
        assert coco.get("/info") == (
            500,
            "text/plain; charset=utf-8",
            b"failed: a defect here, told in the journal",
        )
    out = capsys.readouterr()
    assert "coco: defect: ValueError" in out.out and SECRET.hex() not in out.out + out.err


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken, ExitStack() as stack:
        plan = Plan(port=taken.getsockname()[1])
        with pytest.raises(MachineError, match="coco: cannot listen: address already in use"):
            process.listeners(plan, tmp_path, stack)


def started(directory: Path, plan: bytes) -> subprocess.Popen[str]:
    (directory / "plan").write_bytes(plan)
    environment = {
        "PATH": os.environ["PATH"],
        "CREDENTIALS_DIRECTORY": str(directory),
        "RUNTIME_DIRECTORY": str(directory),
    }
    argv = [sys.executable, "-m", "guest.coco"]
    return subprocess.Popen(argv, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def test_the_process_serves_and_ends(socket_dir: Path) -> None:
    with started(socket_dir, Plan().pack()) as child:
        path = socket_dir / "api.sock"
        for _ in range(200):
            with closing(socket.socket(socket.AF_UNIX)) as probe:
                if probe.connect_ex(str(path)) == 0:
                    break
            time.sleep(0.05)
        assert path.stat().st_mode & 0o777 == 0o666
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(path))
            client.sendall(b"GET /cdh/resource/a/b/c HTTP/1.1\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 403 Forbidden")
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0


@pytest.mark.guarantee("G16")
def test_the_process_refuses_another_plan(socket_dir: Path) -> None:
    with started(socket_dir, b"{}") as child:
        assert child.wait(10) == 4
        assert child.stderr is not None
        assert child.stderr.read() == "strongroom-coco: coco plan: not of the form of version 1\n"
