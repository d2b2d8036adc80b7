"""Mirrors strongroom/cli/receipt.py: kept files, whole and changed."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from strongroom.cli.main import main
from strongroom.receipts import envelope
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
