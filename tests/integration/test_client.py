"""The client's verbs against the real door: what a stranger can verify, ask, keep and check again."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.cli.main import main
from tests.fakes.machine import Machine, policy_file
from tests.fakes.served import Served, served
from tests.fakes.vllm import WORDS

Capture = pytest.CaptureFixture[str]
ANSWER = "".join(WORDS)
QUESTION = "why is the sky blue, and not secret-marker-green?"
TOKEN = "token-of-alice"


@pytest.fixture
def door(socket_dir: Path) -> Iterator[Served]:
    with served(socket_dir) as (door, _):
        yield door


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return policy_file(tmp_path, Machine())  # the same silicon, image and userdata as the stub agent's


@pytest.mark.guarantee("G8")
def test_verify_accepts_the_real_door(door: Served, policy: Path, tmp_path: Path, capsys: Capture) -> None:
    pem = tmp_path / "server.pem"
    assert main(["verify", door.url, "--policy", str(policy), "--save-certificate", str(pem)]) == 0
    out = capsys.readouterr().out
    assert "INSECURE-SIMULATED" in out and "REFUSED" not in out
    assert pem.read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert door.engine.asked == []


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_chat_answers_and_proves_it(
    stream: str, door: Served, policy: Path, tmp_path: Path, capsys: Capture
) -> None:
    files = {name: tmp_path / name for name in ("receipt", "save-request", "save-response")}
    keep = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    assert main(["chat", door.url, QUESTION, "--policy", str(policy), stream, *keep]) == 0
    out, err = capsys.readouterr()
    assert out == ANSWER + "\n" and "receipt ok" in err
    check = ["receipt", "verify", str(files["receipt"]), "--policy", str(policy)]
    bodies = ["--request", str(files["save-request"]), "--response", str(files["save-response"])]
    assert main([*check, *bodies]) == 0
    assert "receipt ok" in capsys.readouterr().out
    files["save-response"].write_bytes(files["save-response"].read_bytes().replace(b"open", b"shut"))
    assert main([*check, *bodies]) == 5


@pytest.mark.guarantee("G14")
def test_the_doors_log_holds_neither_question_nor_answer(door: Served, policy: Path) -> None:
    assert main(["chat", door.url, QUESTION, "--policy", str(policy)]) == 0
    assert door.engine.asked[0].body["messages"][0]["content"] == QUESTION
    deadline = time.monotonic() + 10
    while "answered 200" not in (log := door.log):  # lines about requests are written a moment later
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "secret-marker" not in log and "door is open." not in log


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize(
    ("changes", "code"), [({"insecure_simulated_roots": None}, 5), ({"host_data": ["00" * 32]}, 6)]
)
def test_a_door_that_is_not_accepted_gets_no_prompt(
    changes: dict[str, None], code: int, door: Served, tmp_path: Path, capsys: Capture
) -> None:
    policy = policy_file(tmp_path, Machine(), **changes)
    assert main(["chat", door.url, QUESTION, "--policy", str(policy)]) == code
    assert capsys.readouterr().out == ""
    assert door.engine.asked == []
    assert "chat" not in door.log


@pytest.mark.guarantee("G11")
def test_tenants_need_their_token(
    socket_dir: Path, policy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(TOKEN)
    bad.write_text("token-of-mallory")
    with served(socket_dir, tokens={"alice": TOKEN}) as (door, _):
        ask = ["chat", door.url, QUESTION, "--policy", str(policy)]
        assert main([*ask, "--token-file", str(good)]) == 0
        assert main([*ask, "--token-file", str(bad)]) == 3
        assert main(ask) == 3
        assert len(door.engine.asked) == 1
        seen = "".join(capfd.readouterr()) + door.log
    assert TOKEN not in seen and "mallory" not in seen


@pytest.mark.guarantee("G10")
def test_when_the_engine_dies_nobody_answers(socket_dir: Path, policy: Path, capsys: Capture) -> None:
    with served(socket_dir) as (door, process):
        door.do(door.engine.die())
        assert process.wait(10) == 75
    assert main(["chat", door.url, QUESTION, "--policy", str(policy)]) == 9
    assert capsys.readouterr().err.count("\n") == 1


def test_json_for_scripts(door: Served, policy: Path, capsys: Capture) -> None:
    assert main(["chat", door.url, QUESTION, "--policy", str(policy), "--json", "--max-tokens", "9"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["answer"] == ANSWER and result["server"]["accepted"]
    assert door.engine.asked[0].body["max_tokens"] == 9
