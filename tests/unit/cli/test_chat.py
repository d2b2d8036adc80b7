"""Mirrors strongroom/cli/chat.py."""

import io
import json
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from strongroom.cli import chat
from strongroom.cli.answer import StreamedAnswer
from strongroom.cli.main import main
from strongroom.receipts.receipt import SignedReceipt
from tests.fakes.exchange import ENGINE, MODEL
from tests.fakes.machine import WORDS, Machine, policy_file, serving

Capture = pytest.CaptureFixture[str]
ANSWER = "".join(WORDS)
QUESTION = "why is the sky blue?"
TOKEN = "a-secret-token"


@pytest.fixture
def machine() -> Machine:
    return Machine()


def run(machine: Machine, policy: Path, *words: str) -> int:
    with serving(machine) as url:
        return main(["chat", url, QUESTION, "--policy", str(policy), *words])


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_the_answer_is_on_stdout_and_the_rest_beside_it(
    stream: str, machine: Machine, tmp_path: Path, capsys: Capture
) -> None:
    assert run(machine, policy_file(tmp_path, machine), stream) == 0
    out, err = capsys.readouterr()
    assert out == ANSWER + "\n"
    verdict, loud, receipt = err.splitlines()
    assert "accepted" in verdict and MODEL.name in verdict
    assert loud.startswith("INSECURE-SIMULATED")
    assert receipt.startswith(f"receipt ok: {MODEL.name} epoch {MODEL.epoch}") and ENGINE.version in receipt


def test_the_request_is_the_smallest_that_asks(machine: Machine, tmp_path: Path) -> None:
    assert run(machine, policy_file(tmp_path, machine), "--max-tokens", "7") == 0
    (asked,) = machine.prompts
    assert json.loads(asked.body) == {
        "model": MODEL.name,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 7,
        "stream": True,
    }
    assert "authorization" not in asked.headers


@pytest.mark.guarantee("G18")
def test_quiet_keeps_the_answer_and_the_warning(machine: Machine, tmp_path: Path, capsys: Capture) -> None:
    assert run(machine, policy_file(tmp_path, machine), "--quiet") == 0
    out, err = capsys.readouterr()
    assert out == ANSWER + "\n" and err.startswith("INSECURE-SIMULATED") and err.count("\n") == 1


def test_json_comes_after_everything_was_checked(machine: Machine, tmp_path: Path, capsys: Capture) -> None:
    assert run(machine, policy_file(tmp_path, machine), "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["answer"] == ANSWER
    assert result["server"]["accepted"] and result["receipt"]["complete"]


@pytest.mark.guarantee("G12")
def test_what_is_kept_verifies_offline(machine: Machine, tmp_path: Path, capsys: Capture) -> None:
    policy, kept = policy_file(tmp_path, machine), {name: tmp_path / name for name in ("r", "q", "a")}
    saving = ["--receipt", kept["r"], "--save-request", kept["q"], "--save-response", kept["a"]]
    assert run(machine, policy, *map(str, saving)) == 0
    capsys.readouterr()
    bodies = ["--request", str(kept["q"]), "--response", str(kept["a"])]
    assert main(["receipt", "verify", str(kept["r"]), "--policy", str(policy), *bodies]) == 0
    assert "receipt ok" in capsys.readouterr().out
    assert kept["q"].read_bytes() == machine.prompts[0].body


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("changes", "code"), [({"insecure_simulated_roots": None}, 5), ({"gpus": 8}, 6), ({"version": 2}, 3)]
)
def test_no_prompt_leaves_before_acceptance(
    changes: dict[str, None], code: int, machine: Machine, tmp_path: Path, capsys: Capture
) -> None:
    assert run(machine, policy_file(tmp_path, machine, **changes)) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert machine.prompts == []
    assert QUESTION not in repr(machine.requests)


@dataclass
class Cheating(Machine):
    """Signs a receipt for another answer than it gave."""

    def keep(self, identifier: str, signed: SignedReceipt) -> None:
        receipt = replace(signed.receipt, response_sha256=sha256(b"another").digest())
        super().keep(identifier, replace(signed, receipt=receipt))


