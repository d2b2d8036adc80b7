"""Mirrors strongroom/cli/{verify_files,offline*,question,pieces}.py: evidence in files."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from strongroom.cli.main import main
from strongroom.evidence.binding import Purpose
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.snp_json import to_kbs
from tests import VECTORS
from tests.fakes import accelerated
from tests.fakes import silicon as silicon_fake
from tests.fakes.machine import Machine, policy_file, serving
from tests.fuzz.targets import specimens

Capture = pytest.CaptureFixture[str]
NOW = ["--now", "2026-01-01T00:00:00Z"]


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def folder(tmp_path: Path, machine: Machine) -> Path:
    """A report with its certificate table, as a machine keeps them; names mean nothing."""
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    (evidence / "x").write_bytes(machine.silicon.report(b"nonce".ljust(64, b"\0")))
    (evidence / "y").write_bytes(machine.silicon.certificates())
    (evidence / "README").write_text("what these are")
    return evidence


def policy(tmp_path: Path, machine: Machine, **changes: Any) -> list[str]:
    absent = {"model": None, "engine": None}
    return ["--policy", str(policy_file(tmp_path, machine, **(absent | changes)))]


def real(*names: str) -> list[str]:
    if not VECTORS.is_dir():
        pytest.skip("no real vectors beside this checkout")
    return [str(VECTORS / name) for name in names]


def test_a_report_that_meets_a_policy(
    folder: Path, machine: Machine, tmp_path: Path, capsys: Capture
) -> None:
    words = policy(tmp_path, machine, host_data=[machine.silicon.host_data.hex()])
    assert main(["verify", str(folder), *NOW, *words, "--nonce", b"nonce".hex()]) == 0
    out, err = capsys.readouterr()
    assert err == "" and machine.silicon.measurement.hex() in out
    lines = out.splitlines()
    assert "INSECURE-SIMULATED" in lines[0] and lines[-1].startswith("accepted: AMD SEV-SNP report, version")
    assert "not checked: freshness" not in out


def test_what_a_policy_refuses(folder: Path, machine: Machine, tmp_path: Path, capsys: Capture) -> None:
    words = policy(tmp_path, machine, host_data=["00" * 32], vmpl=[3])
    assert main(["verify", str(folder), *NOW, *words, "--json"]) == 6
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["genuine"] and found["accepted"] is False and len(found["reasons"]) >= 2
    assert err.count("\n") == 1 and "vmpl" in err


@pytest.mark.guarantee("G18")
def test_simulated_silicon_is_not_genuine_without_a_policy_that_names_it(
    folder: Path, capsys: Capture
) -> None:
    assert main(["verify", str(folder), *NOW, "--json"]) == 5
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["genuine"], found["exit_code"]) == (False, 5)
    assert err.startswith("strongroom: ark: sha256 is")


@pytest.mark.guarantee("G7")
def test_another_nonce(folder: Path, machine: Machine, tmp_path: Path, capsys: Capture) -> None:
    assert main(["verify", str(folder), *NOW, *policy(tmp_path, machine), "--nonce", "00" * 32]) == 5
    assert "want the nonce" in capsys.readouterr().err


def test_standard_input_and_the_kbs_form(
    machine: Machine, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = CertificateTable.parse(machine.silicon.certificates())
    kbs = json.dumps(to_kbs(machine.silicon.report(bytes(64)), table)).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(kbs)))
    assert main(["verify", "-", *NOW, *policy(tmp_path, machine, host_data="any")]) == 0
    assert "AMD SEV-SNP report" in capsys.readouterr().out


def test_a_bundle_speaks_for_one_key(machine: Machine, tmp_path: Path, capsys: Capture) -> None:
    challenge = bytes(range(32))
    bundle = silicon_fake.bundle(
        machine.silicon,
        purpose=Purpose.APPLICATION,
        challenge=challenge,
        key=machine.spki,
        events=machine.events,
    )
    (tmp_path / "json").write_bytes(bundle.pack())
    (tmp_path / "cbor").write_bytes(bundle.pack_cbor())
    (tmp_path / "key").write_bytes(machine.spki)
    (tmp_path / "other").write_bytes(Machine().spki)
    words = [*NOW, "--policy", str(policy_file(tmp_path, machine))]
    for name in ("json", "cbor"):
        assert main(["verify", str(tmp_path / name), *words, "--key", str(tmp_path / "key")]) == 0
        assert "evidence bundle for application" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "json"), *words]) == 3
    assert "want --key FILE" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "json"), *words, "--key", str(tmp_path / "other")]) == 5


def test_what_is_said_of_gpus_and_by_whom(tmp_path: Path, capsys: Capture) -> None:
    machine = accelerated.machine()
    rules = str(policy_file(tmp_path, machine, **accelerated.accepted(machine)))
    bundle = machine.attest(Purpose.APPLICATION, bytes(range(32)), machine.spki)
    (tmp_path / "bundle").write_bytes(bundle.pack())
    (tmp_path / "key").write_bytes(machine.spki)
    words = ["verify", str(tmp_path / "bundle"), "--key", str(tmp_path / "key"), "--policy", rules]
    assert main(words) == 0
    assert re.search(
        r"gpu modes +cc on, devtools off, .*: the agent's word, no device's", capsys.readouterr().out
    )
    assert main([*words, "--json"]) == 0
    facts = dict(json.loads(capsys.readouterr().out)["facts"])
    assert facts["gpus"] == "2" and facts["gpu modes"].endswith("the agent's word, no device's")


def test_kept_evidence_verifies_again(machine: Machine, tmp_path: Path, capsys: Capture) -> None:
    kept, rules = tmp_path / "kept.json", str(policy_file(tmp_path, machine))
    with serving(machine) as url:
        assert main(["verify", url, "--policy", rules, "--save-evidence", str(kept)]) == 0
    capsys.readouterr()
    assert main(["verify", str(kept), "--policy", rules]) == 0
    assert "kept evidence of one connection" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("evidence", "more", "what"),
    [
        ("snp/turin-v5", ["--collateral", "snp/ca/turin_ask_ark.pem"], "SNP Turin"),
        ("snp/milan-v2", ["--collateral", "snp/ca/milan_ask_ark.pem"], "SNP Milan"),
        (
            "tdx/v4-uptodate",
            ["--collateral", "tdx/collateral/b0c06f000000-2025-06.json", "--now", "2025-06-20"],
            "UpToDate",
        ),
        ("azure/snp-genoa", ["--collateral", "snp/ca/genoa_ask_ark.pem"], "Azure confidential VM (SNP)"),
        (
            "azure/tdx-v1json",
            ["--collateral", "tdx/collateral/00806f050000-2026-06.json", "--now", "2026-07-01"],
            "Azure confidential VM (TDX)",
        ),
        ("nvidia/h100-pcie-550", [], "hopper GH100"),
        ("nvidia/nvswitch-ls10", ["--collateral", "nvidia/rim/switch_bios_5612_0002_890_9610550001.xml"], "31 golden"),
        ("nvidia/hgx-h100-4gpu", [], "NVIDIA 4 GPU(s)"),
        ("nvidia/rim/driver_550.144.03.xml", [], "NVIDIA reference values"),
        ("tpm/uki-secureboot", ["--key", "tpm/uki-secureboot/ak.pem"], "leads to the quoted pcr 0, 1"),
    ],
)  # fmt: skip
def test_genuine_evidence_of_every_kind(evidence: str, more: list[str], what: str, capsys: Capture) -> None:
    paths = real(evidence, *(word for word in more if "/" in word))
    words = [paths.pop(1) if "/" in word else word for word in more]
    now = [] if "--now" in words else ["--now", "2026-11-20T00:00:00Z"]
    assert main(["verify", *paths, *words, *now]) == 0
    out, err = capsys.readouterr()
    assert err == "" and what in out and out.splitlines()[-1].startswith("genuine: ")


@pytest.mark.parametrize(
    ("evidence", "code", "why"),
    [
        ("nvidia/switch-4-duplicated", 5, "4 devices are 1"),
        ("nvidia/neg-hopper-wrong-chain", 5, ""),
        ("tpm/trustee-swtpm/evidence.json", 5, "nobody vouches"),
        ("tpm/ccel-ovmf-qemu/ccel.bin", 5, "unsigned"),
        ("tpm/legacy-sha1/event_log.bin", 5, "unsigned"),
        ("tdx/tdreport/tdreport.bin", 5, "MAC"),
        ("tdx/v4-uptodate/quote.bin", 5, "no collateral"),
        ("snp/milan-v4-gcp-nokey/report.bin", 5, "neither the evidence nor the verifier"),
        ("snp/negative/truncated.bin", 4, "got 1183 bytes"),
        ("snp/ca/milan_ask_ark.pem", 3, "alone"),
        ("nvidia/h100-pcie-550/report.bin", 3, "0 files of certificates"),
        ("nvidia/rim/driver_535.86.09_bad_digest.xml", 5, "another digest"),
    ],
)
def test_what_is_not_genuine_or_not_enough(evidence: str, code: int, why: str, capsys: Capture) -> None:
    assert main(["verify", *real(evidence), "--now", "2026-11-20"]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and why in err


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["no/such/file"], 8),
        (["EMPTY"], 4),
        (["REPORT", "--now", "yesterday"], 3),
        (["REPORT", "--nonce", "xyz"], 3),
        (["REPORT", "--nonce", "00" * 65], 3),
        (["REPORT", "--nonce", ""], 3),
        (["REPORT", "--key", "REPORT"], 4),
        (["REPORT", "--save-evidence", "x"], 3),
        (["REPORT", "--collateral", "no/such/file"], 8),
        (["https://127.0.0.1:1", "--nonce", "00"], 3),
    ],
)
def test_what_cannot_be_asked(
    words: list[str], code: int, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "empty").mkdir()
    names = {"REPORT": str(folder / "x"), "EMPTY": str(tmp_path / "empty")}
    assert main(["verify", *(names.get(word, word) for word in words)]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("strongroom: ") and err.count("\n") == 1


def test_two_reports_leave_a_question(folder: Path, capsys: Capture) -> None:
    (folder / "z").write_bytes((folder / "x").read_bytes())
    assert main(["verify", str(folder)]) == 3
    assert "2 files hold a snp report (x, z)" in capsys.readouterr().err


def test_every_specimen_alone_gets_an_answer_or_one_line(tmp_path: Path, capsys: Capture) -> None:
    for n, content in enumerate(c for contents in specimens().values() for c in contents):
        (tmp_path / str(n)).write_bytes(content)
        assert main(["verify", str(tmp_path / str(n)), "--now", "2026-11-20"]) in (0, 3, 4, 5)
        err = capsys.readouterr().err
        assert err == "" or (err.count("\n") == 1 and "defect of strongroom" not in err)
