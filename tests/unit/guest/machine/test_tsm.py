"""Mirrors guest/machine/tsm.py, against the kernel's ABI as a FUSE tree: a plain directory cannot refuse like it."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from guest.machine.tsm import TSM
from strongroom.errors import MachineError
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.tdx import TDXQuote
from tests import need
from tests.fakes.tsm import served

REPORT_DATA = bytes(range(64))


class Clock:
    """A clock that moves only when someone sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def tsm(root: Path) -> TSM:
    clock = Clock()
    return TSM(root, deadline=1.0, clock=clock, sleep=clock.sleep)


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    need(os.geteuid() == 0 and os.access("/dev/fuse", os.W_OK), "mounting needs root and /dev/fuse")
    with served(tmp_path_factory.mktemp("tsm") / "report") as root:
        yield root


@pytest.fixture
def faulty(fuse_device: Path, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    with ExitStack() as servers:
        yield lambda fault: servers.enter_context(served(tmp_path / "report", fault))


def test_a_report_speaks_for_what_was_asked(genuine: Path) -> None:
    answer = tsm(genuine).report(REPORT_DATA)
    assert answer.provider == "sev_guest"
    assert SNPReport.parse(answer.outblob).report_data == REPORT_DATA
    assert CertificateTable.parse(answer.auxblob).vcek is not None
    assert list(genuine.iterdir()) == []


def test_the_privilege_level_is_the_callers(genuine: Path) -> None:
    answer = tsm(genuine).report(REPORT_DATA, privlevel=2)
    assert SNPReport.parse(answer.outblob).vmpl == 2


def test_a_host_without_certificates_gives_none(genuine: Path) -> None:
    assert tsm(genuine).report(REPORT_DATA, privlevel=1).auxblob == b""


def test_a_privilege_level_the_kernel_refuses(genuine: Path) -> None:
    with pytest.raises(MachineError, match="tsm: privlevel: request refused by the kernel as invalid"):
        tsm(genuine).report(REPORT_DATA, privlevel=4)
    assert list(genuine.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, 63, 65])
def test_only_64_bytes_are_report_data(genuine: Path, size: int) -> None:
    with pytest.raises(MachineError, match=f"report_data is {size} bytes, want 64"):
        tsm(genuine).report(bytes(size))


@pytest.mark.parametrize("fault", ["BusyTwice", "Neighbour"])
def test_what_passes_is_waited_for(faulty: Callable[[str], Path], fault: str) -> None:
    root = faulty(fault)
    assert SNPReport.parse(tsm(root).report(REPORT_DATA).outblob).report_data == REPORT_DATA
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("AlwaysBusy", "tsm: device or resource busy, and no report within 1 s"),
        ("TooLarge", "tsm: outblob: report or certificates are larger than the kernel's limit"),
        ("Withdrawn", "tsm: outblob: guest driver is disabled"),
        ("Odd", "tsm: outblob: input/output error"),
        ("Unbound", "tsm: entry: no attestation provider is bound"),
        ("OtherProvider", "tsm: provider is 'arm_cca_guest', want one of sev_guest, tdx_guest"),
        ("OddGeneration", "tsm: generation is 'many', want a number"),
        ("OtherReport", "tsm: report speaks for other report_data than was written"),
        ("Garbage", "tsm: outblob is no report: snp report: got 64 bytes, want 1184"),
        ("TDXToken", "tsm: outblob is no report: tdx quote: version is 34002, want 4 or 5"),
        ("Endless", "tsm: outblob is larger than 65536 bytes"),
    ],
)
def test_every_failure_is_one_sentence_and_leaves_nothing(
    faulty: Callable[[str], Path], fault: str, why: str
) -> None:
    root = faulty(fault)
    with pytest.raises(MachineError, match=why):
        tsm(root).report(REPORT_DATA)
    assert list(root.iterdir()) == []


def test_a_quote_speaks_for_what_was_asked(faulty: Callable[[str], Path]) -> None:
    root = faulty("TDX")
    answer = tsm(root).report(REPORT_DATA)
    assert (answer.tee, answer.provider, answer.auxblob) == ("tdx", "tdx_guest", b"")
    assert TDXQuote.parse(answer.outblob).body.report_data == REPORT_DATA
    with pytest.raises(MachineError, match="tsm: provider tdx_guest has no privilege levels"):
        tsm(root).report(REPORT_DATA, privlevel=0)
    assert list(root.iterdir()) == []


def test_a_machine_without_the_abi_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"absent is missing, want configfs mounted on a confidential VM"):
        tsm(tmp_path / "absent").report(REPORT_DATA)


def test_a_directory_that_is_not_configfs_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="tsm: provider: no such file or directory"):
        tsm(tmp_path).report(REPORT_DATA)
    assert list(tmp_path.iterdir()) == []
