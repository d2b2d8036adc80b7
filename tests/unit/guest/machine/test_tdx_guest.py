"""Mirrors guest/machine/tdx_guest.py, over a driver in Python."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from guest.machine.tdx_guest import TDX_CMD_GET_REPORT0, td_report
from strongroom.errors import MachineError
from strongroom.evidence.tdx import TDReport
from tests.fakes.intel import BODY_1_5

REPORT_DATA = bytes(range(64))


def minted(report_data: bytes) -> TDReport:
    body = replace(BODY_1_5, report_data=report_data)
    return TDReport(version=0, cpu_svn=bytes(16), mac=bytes(32), valid=bytes(8), body=body)


@pytest.fixture
def device(tmp_path: Path) -> Path:
    (tmp_path / "tdx_guest").touch()
    return tmp_path / "tdx_guest"


def answering(report: bytes) -> Callable[[int, int, bytearray], int]:
    def ioctl(_file: int, number: int, request: bytearray) -> int:
        assert number == TDX_CMD_GET_REPORT0 == 3 << 30 | 1088 << 16 | ord("T") << 8 | 1
        assert request == REPORT_DATA + bytes(1024)
        request[64:] = report
        return 0

    return ioctl


def test_a_report_speaks_for_what_was_asked(device: Path) -> None:
    report = td_report(REPORT_DATA, device, ioctl=answering(minted(REPORT_DATA).pack()))
    assert report.body.report_data == REPORT_DATA


def test_an_answer_that_is_none_is_told(device: Path) -> None:
    with pytest.raises(MachineError, match="tdx_guest: no report: "):
        td_report(REPORT_DATA, device, ioctl=answering(bytes(1024)))
    with pytest.raises(MachineError, match="report speaks for other report_data than was asked"):
        td_report(REPORT_DATA, device, ioctl=answering(minted(bytes(64)).pack()))
    with pytest.raises(MachineError, match="report_data is 65 bytes, want 64"):
        td_report(bytes(65), device)


def test_a_machine_without_the_device_is_told(tmp_path: Path, device: Path) -> None:
    with pytest.raises(MachineError, match="absent: no such file or directory"):
        td_report(REPORT_DATA, tmp_path / "absent")
    with pytest.raises(MachineError, match="inappropriate ioctl for device"):
        td_report(REPORT_DATA, device)
