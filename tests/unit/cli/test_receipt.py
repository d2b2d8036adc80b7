"""Mirrors strongroom/cli/receipt.py: kept files, whole and changed."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sidecars.proxy.receipts import answers
from sidecars.proxy.receipts.book import DONE, Book
from sidecars.proxy.routes import Route
from strongroom.cli.main import main
from strongroom.receipts import envelope
from strongroom.receipts.receipt import sign
from strongroom.wire.canonical import b64u
from tests.fakes import book as fake
from tests.fakes.exchange import MODEL
from tests.fakes.machine import Machine, Request, policy_file

Capture = pytest.CaptureFixture[str]
ID = "ab" * 16


@dataclass
class Kept:
    receipt: Path
    request: Path
    response: Path
    policy: Path
    machine: Machine

    def verify(self, *words: str) -> int:
        return main(["receipt", "verify", str(self.receipt), "--policy", str(self.policy), *words])


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    machine = Machine()
    request = Request("POST", "/v1/chat/completions", {}, b"the request")
    machine.keep(ID, machine.receipt(ID, request, b"the response"))
    files = Kept(tmp_path / "r", tmp_path / "q", tmp_path / "a", policy_file(tmp_path, machine), machine)
    files.receipt.write_bytes(machine.receipts[ID])
    files.request.write_bytes(b"the request")
    files.response.write_bytes(b"the response")
    return files


@pytest.mark.guarantee("G12")
def test_a_receipt_with_its_bytes(kept: Kept, capsys: Capture) -> None:
    assert kept.verify("--request", str(kept.request), "--response", str(kept.response)) == 0
    out, err = capsys.readouterr()
    loud, sentence = out.splitlines()
    assert loud.startswith("!!! INSECURE-SIMULATED") and not err
    assert sentence.startswith(f"receipt ok: {MODEL.name} epoch {MODEL.epoch}") and sentence.endswith("Z")


def test_bytes_that_were_not_given_are_named(kept: Kept, capsys: Capture) -> None:
    assert kept.verify() == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "not checked: the request, want --request FILE with its exact bytes",
        "not checked: the response, want --response FILE with its exact bytes",
    ]


@pytest.mark.guarantee("G12")
def test_an_answer_that_was_cut_is_not_taken_for_whole(kept: Kept, capsys: Capture) -> None:
    request = Request("POST", "/v1/chat/completions", {}, b"the request")
    honest = kept.machine.receipt(ID, request, b"the response").receipt
    kept.machine.keep(ID, sign(replace(honest, complete=False), kept.machine.receipt_key))
    kept.receipt.write_bytes(kept.machine.receipts[ID])
    for words in ([], ["--json"], ["--response", str(kept.response)]):
        assert kept.verify(*words) == 6
        out, err = capsys.readouterr()
        assert out == "" and "cut short: want --cut" in err and err.count("\n") == 1
    assert kept.verify("--cut") == 0
    assert "CUT SHORT" in capsys.readouterr().out
    assert kept.verify("--cut", "--json") == 0
    assert json.loads(capsys.readouterr().out)["receipt"]["complete"] is False
    kept.response.write_bytes(b"another")
    assert kept.verify("--cut", "--response", str(kept.response)) == 5


def test_json(kept: Kept, capsys: Capture) -> None:
    assert kept.verify("--json", "--request", str(kept.request)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["receipt"]["id"] == ID and found["insecure_simulated"]
    assert found["bodies_not_checked"] == ["response"]


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("name", ["request", "response"])
def test_other_bytes_are_refused(name: str, kept: Kept, capsys: Capture) -> None:
    file: Path = getattr(kept, name)
    file.write_bytes(file.read_bytes() + b"\n")
    assert kept.verify(f"--{name}", str(file)) == 5
    assert f"receipt: {name} body hashes to" in capsys.readouterr().err


@pytest.mark.guarantee("G12")
@pytest.mark.guarantee("G16")
def test_any_changed_byte_of_the_file_is_refused(kept: Kept, capsys: Capture) -> None:
    good = kept.receipt.read_bytes()
    for at in range(0, len(good), len(good) // 40):
        kept.receipt.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert kept.verify() in (4, 5)
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("strongroom: ") and err.count("\n") == 1


@pytest.mark.parametrize("length", [0, 1, 100, 1000])
def test_a_file_that_was_cut(length: int, kept: Kept) -> None:
    kept.receipt.write_bytes(kept.receipt.read_bytes()[:length])
    assert kept.verify() == 4


def test_a_file_that_is_far_too_long(kept: Kept) -> None:
    kept.receipt.write_bytes(b" " * (envelope.MAX_BYTES + 1))
    assert kept.verify() == 4


def test_a_machine_the_policy_refuses(kept: Kept, tmp_path: Path, capsys: Capture) -> None:
    kept.policy = policy_file(tmp_path, kept.machine, host_data=["00" * 32])
    assert kept.verify() == 6
    assert "host_data is" in capsys.readouterr().err


@pytest.mark.guarantee("G18")
def test_a_simulated_root_that_is_not_named(kept: Kept, tmp_path: Path) -> None:
    kept.policy = policy_file(tmp_path, kept.machine, insecure_simulated_roots=None)
    assert kept.verify() == 5


def test_no_policy(kept: Kept, capsys: Capture) -> None:
    assert main(["receipt", "verify", str(kept.receipt)]) == 3
    assert "want --policy FILE" in capsys.readouterr().err


def test_no_file(kept: Kept, capsys: Capture) -> None:
    kept.receipt.unlink()
    assert kept.verify() == 8
    assert capsys.readouterr().err == f"strongroom: {kept.receipt}: no such file or directory\n"


@dataclass
class Streamed:
    """A streamed answer as a client saved it, and what the door of it answers."""

    book: Book
    body: Path
    evidence: Path
    policy: Path

    def verify(self, *words: str) -> int:
        with_evidence = ["--evidence", str(self.evidence)]
        return main(
            ["receipt", "verify", str(self.body), *with_evidence, "--policy", str(self.policy), *words]
        )

    def answer(self, id: str = ID) -> bytes:
        asked = fake.tenant(self.book.plan)
        witness = self.book.witness(
            id=id, route=Route.CHAT, tenant=asked, received=b"q", forwarded=b"f", stream=True
        )
        body = b'data: {"a":1}\n\n: ping\n\n'
        witness.delivered(body)
        return body + witness.receipt_comment() + DONE

    def file(self) -> bytes:
        found = answers.receipt_answer(self.book, fake.tenant(self.book.plan), ID, proof=True)
        assert found is not None
        return found


@pytest.fixture
def streamed(tmp_path: Path) -> Streamed:
    book = fake.book()
    files = Streamed(book, tmp_path / "body", tmp_path / "evidence", policy_file(tmp_path, Machine()))
    files.body.write_bytes(files.answer())
    shown = {
        "key": b64u(book.identity.spki),
        "not_before": int(book.identity.not_before.timestamp()),
        "bundle": book.identity.evidence.to_json(),
    }
    files.evidence.write_text(json.dumps({"receipt_key": shown, "state": "open"}))
    return files


@pytest.mark.guarantee("G12")
def test_a_saved_stream_verifies_offline(streamed: Streamed, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "q").write_bytes(b"q")
    assert streamed.verify("--request", str(tmp_path / "q")) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith("receipt ok") and len(out) == 2


@pytest.mark.guarantee("G12")
def test_any_changed_byte_of_a_saved_stream_is_refused(streamed: Streamed, capsys: Capture) -> None:
    good = streamed.body.read_bytes()
    ping = good.index(b": ping") + 2  # what a comment says binds nobody
    for at in set(range(0, len(good), 11)) - set(range(ping, ping + 4)):
        streamed.body.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert streamed.verify() in (4, 5), at
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1


@pytest.mark.parametrize("length", [0, 5, 30, 200, -14, -1])
def test_a_saved_stream_that_was_cut(length: int, streamed: Streamed) -> None:
    streamed.body.write_bytes(streamed.body.read_bytes()[:length])
    assert streamed.verify() in (4, 5)


@pytest.mark.guarantee("G12")
def test_a_receipt_file_is_evidence_and_proof_for_its_stream(streamed: Streamed, capsys: Capture) -> None:
    assert streamed.verify("--proof") == 5
    assert "no proof that it is in the log" in capsys.readouterr().err
    streamed.evidence.write_bytes(streamed.file())
    assert streamed.verify("--proof") == 0
    assert "which had 1 receipts at" in capsys.readouterr().out
    streamed.body.write_bytes(streamed.answer("cd" * 16))  # its proof would be another's
    assert streamed.verify() == 0
    assert streamed.verify("--proof") == 5


def test_a_receipt_file_of_a_stream_is_checked_with_its_body(streamed: Streamed, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(streamed.file())
    words = ["receipt", "verify", str(file), "--policy", str(streamed.policy), "--proof"]
    assert main([*words, "--response", str(streamed.body)]) == 0
    streamed.body.write_bytes(streamed.body.read_bytes() + b"\n")
    assert main([*words, "--response", str(streamed.body)]) == 5
    assert main([*words, "--evidence", str(streamed.evidence)]) == 3


def test_a_stream_without_evidence_says_where_to_get_it(streamed: Streamed, capsys: Capture) -> None:
    words = ["receipt", "verify", str(streamed.body), "--policy", str(streamed.policy)]
    assert main(words) == 3
    assert "/.well-known/strongroom" in capsys.readouterr().err
    assert main([*words, "--response", str(streamed.body)]) == 3


@pytest.mark.guarantee("G12")
def test_evidence_for_another_key_is_refused(streamed: Streamed, capsys: Capture) -> None:
    value = json.loads(streamed.evidence.read_text())
    value["receipt_key"]["bundle"] = fake.evidence(b"another").to_json()
    streamed.evidence.write_text(json.dumps(value))
    assert streamed.verify() == 5
    assert "report_data" in capsys.readouterr().err


def test_json_of_a_stream(streamed: Streamed, capsys: Capture) -> None:
    streamed.evidence.write_bytes(streamed.file())
    assert streamed.verify("--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bodies_not_checked"] == ["request"] and found["log"]["size"] == 1


@dataclass
class Heads:
    streamed: Streamed
    first: Path
    second: Path
    proof: Path

    def check(self, *words: str, proof: bool = True) -> int:
        more = ["--proof", str(self.proof)] if proof else []
        return main(
            ["receipt", "log", "check", str(self.first), str(self.second), "--evidence",
             str(self.streamed.evidence), "--policy", str(self.streamed.policy), *more, *words]
        )  # fmt: skip


@pytest.fixture
def heads(streamed: Streamed, tmp_path: Path) -> Heads:
    found = Heads(streamed, tmp_path / "first", tmp_path / "second", tmp_path / "between")
    found.first.write_bytes(answers.head_answer(streamed.book))
    for number in range(4):
        streamed.answer(f"{number:032x}")
    found.second.write_bytes(answers.head_answer(streamed.book))
    found.proof.write_bytes(answers.consistency_answer(streamed.book, 1, 5))
    return found


@pytest.mark.guarantee("G12")
def test_a_log_that_went_on(heads: Heads, capsys: Capture) -> None:
    assert heads.check() == 0
    assert "went on from 1 to 5 receipts" in capsys.readouterr().out
    assert heads.check("--json") == 0
    assert [head["size"] for head in json.loads(capsys.readouterr().out)["heads"]] == [1, 5]


def test_a_receipt_file_is_a_head_too(heads: Heads) -> None:
    heads.second.write_bytes(heads.streamed.file())
    assert heads.check() == 0


def test_equal_sizes_need_no_proof_and_others_do(heads: Heads, capsys: Capture) -> None:
    assert heads.check(proof=False) == 3
    assert "consistency?first=1&second=5" in capsys.readouterr().err
    heads.first.write_bytes(heads.second.read_bytes())
    assert heads.check(proof=False) == 0


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("name", ["first", "second", "proof"])
def test_a_changed_head_or_proof_is_refused(name: str, heads: Heads, capsys: Capture) -> None:
    path: Path = getattr(heads, name)
    good = path.read_bytes()
    for at in range(0, len(good), 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert heads.check() in (4, 5), at
        assert capsys.readouterr().out == ""


@pytest.mark.guarantee("G12")
def test_heads_that_change_places_are_refused(heads: Heads) -> None:
    heads.first, heads.second = heads.second, heads.first
    assert heads.check() == 5


def test_a_clock_that_was_set_back_is_a_warning(
    heads: Heads, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert heads.check("--json") == 0
    assert json.loads(capsys.readouterr().out)["clock_set_back"] is False
    heads.streamed.answer("f" * 32)
    now = int(time.time())
    monkeypatch.setattr("sidecars.proxy.receipts.book.time.time", lambda: now - 7200.0)
    heads.second.write_bytes(answers.head_answer(heads.streamed.book))
    heads.proof.write_bytes(answers.consistency_answer(heads.streamed.book, 1, 6))
    monkeypatch.undo()
    assert heads.check() == 0
    ok, warning = capsys.readouterr().out.splitlines()[1:]
    assert ok.startswith("log ok") and warning.startswith("warning: the clock went back from ")
    assert heads.check("--json") == 0
    assert json.loads(capsys.readouterr().out)["clock_set_back"] is True


def test_a_log_of_a_machine_the_policy_refuses(heads: Heads, tmp_path: Path) -> None:
    heads.streamed.policy = policy_file(tmp_path, Machine(), host_data=["00" * 32])
    assert heads.check() == 6
