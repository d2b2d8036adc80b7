"""Mirrors guest/machine/nscq.py: the real facade, over a C library that answers what the test says."""

import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from guest.machine.nscq import MAX_SWITCHES, Protection, session
from strongroom.errors import MachineError
from strongroom.evidence.gpu import GPUEvidence
from strongroom.host.run import run
from tests import ROOT
from tests.fakes.gpus import SPEC, chain
from tests.fakes.nscq.double import VERSION, Double, bound, build

NONCE = bytes(range(32))


def evidence(index: int = 0, nonce: bytes = NONCE) -> GPUEvidence:
    with session(VERSION) as switches:
        return switches.evidence(index, nonce)


def test_every_switch_and_how_it_is_protected(switches: Double) -> None:
    switches.set(mode_value1=1, mode_value2=-1, mode_value3=9)
    with session(VERSION) as found:
        assert found.count == 4
        assert [found.protection(n) for n in range(4)] == [
            Protection.LOCKED,
            Protection.ENABLED,
            Protection.UNKNOWN,
            9,
        ]
    assert switches.calls == ["create", "uuid", "mode 0", "mode 1", "mode 2", "mode 3", "destroy"]


def test_evidence_is_cut_to_its_size_and_certificates_are_der(switches: Double) -> None:
    found = evidence(1)
    assert found.kind == "ls10"
    assert found.report == SPEC + NONCE + bytes([101]) * 800
    assert found.certificates == b"".join(c.public_bytes(Encoding.DER) for c in chain(101))
    assert switches.calls == ["create", "uuid", "arch 1", "input", "report 1", "chain 1", "destroy"]


def test_a_terminated_chain_is_the_same_chain(switches: Double, tmp_path: Path) -> None:
    plain, file = evidence(), tmp_path / "nscq" / "chain0"
    file.write_bytes(file.read_bytes() + b"\0")
    assert evidence() == plain


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"arch_value": 1}, "switch 0: architecture is 1, want 2"),
        ({"fresh": 0}, "switch 0: report answers another nonce than it was asked with"),
        ({"report_size": 0}, r"switch 0: report: 0 bytes, want 1\.\.8192"),
        ({"report_size": 8193}, r"switch 0: report: 8193 bytes, want 1\.\.8192"),
        ({"report_size": 2**32 - 1}, r"switch 0: report: 4294967295 bytes, want 1\.\.8192"),
        ({"report_size": 20}, "switch 0: report answers another nonce"),
        ({"chain_size": 0}, r"switch 0: certificates: 0 bytes, want 1\.\.5120"),
        ({"chain_size": 5121}, r"switch 0: certificates: 5121 bytes, want 1\.\.5120"),
        ({"chain_size": 100}, "switch 0: certificates are no PEM chain"),
        ({"report_times": 0}, "nscq report of switch 0: 0 answers, want one, by this switch"),
        ({"chain_times": 0}, "nscq certificates of switch 0: 0 answers, want one"),
        ({"report_times": 2}, "nscq report of switch 0: 2 answers, want one"),
        ({"report_device": 1}, "nscq report of switch 0: 1 answers, want one, by this switch"),
        ({"nameless": 1}, "nscq architecture of switch 0: 1 answers, want one, by this switch"),
        ({"arch": -1}, r"nscq architecture of switch 0: not implemented \(code -1\)"),
        ({"input": -5}, r"nscq nonce of switch 0: unexpected value \(code -5\)"),
        ({"report": -8}, r"nscq report of switch 0: the switch did not answer in time \(code -8\)"),
        ({"report_answer": -7}, r"nscq report of switch 0: the driver failed \(code -7\)"),
        ({"report_answer": 1}, r"nscq report of switch 0: it came up in part only"),
        ({"chain_answer": -127}, r"nscq certificates of switch 0: unspecified \(code -127\)"),
        ({"label": 1}, "nscq label: want letters, digits and hyphens"),
        ({"label_code": -2}, r"nscq label: it knows no such switch \(code -2\)"),
    ],
)
def test_evidence_that_is_none_is_told(switches: Double, state: dict[str, int], why: str) -> None:
    switches.set(**state)
    with pytest.raises(MachineError, match=why):
        evidence()
    assert switches.calls[-1] == "destroy"