@pytest.mark.guarantee("G12")
def test_an_answer_without_proof_is_loud(tmp_path: Path, capsys: Capture) -> None:
    machine, kept = Cheating(), tmp_path / "receipt"
    assert run(machine, policy_file(tmp_path, machine), "--quiet", "--receipt", str(kept)) == 5
    out, err = capsys.readouterr()
    assert out.startswith(ANSWER)
    assert "strongroom: DO NOT RELY ON THE ANSWER ABOVE: receipt: " in err.splitlines()[-1]
    assert not kept.exists()


@pytest.mark.guarantee("G12")
def test_json_without_proof_has_no_answer(tmp_path: Path, capsys: Capture) -> None:
    machine = Cheating()
    assert run(machine, policy_file(tmp_path, machine), "--json") == 5
    assert capsys.readouterr().out == ""


@dataclass
class Breaking(Machine):
    """Its engine dies after the first words."""

    def body(self, streamed: bool) -> list[bytes]:
        return super().body(streamed)[:2]


def test_an_answer_that_stops_early_is_loud(tmp_path: Path, capsys: Capture) -> None:
    machine = Breaking()
    assert run(machine, policy_file(tmp_path, machine)) == 7
    out, err = capsys.readouterr()
    assert out == "".join(WORDS[:2])
    assert "DO NOT RELY" in err and "without [DONE]" in err


def test_ctrl_c_in_the_middle_says_so(
    machine: Machine, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: StreamedAnswer, data: bytes) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(StreamedAnswer, "feed", interrupt)
    assert run(machine, policy_file(tmp_path, machine)) == 130
    assert "not proven" in capsys.readouterr().err


@pytest.mark.guarantee("G11")
def test_a_token_comes_from_a_file(machine: Machine, tmp_path: Path, capsys: Capture) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    assert run(machine, policy_file(tmp_path, machine), "--token-file", str(token)) == 0
    assert machine.prompts[0].headers["authorization"] == f"Bearer {TOKEN}"
    out, err = capsys.readouterr()
    assert TOKEN not in out + err


@pytest.mark.guarantee("G11")
@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"a\r\nx: y", b"\xff", b"a" * 5000])
def test_a_bad_token_is_refused_and_not_repeated(
    content: bytes, machine: Machine, tmp_path: Path, capsys: Capture
) -> None:
    token = tmp_path / "token"
    token.write_bytes(content)
    assert run(machine, policy_file(tmp_path, machine), "--token-file", str(token)) == 3
    assert (
        capsys.readouterr().err == "strongroom: token file: want one printable word of at most 4096 bytes\n"
    )
    assert machine.requests == []


class Stdin:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def test_question_from_stdin(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Stdin("ünï".encode()))
    policy = policy_file(tmp_path, machine)
    with serving(machine) as url:
        assert main(["chat", url, "-", "--policy", str(policy)]) == 0
    assert json.loads(machine.prompts[0].body)["messages"][0]["content"] == "ünï"


def test_token_from_stdin(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Stdin(TOKEN.encode()))
    assert run(machine, policy_file(tmp_path, machine), "--token-file", "-") == 0
    assert machine.prompts[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize("words", [["-", "--token-file", "-"], ["-"]])
def test_stdin_that_is_refused(
    words: list[str], machine: Machine, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Stdin(b"\xff"))
    policy = policy_file(tmp_path, machine)
    with serving(machine) as url:
        assert main(["chat", url, *words, "--policy", str(policy)]) == 3
    assert capsys.readouterr().err.count("\n") == 1
    assert machine.requests == []


def test_escapes_in_an_answer_reach_no_terminal(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "is_terminal", lambda: True)
    machine = Machine(words=["a\x1b[2J", "b\n"])
    assert run(machine, policy_file(tmp_path, machine)) == 0
    assert capsys.readouterr().out == "a\\x1b[2Jb\n\n"
