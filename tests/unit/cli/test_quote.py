"""Mirrors strongroom/cli/quote.py: evidence that `strongroom verify` accepts for who asked, and for nobody else."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest.keysock.rights import Method, Rights, Rule
from strongroom.cli.main import main
from strongroom.evidence.binding import application_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.dstack_log import parse as parse_log
from tests.fakes.keysock import Keysock, call, served
from tests.fakes.silicon import silicon

ME = f"uid-{os.getuid()}"
NONCE = "ab" * 32
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def keysock(socket_dir: Path) -> Iterator[Keysock]:
    mine = Rule(methods=frozenset({Method.SIGN, Method.ATTEST}))
    with served(socket_dir, rights=Rights(uids={os.getuid(): mine})) as keysock:
        yield keysock


def strongroom(keysock: Keysock, *words: str | Path, socket: str = "agent") -> int:
    return main(["quote", *map(str, words), "--socket", str(keysock.path(socket))])


def test_evidence_for_a_key_is_verified_elsewhere(keysock: Keysock, tmp_path: Path, capsys: Captured) -> None:
    evidence, public = tmp_path / "evidence.json", tmp_path / "id.pem"
    words = ("--challenge", NONCE, "--path", f"{ME}/id", "--out", evidence, "--key-out", public)
    assert strongroom(keysock, *words) == 0
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines())
    challenge = application_challenge(ME, bytes.fromhex(NONCE)).hex()
    assert (shown["caller"], shown["purpose"], shown["challenge"]) == (ME, "application", challenge)
    policy = tmp_path / "policy.yaml"
    lines = ["version: 1", "measurements:", "  - name: fake", f'    value: "{shown_measurement(keysock)}"']
    lines += ["host_data: any", "insecure_simulated_roots:", f'  - "{silicon().pki.ark_sha256.hex()}"']
    policy.write_text("\n".join(lines) + "\n")
    verify = ["verify", str(evidence), "--key", str(public), "--policy", str(policy), "--nonce"]
    assert main([*verify, challenge]) == 0
    assert main([*verify, application_challenge("api.service", bytes.fromhex(NONCE)).hex()]) == 5


def shown_measurement(keysock: Keysock) -> str:
    status, answer = call(keysock.path("agent"), "/v1/status", method="GET")
    assert status == 200
    return str(answer["measurement"])


def test_evidence_on_standard_output(keysock: Keysock, capsys: Captured) -> None:
    assert strongroom(keysock) == 0
    first = Bundle.parse(capsys.readouterr().out.strip().encode())
    assert strongroom(keysock, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert Bundle.from_json(told["bundle"]).challenge != first.challenge  # a nonce of its own each time
    assert told["key"] == ""


def test_a_bare_quote(keysock: Keysock, tmp_path: Path, capsys: Captured) -> None:
    out, log = tmp_path / "quote.bin", tmp_path / "log.json"
    words = ("--report-data", "0xabcd", "--out", out, "--event-log-out", log)
    assert strongroom(keysock, *words, socket="quote") == 0
    assert capsys.readouterr().out.split() == ["report_data", "abcd", "bytes", str(out.stat().st_size)]
    assert bytes.fromhex("abcd") + bytes(62) in out.read_bytes()
    assert parse_log(log.read_text())
    assert strongroom(keysock, "--report-data", "abcd", "--attestation", socket="quote") == 0
    assert bytes.fromhex(capsys.readouterr().out.strip())[0] == 0
    assert strongroom(keysock, "--report-data", "abcd", "--json", socket="quote") == 0
    assert json.loads(capsys.readouterr().out)["quote"]


@pytest.mark.guarantee("G8")
def test_refusals_name_the_rule(keysock: Keysock, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "evidence"
    assert strongroom(keysock, "--path", "other/id", "--out", out) == 6
    assert f"{ME}: no rule signs with 'other/id', want one in" in capsys.readouterr().err
    assert strongroom(keysock, "--report-data", "ab" * 33, "--out", out, socket="quote") == 6
    assert "raw_quote" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--challenge", "00" * 15), "--challenge: 15 bytes, want 16..64"),
        (("--challenge", "00" * 65), "--challenge: 65 bytes, want 16..64"),
        (("--challenge", "zz"), "--challenge: not hex"),
        (("--kind", "p256"), "want --path"),
        (("--key-out", "x"), "want --path"),
        (("--attestation",), "want it with --report-data"),
        (("--event-log-out", "x"), "want it with --report-data"),
        (("--report-data", ""), "--report-data: 0 bytes"),
        (("--report-data", "00" * 65), "--report-data: 65 bytes"),
        (("--report-data", "00", "--path", "x"), "want it without --report-data"),
        (("--report-data", "00", "--challenge", "00" * 32), "want it without --report-data"),
        (("--report-data", "00", "--attestation", "--event-log-out", "x"), "holds its log"),
    ],
)
def test_options_that_do_not_go_together(
    keysock: Keysock, capsys: Captured, words: tuple[str, ...], why: str
) -> None:
    assert strongroom(keysock, *words) == 3
    assert why in capsys.readouterr().err