@pytest.mark.parametrize("size", [0, 31, 33])
def test_only_32_bytes_are_a_nonce(switches: Double, size: int) -> None:
    with pytest.raises(MachineError, match=f"switch 0: nonce is {size} bytes, want 32"):
        evidence(nonce=bytes(size))
    assert "input" not in switches.calls


@pytest.mark.parametrize(
    ("state", "why", "left"),
    [
        (
            {"create": 1},
            r"nscq session: it came up in part only \(is it of the driver's version\?\)",
            "destroy",
        ),
        ({"create": -6}, r"nscq session: it does not support this driver \(code -6\)", "create"),
        ({"uuid": -7}, "nscq switches: the driver failed", "destroy"),
        ({"uuid_answer2": -3}, "nscq switches: the switch cannot be opened", "destroy"),
        ({"twins": 1}, "nscq: 4 switches are 1 by name, want all distinct", "destroy"),
        ({"count": MAX_SWITCHES + 1}, "nscq: 17 switches, want at most 16", "destroy"),
    ],
)
def test_a_session_that_does_not_open(switches: Double, state: dict[str, int], why: str, left: str) -> None:
    switches.set(**state)
    with pytest.raises(MachineError, match=why):
        evidence()
    assert switches.calls[-1] == left


@pytest.mark.parametrize("version", ["610.43.03", "595.71.05", "2.0"])
def test_the_library_is_of_the_drivers_version(tmp_path: Path, version: str) -> None:
    with bound(build(tmp_path, version=version), tmp_path) as double:
        with pytest.raises(
            MachineError, match=f"nscq: library is of version {version}, want the driver's, 610.43.02"
        ):
            evidence()
        assert double.calls == []


@pytest.mark.parametrize("name", ["libnvidia-nscq.so.2", "libnvidia-nscq.so", "other.so"])
def test_a_file_that_tells_no_version_is_of_none(nscq_library: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(nscq_library.read_bytes())
    with (
        bound(tmp_path / name, tmp_path),
        pytest.raises(MachineError, match="library is of version unknown, want the driver's"),
    ):
        evidence()


def test_a_library_too_old_for_attestation(tmp_path: Path) -> None:
    library = build(tmp_path, without=["nscq_session_set_input"])
    with (
        bound(library, tmp_path),
        pytest.raises(MachineError, match=r"nscq: .* is too old for this .*set_input"),
    ):
        evidence()


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a library")
    with (
        bound(tmp_path / "text", tmp_path),
        pytest.raises(MachineError, match="cannot be loaded, want the driver's"),
    ):
        evidence()


def test_sessions_are_held_one_at_a_time(switches: Double) -> None:
    threads = [threading.Thread(target=evidence, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns = [call for call in switches.calls if call in ("create", "destroy")]
    assert turns == ["create", "destroy"] * 4


ASK = f"""
from guest.machine.nscq import session
from strongroom.errors import MachineError
try:
    with session("{VERSION}") as switches:
        print(switches.count)
except MachineError as error:
    print(error)
"""


def test_the_library_is_found_by_its_name_or_missed(
    nscq_library: Path, switches: Double, tmp_path: Path
) -> None:
    def said(**env: str) -> str:
        argv = [sys.executable, "-c", ASK]
        return run(argv, cwd=ROOT, env={"PYTHONPATH": str(ROOT), **env}).stdout.decode().strip()

    found = said(LD_LIBRARY_PATH=str(nscq_library.parent), NSCQ_DOUBLE=str(tmp_path / "nscq"))
    assert found == "4"
    assert switches.calls == ["create", "uuid", "destroy"]
    if "cannot be loaded" in (missed := said()):  # a build machine with switches has the real one
        assert missed.startswith(
            "nscq: libnvidia-nscq.so.2 cannot be loaded, want the driver's own in the image"
        )
