"""Mirrors guest/machine/sev_guest.py: a driver in Python, behind the very structures that the kernel reads."""

import ctypes
import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from guest.machine import sev_guest
from guest.machine.sev_guest import SNP_GET_EXT_REPORT, ExtendedRequest, GuestRequest, SEVGuest, silicon
from guest.machine.tsm import TSM
from strongroom.errors import MachineError
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from tests.fakes.silicon import silicon as chip

REPORT_DATA = bytes(range(64))


class Driver:
    """What the kernel does with the request; a test changes one thing."""

    def __init__(self) -> None:
        self.certificates = chip().certificates()
        self.head = (0).to_bytes(4, "little") + (1184).to_bytes(4, "little") + bytes(24)
        self.failures: list[tuple[int, int, int]] = []  # errno, firmware error, hypervisor error
        self.change: Callable[[bytes], bytes] = lambda report_data: report_data
        self.asked = 0

    def __call__(self, file: int, number: int, call: ctypes.Structure) -> int:
        assert isinstance(call, GuestRequest)
        assert (number, call.msg_version, ctypes.sizeof(call)) == (SNP_GET_EXT_REPORT, 1, 32)
        self.asked += 1
        request = ExtendedRequest.from_address(call.req_data)
        assert request.certs_len % 4096 == 0 and not any(request.report.reserved)
        if self.failures:
            number, call.fw_error, call.vmm_error = self.failures.pop(0)
            request.certs_len = 0x6000
            raise OSError(number, "Input/output error")
        report_data = self.change(bytes(request.report.user_data))
        answer = self.head + chip().report(report_data, vmpl=request.report.vmpl)
        ctypes.memmove(call.resp_data, answer, len(answer))
        ctypes.memmove(request.certs_address, self.certificates, len(self.certificates))
        return 0


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def device(driver: Driver, tmp_path: Path) -> SEVGuest:
    (tmp_path / "sev-guest").touch()
    now = [0.0]
    return SEVGuest(
        tmp_path / "sev-guest",
        deadline=1.0,
        ioctl=driver,
        clock=lambda: now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
    )


def test_the_numbers_are_the_kernels() -> None:
    assert ctypes.sizeof(ExtendedRequest) == 112
    made = 3 << 30 | ctypes.sizeof(GuestRequest) << 16 | ord("S") << 8 | 2
    assert made == SNP_GET_EXT_REPORT
    assert GuestRequest.vmm_error.offset == GuestRequest.fw_error.offset + 4 == 28


@pytest.mark.parametrize("vmpl", [None, 0, 2])
def test_a_report_speaks_for_what_was_asked(device: SEVGuest, driver: Driver, vmpl: int | None) -> None:
    made = device.report(REPORT_DATA, privlevel=vmpl)
    report = SNPReport.parse(made.outblob)
    assert (report.report_data, report.vmpl) == (REPORT_DATA, vmpl or 0)
    assert made.auxblob == driver.certificates and made.tee == "snp"
    assert CertificateTable.parse(made.auxblob).vcek is not None


def test_a_host_without_certificates_gives_none(device: SEVGuest, driver: Driver) -> None:
    driver.certificates = b""
    assert device.report(REPORT_DATA).auxblob == b""


@pytest.mark.parametrize("failure", [(errno.EBUSY, 0, 0), (errno.EIO, 0, 2), (errno.EINTR, 0, 0)])
def test_a_busy_host_is_asked_again(device: SEVGuest, driver: Driver, failure: tuple[int, int, int]) -> None:
    driver.failures = [failure] * 3
    assert SNPReport.parse(device.report(REPORT_DATA).outblob).report_data == REPORT_DATA
    assert driver.asked == 4
    driver.failures = [failure] * 100
    with pytest.raises(MachineError, match="sev-guest: busy, and no report within 1 s"):
        device.report(REPORT_DATA)


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        ((errno.EIO, 0, 1), "certificates of 24576 bytes, want at most 16384"),
        ((errno.EIO, 0x16, 0), "firmware error 0x16"),
        ((errno.ENOTTY, 0, 0), "sev-guest: input/output error"),
    ],
)
def test_a_refusal_is_told(device: SEVGuest, driver: Driver, failure: tuple[int, int, int], why: str) -> None:
    driver.failures = [failure]
    with pytest.raises(MachineError, match=why):
        device.report(REPORT_DATA)
    assert driver.asked == 1


def test_an_answer_that_is_none_is_told(device: SEVGuest, driver: Driver) -> None:
    driver.change = lambda report_data: report_data[::-1]
    with pytest.raises(MachineError, match="report speaks for other report_data"):
        device.report(REPORT_DATA)
    for head, why in (((0x16, 1184), "status 0x16, 1184 bytes"), ((0, 1183), "status 0x0, 1183 bytes")):
        driver.head = b"".join(n.to_bytes(4, "little") for n in head) + bytes(24)
        with pytest.raises(MachineError, match=why):
            device.report(REPORT_DATA)


def test_only_64_bytes_are_report_data(device: SEVGuest) -> None:
    with pytest.raises(MachineError, match="report_data is 63 bytes, want 64"):
        device.report(bytes(63))


def test_a_machine_without_the_device_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="absent: no such file or directory"):
        SEVGuest(tmp_path / "absent").report(REPORT_DATA)
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="file: inappropriate ioctl for device"):
        SEVGuest(tmp_path / "file").report(REPORT_DATA)


def test_configfs_comes_first(tmp_path: Path) -> None:
    device, tsm = tmp_path / "sev-guest", tmp_path / "report"
    assert isinstance(silicon(tsm, device), TSM)
    device.touch()
    assert isinstance(silicon(tsm, device), sev_guest.SEVGuest)
    tsm.mkdir()
    assert isinstance(silicon(tsm, device), TSM)
