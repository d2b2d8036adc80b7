"""`strongroom connect` as a process, between OpenAI's own client, which knows nothing of it, and the real door."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import openai
import pytest

from strongroom.cli.main import main
from tests import ROOT
from tests.fakes.middlebox import Middlebox
from tests.fakes.served import Served, opened, served
from tests.fakes.silicon import HOST_DATA, MEASUREMENT, bundle, silicon
from tests.fakes.vllm import WORDS

TOKEN: Final = "token-of-ann"
ANSWER: Final = "".join(WORDS)
MESSAGES: Final[Any] = [{"role": "user", "content": "why is the sky blue?"}]


@dataclass
class Connected:
    url: str
    process: subprocess.Popen[str]
    errors: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].removesuffix("/v1"))

    def client(self, token: str = TOKEN, **more: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=token, timeout=60, **{"max_retries": 0, **more})

    @property
    def said(self) -> str:
        return self.errors.read_text()


@contextmanager
def connecting(
    url: str, directory: Path, *words: str, policy: dict[str, Any] | None = None
) -> Iterator[Connected]:
    (directory / "policy.yaml").write_text(json.dumps(_policy() | (policy or {})))
    command = [sys.executable, "-m", "strongroom", "connect", url, "--policy", str(directory / "policy.yaml")]
    with (directory / "errors").open("w") as errors:
        process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0", *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None
        try:
            where = process.stdout.readline().strip()
            assert where.startswith("http://127.0.0.1:"), (directory / "errors").read_text()
            yield Connected(where, process, directory / "errors")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(120) == 0
            finally:
                process.kill()
                process.wait(30)
                process.stdout.close()


def _policy() -> dict[str, Any]:
    return {
        "version": 1,
        "measurements": [{"name": "test", "value": MEASUREMENT.hex()}],
        "host_data": [HOST_DATA.hex()],
        "insecure_simulated_roots": [silicon().pki.ark_sha256.hex()],
    }


@dataclass
class Place:
    door: Served
    box: Middlebox
    local: Connected
    directory: Path


@pytest.fixture(scope="module", params=["direct", "sealed"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A door; before it nothing, or a middlebox; and `connect`."""
    directory = tmp_path_factory.mktemp("d")
    (directory / "kept").mkdir()
    sealed = request.param == "sealed"
    with served(directory, tokens={"ann": TOKEN}) as (door, _), Middlebox(door.url) as box:
        words = ["--keep-receipts", str(directory / "kept"), *(["--sealed"] if sealed else [])]
        with connecting(box.url if sealed else door.url, directory, *words) as local:
            yield Place(door, box, local, directory)


@pytest.mark.guarantee("G12")
def test_the_openai_client_works_unchanged(place: Place) -> None:
    with place.local.client() as client:
        whole = client.chat.completions.create(model="tiny", messages=MESSAGES)
        assert whole.choices[0].message.content == ANSWER
        stream = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == ANSWER
        assert client.completions.create(model="tiny", prompt="x").choices[0].text == ANSWER
        assert [model.id for model in client.models.list()] == ["tiny"]


@pytest.mark.guarantee("G12")
def test_every_receipt_is_kept_and_verifies(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with place.local.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="tiny", messages=MESSAGES)
    kept = place.directory / "kept" / f"{raw.headers['x-strongroom-receipt']}.receipt"
    (place.directory / "body").write_bytes(raw.content)
    assert kept.stat().st_mode & 0o777 == 0o600
    command = ["receipt", "verify", str(kept), "--policy", str(place.directory / "policy.yaml")]
    assert main([*command, "--response", str(place.directory / "body")]) == 0
    (place.directory / "body").write_bytes(raw.content + b" ")
    assert main([*command, "--response", str(place.directory / "body")]) == 5
    capsys.readouterr()


def test_the_servers_own_refusals_pass(place: Place) -> None:
    with place.local.client() as client, pytest.raises(openai.NotFoundError, match="no such model"):
        client.chat.completions.create(model="another", messages=MESSAGES)
    with (
        place.local.client("wrong") as client,
        pytest.raises(openai.AuthenticationError, match="unauthorized"),
    ):
        client.models.list()
    with place.local.client() as client, pytest.raises(openai.BadRequestError, match="strange"):
        client.chat.completions.create(model="tiny", messages=MESSAGES, extra_body={"strange": 1})


