"""Mirrors strongroom/cli/verify.py and verdicts.py: what a person and a script see of honest and other servers."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.cli.main import main
from strongroom.evidence.binding import EXPORTER_LABEL, Purpose, channel_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.measure.tree import words
from strongroom.verify.bundle import verify_bundle
from strongroom.wire.canonical import unb64u
from tests.fakes import accelerated, composite
from tests.fakes import silicon as silicon_fake
from tests.fakes.exchange import ENGINE, MODEL
from tests.fakes.machine import Machine, policy_file, serving
from tests.fakes.nvidia import DRIVER

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_an_accepted_server(machine: Machine, tmp_path: Path, capsys: Capture) -> None:
    policy = policy_file(tmp_path, machine)
    with serving(machine) as url:
        assert main(["verify", url, "--policy", str(policy)]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "REFUSED" not in out
    assert words(machine.silicon.measurement) in out and machine.silicon.measurement.hex() in out
    assert f"model   {MODEL.name}, epoch {MODEL.epoch}, root {MODEL.root.hex()}" in out
    assert f"engine  {ENGINE.name} {ENGINE.version}  serve /model" in out
    last = out.splitlines()[-1]
    assert last.startswith(f"accepted: {url.removeprefix('https://')} is genuine and meets {policy}.")


SAID = (
    f"cc on, devtools off, environment production, driver {DRIVER}, ready flag clear at that time: the agent's word, "
    "no device's"
)


def test_what_is_said_of_gpus_and_by_whom(tmp_path: Path, capsys: Capture) -> None:
    machine = accelerated.machine()
    policy = str(policy_file(tmp_path, machine, **accelerated.accepted(machine)))
    with serving(machine) as url:
        assert main(["verify", url, "--policy", policy]) == 0
        out = capsys.readouterr().out
        assert main(["verify", url, "--policy", policy, "--json"]) == 0
    assert f"gpus    2  {SAID}" in out
    assert re.search(r"gpu devtools +off, by the agent's word +off +ok", out)
    assert re.search(r"gpu cc mode +on, by the agent's word +on or protected-pcie or nvle +ok", out)
    answer = json.loads(capsys.readouterr().out)
    assert answer["gpus"] == 2
    assert answer["gpu_state_by_agent"] == composite.GPU_STATE.to_json()


@pytest.mark.guarantee("G19")
@pytest.mark.parametrize(
    ("state", "section", "why"),
    [
        ({"devtools": 1}, {}, "gpu devtools is on, by the agent's word, want off"),
        ({"cc_feature": 0}, {}, "gpu cc mode is off, by the agent's word, want on or protected-pcie or nvle"),
        ({}, {"cc_modes": ["nvle"]}, "gpu cc mode is on, by the agent's word, want nvle"),
    ],
)
def test_gpus_in_a_mode_that_is_not_wanted(
    state: dict[str, Any], section: dict[str, Any], why: str, tmp_path: Path, capsys: Capture
) -> None:
    machine = accelerated.machine(**state)
    policy = str(policy_file(tmp_path, machine, **accelerated.accepted(machine, **section)))
    with serving(machine) as url:
        assert main(["verify", url, "--policy", policy]) == 6
    assert why in capsys.readouterr().err


@pytest.mark.guarantee("G18")
def test_a_simulated_machine_says_so_first_and_last(
    machine: Machine, tmp_path: Path, capsys: Capture
) -> None:
    with serving(machine) as url:
        main(["verify", url, "--policy", str(policy_file(tmp_path, machine))])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("!!! INSECURE-SIMULATED") and "INSECURE-SIMULATED" in lines[-1]


@pytest.mark.guarantee("G18")
def test_a_simulated_machine_is_not_genuine_unless_named(
    machine: Machine, tmp_path: Path, capsys: Capture
) -> None:
    policy = policy_file(tmp_path, machine, insecure_simulated_roots=None)
    with serving(machine) as url:
        assert main(["verify", url, "--policy", str(policy)]) == 5
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("strongroom: ") and err.count("\n") == 1


@pytest.mark.guarantee("G16")
def test_a_refused_server_has_every_reason(machine: Machine, tmp_path: Path, capsys: Capture) -> None:
    policy = policy_file(
        tmp_path, machine, host_data=["00" * 32], model={"minimum_epoch": 9}, engine={"versions": ["9"]}
    )
    pem, kept = tmp_path / "server.pem", tmp_path / "evidence.json"
    saving = ["--save-certificate", str(pem), "--save-evidence", str(kept)]
    with serving(machine) as url:
        assert main(["verify", url, "--policy", str(policy), *saving]) == 6
    out, err = capsys.readouterr()
    refused = [line.split("  ")[0] for line in out.splitlines() if line.endswith("REFUSED")]
    assert refused == ["host_data", "model epoch", "engine version"]
    assert "accepted" not in out
    assert err.count("\n") == 1 and all(check in err for check in refused)
    assert kept.exists() and not pem.exists()  # evidence is kept to be looked at, a certificate to be trusted


def test_json_of_an_accepted_server(machine: Machine, tmp_path: Path, capsys: Capture) -> None:
    with serving(machine) as url:
        assert main(["verify", url, "--policy", str(policy_file(tmp_path, machine)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accepted"] and found["genuine"] and found["insecure_simulated"]
    assert found["measurement"] == machine.silicon.measurement.hex()
    assert found["model"] == MODEL.to_json()
    assert found["reasons"] == []


@pytest.mark.parametrize(
    ("changes", "code", "genuine"),
    [({"insecure_simulated_roots": None}, 5, False), ({"gpus": 8}, 6, True)],
)
def test_json_of_other_servers(
    changes: dict[str, None], code: int, genuine: bool, machine: Machine, tmp_path: Path, capsys: Capture
) -> None:
    policy = policy_file(tmp_path, machine, **changes)
    with serving(machine) as url:
        assert main(["verify", url, "--policy", str(policy), "--json"]) == code
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["accepted"], found["genuine"]) == (False, genuine)
    assert found["reasons"] and err.count("\n") == 1


def test_the_certificate_is_saved(machine: Machine, tmp_path: Path) -> None:
    pem = tmp_path / "server.pem"
    policy = policy_file(tmp_path, machine)
    with serving(machine) as url:
        assert main(["verify", url, "--policy", str(policy), "--save-certificate", str(pem)]) == 0
    saved = x509.load_pem_x509_certificate(pem.read_bytes())
    assert saved.public_key() == machine.key.public_key()
    assert saved.public_bytes(Encoding.DER).startswith(b"\x30")


def test_saved_evidence_verifies_again(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    policy = policy_file(tmp_path, machine)
    with serving(machine) as url:
        assert main(["verify", url, "--policy", str(policy), "--save-evidence", str(path)]) == 0
    kept = json.loads(path.read_text())
    challenge = channel_challenge(unb64u(kept["nonce"], "nonce"), unb64u(kept["exporter"], "exporter"))
    claims = verify_bundle(
        Bundle.from_json(kept["answer"]["channel"]),
        purpose=Purpose.CHANNEL,
        challenge=challenge,
        key=machine.spki,
        roots=silicon_fake.roots(machine.silicon),
        now=machine.not_before,
    )
    assert claims.measurement == machine.silicon.measurement
    assert EXPORTER_LABEL.startswith(b"EXPORTER-")


def test_nobody_there(machine: Machine, tmp_path: Path, capsys: Capture) -> None:
    with serving(machine) as url:
        pass
    assert main(["verify", url, "--policy", str(policy_file(tmp_path, machine))]) == 9
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["https://127.0.0.1:1"], 3),
        (["https://127.0.0.1:1", "--policy", "no-such-file"], 8),
        (["http://127.0.0.1:1", "--policy", "POLICY"], 3),
    ],
)
def test_what_is_refused_before_any_connection(
    words: list[str], code: int, machine: Machine, tmp_path: Path, capsys: Capture
) -> None:
    policy = str(policy_file(tmp_path, machine))
    assert main(["verify", *(word.replace("POLICY", policy) for word in words)]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("strongroom: ") and err.count("\n") == 1


def test_a_hostile_model_name_cannot_write_on_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    log = replace(Machine().events, events=())
    for event in Machine().events.events:
        payload = event.payload.replace(b'"tiny"', b'"\\u001b[2Jtiny"')
        log = log.extend(replace(event, payload=payload))
    hostile = Machine(events=log)
    with serving(hostile) as url:
        assert main(["verify", url, "--policy", str(policy_file(tmp_path, hostile))]) == 0
    assert "\x1b" not in capsys.readouterr().out
