"""The door before a real vLLM: what it exposes, whom it keeps apart, what it leaves behind, how both end.

One engine serves the whole module, and the tests run in order; those that end something come last.
"""

import base64
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from sidecars.proxy.door import GONE
from sidecars.proxy.engine.surface import check
from strongroom.host.run import Child
from strongroom.wire.canonical import JSON
from tests.fakes.asking import ask, asking, chat, said
from tests.fakes.real_engine import RealEngine, described, real_engine
from tests.fakes.served import Served, opened, served
from tests.fakes.taint import tainted
from tests.fakes.vllm import LISTING

pytestmark = [pytest.mark.engine, pytest.mark.slow]

TOKENS: Final = {"ann": "token-of-ann-which-is-long", "bob": "token-of-bob-which-is-long"}
ANN, BOB = TOKENS.values()
WORD: Final = "zanzibar-%s-marker"
HITS: Final = "vllm:prefix_cache_hits_total"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    with real_engine(tmp_path_factory.mktemp("e")) as made:
        yield made


@pytest.fixture(scope="module")
def door(engine: RealEngine) -> Iterator[tuple[Served, Child]]:
    settings: dict[str, JSON] = {"canary": {"every_s": 1}}
    with served(engine.socket.parent, tokens=TOKENS, settings=settings, engine=False) as made:
        yield made


@pytest.fixture
def port(door: tuple[Served, Child]) -> int:
    return door[0].port