def test_many_ask_at_once(place: Place) -> None:
    answers: list[str] = []

    def ask() -> None:
        with place.local.client(max_retries=2) as client:
            for _ in range(3):
                made = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
                answers.append("".join(c.choices[0].delta.content or "" for c in made if c.choices))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert answers == [ANSWER] * 18


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://evil.example", 403),
        ("GET /v1/models HTTP/1.1\r\nHost: evil.example", 403),
        ("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site", 403),
        ("GET /v1/models HTTP/1.1\r\nHost: localhost.evil.example:80", 403),
        (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 2",
            415,
        ),
        ("GET /healthz HTTP/1.1\r\nHost: localhost", 404),
        ("GET /.well-known/strongroom HTTP/1.1\r\nHost: localhost", 404),
        ("DELETE /v1/models HTTP/1.1\r\nHost: localhost", 405),
        ("GET http://x/v1/models HTTP/1.1\r\nHost: localhost", 400),
        ("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic eA==", 401),
        ("GET /v1/models HTTP/1.0\r\nHost: localhost", 505),
    ],
)
def test_strangers_of_this_machine_are_refused(place: Place, head: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", place.local.port), timeout=30) as client:
        client.sendall(head.encode() + b"\r\n\r\n")
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 %d " % status) and b'{"error":' in answer


def test_a_client_that_leaves_frees_the_engine(place: Place) -> None:
    if place.local.url and not place.box.requests:  # the middlebox gives streams whole, and cannot show it
        before, place.door.engine.stall_after = place.door.engine.aborted, 1
        try:
            client = place.local.client()
            stream = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
            next(iter(stream))
            stream.close()
            client.close()
            _until(lambda: place.door.engine.aborted > before)
        finally:
            place.door.engine.stall_after = None
    with place.local.client() as client:
        assert client.chat.completions.create(model="tiny", messages=MESSAGES).choices


@pytest.mark.guarantee("G14")
def test_nothing_of_it_is_said_anywhere(place: Place) -> None:
    with place.local.client() as client:
        client.chat.completions.create(model="tiny", messages=MESSAGES)
    for text in (place.local.said, place.door.log):
        assert MESSAGES[0]["content"] not in text and TOKEN not in text and ANSWER not in text


def test_a_break_in_a_stream_is_an_error_for_the_client(place: Place) -> None:
    place.door.engine.break_after = 2
    try:
        with place.local.client() as client, pytest.raises(openai.APIError):
            _ask(client, stream=True)
    finally:
        place.door.engine.break_after = None


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("stream", [True, False])
def test_a_changed_answer_is_an_error_for_the_client(tmp_path: Path, stream: bool) -> None:
    """The middlebox may change what it cannot read; that is a 502, or an error event, and never an answer."""
    with served(tmp_path, tokens={"ann": TOKEN}) as (door, _), Middlebox(door.url) as box:
        with connecting(box.url, tmp_path, "--sealed") as local, local.client() as client:
            box.change_answer = lambda raw: raw[:-30] + b"x" + raw[-29:] if raw[:1] == b"\1" else raw
            with pytest.raises(openai.APIError, match="sealed response: frame"):
                _ask(client, stream=stream)
            box.reset()
            assert client.chat.completions.create(model="tiny", messages=MESSAGES).choices
        assert re.search("refused: sealed response: frame", local.said)


@pytest.mark.guarantee("G8")
def test_a_server_that_is_another_now_is_refused(tmp_path: Path) -> None:
    """Each new connection is verified anew: what is behind the address may have changed."""
    with ExitStack() as stack:
        door, process = stack.enter_context(served(tmp_path, tokens={"ann": TOKEN}))
        local = stack.enter_context(connecting(door.url, tmp_path))
        with local.client() as client:
            assert client.chat.completions.create(model="tiny", messages=MESSAGES).choices
            process.signal(signal.SIGKILL)
            process.wait(10)
            (tmp_path / "runtime" / "receipt-evidence.json").unlink(missing_ok=True)
            door.agent.chip = silicon(measurement=bytes(48))
            door.agent.make = partial(bundle, door.agent.chip)
            port, asked = door.port, len(door.engine.asked)
            _listen_again(door, port)
            with opened(door), pytest.raises(openai.InternalServerError, match="measurement") as caught:
                client.chat.completions.create(model="tiny", messages=MESSAGES)
            assert caught.value.status_code == 502 and caught.value.code == "verification_failed"
            assert len(door.engine.asked) == asked


@pytest.mark.guarantee("G8")
def test_a_server_that_began_anew_is_verified_and_asked_again(tmp_path: Path) -> None:
    """Behind a middlebox no connection ends when the door does: its word that the key is gone is what tells."""
    with ExitStack() as stack:
        door, process = stack.enter_context(served(tmp_path, tokens={"ann": TOKEN}))
        box = stack.enter_context(Middlebox(door.url))
        local = stack.enter_context(connecting(box.url, tmp_path, "--sealed"))
        with local.client() as client:
            assert client.chat.completions.create(model="tiny", messages=MESSAGES).choices
            process.signal(signal.SIGKILL)
            process.wait(10)
            with opened(door):
                box.upstream = door.url
                box.heads = b""
                for stream in (True, False):
                    _ask(client, stream=stream)
                assert box.heads.count(b"\n421 ") == 1 and "refused" not in local.said


def test_a_server_that_is_gone_is_a_502(tmp_path: Path) -> None:
    with ExitStack() as stack:
        door, process = stack.enter_context(served(tmp_path, tokens={"ann": TOKEN}))
        local = stack.enter_context(connecting(door.url, tmp_path))
        with local.client() as client:
            process.signal(signal.SIGKILL)
            process.wait(10)
            with pytest.raises(openai.InternalServerError) as caught:
                client.models.list()
            assert caught.value.status_code == 502 and caught.value.code == "server_unreachable"


@pytest.mark.parametrize("sealed", [[], ["--sealed"]])
def test_a_refused_server_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sealed: list[str]
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(json.dumps(_policy() | {"measurements": [{"name": "x", "value": "00" * 48}]}))
    with served(tmp_path) as (door, _):
        assert main(["connect", door.url, "--policy", str(policy), "--listen", "127.0.0.1:0", *sealed]) == 6
    out, err = capsys.readouterr()
    assert out == "" and "refused" in err and err.count("\n") == 1


def test_a_token_of_its_own_replaces_the_clients(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    with ExitStack() as stack:
        door, _ = stack.enter_context(served(tmp_path, tokens={"ann": TOKEN}))
        local = stack.enter_context(connecting(door.url, tmp_path, "--token-file", str(tmp_path / "token")))
        with local.client("unused") as client:
            assert [model.id for model in client.models.list()] == ["tiny"]


def _ask(client: openai.OpenAI, *, stream: bool) -> None:
    """To the end of the answer."""
    made = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=stream)
    assert list(made)


def _listen_again(door: Served, port: int) -> None:
    path = door.directory / "credentials" / "door"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"listen_port": port}))


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to pass")