def wait_for(ready: Callable[[], bool], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.guarantee("G17")
def test_the_live_engine_is_known_to_the_last_field(engine: RealEngine) -> None:
    version = json.loads(engine.get("/version"))["version"]
    assert check(described(engine), version=version)


@pytest.mark.guarantee("G17")
def test_no_route_of_the_engine_is_reachable_but_what_is_served(port: int) -> None:
    served_here = {"POST /v1/chat/completions", "POST /v1/completions", "GET /v1/models"}
    for route in json.loads(LISTING.read_text())["routes"]:
        method, _, path = route.partition(" ")
        if method in {"MOUNT", "WEBSOCKET"}:
            method = "GET"
        path = path.replace("{response_id}", "resp_1")
        body: dict[str, Any] | None = {} if method == "POST" else None
        without, within = (ask(port, method, path, body, token=token).status for token in (None, ANN))
        if route in served_here:
            assert (without, within) == (401, 200 if method == "GET" else 400)
        elif path != "/v1/embeddings":
            assert (without, within) == (404, 404), route
    assert ask(port, "POST", "/v1/embeddings", {"model": "tiny", "input": "x"}, token=ANN).status == 404


def test_answers_of_every_kind(port: int) -> None:
    whole = ask(port, "POST", "/v1/chat/completions", chat("Who keeps the key?", max_tokens=8), token=ANN)
    assert whole.status == 200 and whole.json()["usage"]["completion_tokens"] == 8
    question = {"model": "tiny", "prompt": "The key", "max_tokens": 8, "stream": True, "logprobs": 2}
    streamed = ask(port, "POST", "/v1/completions", question, token=ANN)
    assert streamed.status == 200 and streamed.body.endswith(b"data: [DONE]\n\n") and said(streamed.body)
    wrong = ask(port, "POST", "/v1/completions", {"model": "tiny", "prompt": "x" * 9000}, token=ANN)
    assert wrong.status == 400 and wrong.json()["error"]["code"] == "engine_refused"


@pytest.mark.guarantee("G13")
def test_two_tenants_with_one_prompt_share_no_block(engine: RealEngine, port: int) -> None:
    question = {
        "model": "tiny",
        "prompt": "The guard of the old tower " * 20,
        "max_tokens": 1,
        "temperature": 0,
    }

    def hits(token: str, **fields: str) -> float:
        before = engine.metric(HITS)
        assert ask(port, "POST", "/v1/completions", {**question, **fields}, token=token).status == 200
        return engine.metric(HITS) - before

    assert hits(ANN) == 0
    assert hits(ANN) >= 32  # one block at least: the cache works, and for whom it may
    assert hits(BOB) == 0
    assert hits(BOB) >= 32
    assert hits(BOB, cache_salt="another") == 0


def test_a_client_that_leaves_frees_the_engine(engine: RealEngine, port: int) -> None:
    question = chat("Tell of the door.", stream=True, max_tokens=200, ignore_eos=True)
    with asking(port, "POST", "/v1/chat/completions", question, token=ANN) as response:
        assert response.read1(10)
        assert engine.metric("vllm:num_requests_running") >= 1
    wait_for(lambda: engine.metric("vllm:num_requests_running") == 0)


@pytest.mark.guarantee("G14")
@pytest.mark.guarantee("G11")
def test_nothing_that_was_said_is_anywhere(engine: RealEngine, door: tuple[Served, Child]) -> None:
    behind, process = door
    port, planted = (
        behind.port,
        [WORD % place for place in ("prompt", "system", "tool", "salt", "stop", "bad", "path")],
    )
    prompt, system, tool, salt, stop, bad, path = planted
    tools = [{"type": "function", "function": {"name": tool, "parameters": {"type": "object"}}}]
    asked = [
        chat(prompt, max_tokens=24, cache_salt=salt, stop=[stop], user=prompt),
        chat(prompt, max_tokens=24, stream=True, cache_salt=salt),
        {
            **chat(prompt),
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": prompt}],
        },
        chat(prompt, tools=tools, max_tokens=8),
        chat(prompt, **{bad: bad}),
        chat(prompt, seed=bad),
        chat(prompt * 400),  # longer than the model: the engine's complaint quotes it
        json.dumps(chat(prompt)).encode()[:-1],
    ]
    answers = [ask(port, "POST", "/v1/chat/completions", body, token=ANN) for body in asked]
    assert [answer.status for answer in answers[:3]] == [200, 200, 200]
    assert {answer.status for answer in answers[4:]} == {400}
    ask(port, "GET", f"/{path}", token=ANN)
    ask(port, "GET", "/v1/models", token=f"{TOKENS['ann']}-{bad}")
    with asking(
        port, "POST", "/v1/chat/completions", chat(prompt, stream=True, max_tokens=200), token=ANN
    ) as cut:
        cut.read1(10)
    completions = [
        answers[0].json()["choices"][0]["message"]["content"], said(answers[1].body),
    ]  # fmt: skip
    assert all(len(completion) > 16 for completion in completions)
    words = [*planted, *TOKENS.values(), *(completion[:48] for completion in completions)]
    pids = [process.pid, *engine.children()]
    folders = [behind.directory, Path("/dev/shm"), Path("/var/crash"), Path("/var/lib/systemd/coredump")]
    assert tainted(words, folders=folders, pids=pids) == []
    assert tainted([prompt], folders=[behind.directory], pids=pids) == []
    shown = (engine.get("/metrics/"), admin(behind, "/state"), admin(behind, "/metrics"))
    assert not any(word.encode() in page for word in words for page in shown)


def admin(behind: Served, target: str) -> bytes:
    """A page of the door's private socket, or nothing where it has none."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(behind.directory / "runtime" / "admin.sock"))
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: door\r\n\r\n".encode())
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return answer


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    secret = WORD % "found"
    (tmp_path / "plain").write_text(f"x {secret} y")
    for shift in range(3):
        (tmp_path / f"base64-{shift}").write_bytes(base64.b64encode(b"y" * shift + secret.encode() + b"tail"))
    (tmp_path / "hex").write_text(secret.encode().hex())
    (tmp_path / "clean").write_text("nothing")
    found = {Path(where).name for where in tainted([secret], folders=[tmp_path], pids=[])}
    assert found == {"plain", "hex", "base64-0", "base64-1", "base64-2"}


@pytest.mark.guarantee("G10")
def test_a_drained_door_lets_a_running_answer_finish(door: tuple[Served, Child], port: int) -> None:
    behind, process = door
    question = chat("Tell of the door.", stream=True, max_tokens=200, ignore_eos=True)
    with asking(port, "POST", "/v1/chat/completions", question, token=ANN) as response:
        first = response.read1(10)
        process.signal(signal.SIGTERM)
        wait_for(lambda: "told to stop" in behind.log)
        late = ask(port, "POST", "/v1/chat/completions", chat("x"), token=BOB)
        assert (late.status, late.json()["error"]["code"]) == (503, "draining")
        assert int(late.headers["retry-after"]) > 0
        assert (first + response.read()).endswith(b"data: [DONE]\n\n")
    assert process.wait(30) == 0


@pytest.mark.guarantee("G10")
def test_the_next_door_hears_the_same_song_and_closes_when_the_engine_dies(
    engine: RealEngine, door: tuple[Served, Child]
) -> None:
    behind, _ = door
    song = (behind.directory / "runtime" / "canary").read_bytes()
    with opened(behind) as process:
        assert ask(behind.port, "GET", "/v1/models", token=ANN).status == 200
        assert (behind.directory / "runtime" / "canary").read_bytes() == song
        engine.child.signal(signal.SIGKILL)
        assert process.wait(10) == GONE
        with pytest.raises(OSError, match="refused"):
            ask(behind.port, "GET", "/healthz")
