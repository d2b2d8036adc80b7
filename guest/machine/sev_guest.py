"""SNP reports through /dev/sev-guest, for kernels without configfs-tsm (before 6.7).

The report and the host's certificates come from one extended request. The driver spaces requests out by itself; one it
has no time for is asked again.

Source: Linux include/uapi/linux/sev-guest.h, Documentation/virt/coco/sev-guest.rst.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable
from ctypes import Structure, addressof, c_uint8, c_uint32, c_uint64, create_string_buffer, sizeof
from pathlib import Path
from typing import Final

from guest.machine.tsm import REPORT_DATA_SIZE, TSM, Silicon, TSMReport, check
from strongroom.errors import MachineError
from strongroom.evidence import snp
from strongroom.wire.reader import Reader

DEVICE: Final = Path("/dev/sev-guest")
SNP_GET_EXT_REPORT: Final = 0xC0205302  # _IOWR('S', 2, struct snp_guest_request_ioctl)
MAX_CERTIFICATES: Final = 0x4000  # bytes, whole pages: the driver takes no more
_RESPONSE: Final = 4000  # bytes: status u32, report size u32, 24 reserved, report
_MSG_VERSION: Final = 1
_VMM_LENGTH, _VMM_BUSY = 1, 2
_PASSING: Final = {errno.EBUSY, errno.EINTR, errno.EAGAIN}
_PAUSE: Final = 0.05  # seconds between attempts


class ReportRequest(Structure):
    _fields_ = (("user_data", c_uint8 * 64), ("vmpl", c_uint32), ("reserved", c_uint8 * 28))


class ExtendedRequest(Structure):
    _fields_ = (("report", ReportRequest), ("certs_address", c_uint64), ("certs_len", c_uint32))


class GuestRequest(Structure):
    _fields_ = (
        ("msg_version", c_uint8),
        ("req_data", c_uint64),
        ("resp_data", c_uint64),
        ("fw_error", c_uint32),
        ("vmm_error", c_uint32),
    )


IOCtl = Callable[[int, int, Structure], object]


class SEVGuest:
    """The device. Blocking, and safe from several threads: the driver takes one request at a time."""

    def __init__(
        self,
        path: Path = DEVICE,
        *,
        deadline: float = 30.0,
        ioctl: IOCtl = fcntl.ioctl,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path, self._ioctl = path, ioctl
        self._deadline = deadline  # seconds for one report, attempts and pauses together
        self._clock, self._sleep = clock, sleep

    def report(self, report_data: bytes, *, privlevel: int | None = None) -> TSMReport:
        """A fresh report over exactly `report_data` (64 bytes), from VMPL `privlevel` or 0. Raises MachineError."""
        if len(report_data) != REPORT_DATA_SIZE:
            raise MachineError(f"sev-guest: report_data is {len(report_data)} bytes, want {REPORT_DATA_SIZE}")
        until = self._clock() + self._deadline
        while True:
            try:
                return self._attempt(report_data, privlevel or 0)
            except _BusyError as error:
                if self._clock() + _PAUSE > until:
                    raise MachineError(
                        f"sev-guest: busy, and no report within {self._deadline:g} s"
                    ) from error
            self._sleep(_PAUSE)

    def _attempt(self, report_data: bytes, vmpl: int) -> TSMReport:
        response, certificates = create_string_buffer(_RESPONSE), create_string_buffer(MAX_CERTIFICATES)
        request = ExtendedRequest(
            report=ReportRequest(user_data=(c_uint8 * 64)(*report_data), vmpl=vmpl),
            certs_address=addressof(certificates),
            certs_len=sizeof(certificates),
        )
        call = GuestRequest(
            msg_version=_MSG_VERSION, req_data=addressof(request), resp_data=addressof(response)
        )
        try:
            device = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._ioctl(device, SNP_GET_EXT_REPORT, call)
            finally:
                os.close(device)
        except OSError as error:
            raise self._failure(error, call, request.certs_len) from error
        outblob = _report(response.raw)
        check(outblob, report_data, "sev_guest")
        return TSMReport(outblob, _used(certificates.raw), "sev_guest")

    def _failure(self, error: OSError, call: GuestRequest, certs_len: int) -> Exception:
        if call.vmm_error == _VMM_LENGTH:
            return MachineError(
                f"sev-guest: certificates of {certs_len} bytes, want at most {MAX_CERTIFICATES}"
            )
        if error.errno in _PASSING or call.vmm_error == _VMM_BUSY:
            return _BusyError()
        if call.fw_error:
            return MachineError(f"sev-guest: firmware error 0x{call.fw_error:x}")
        return MachineError(f"sev-guest: {self._path}: {(error.strerror or 'failed').lower()}")


class _BusyError(Exception):
    """The host or the driver has no time for us now."""


def silicon(tsm: Path, device: Path = DEVICE) -> Silicon:
    """What makes reports on this machine: configfs-tsm, else the device where there is one."""
    return SEVGuest(device) if device.exists() and not tsm.is_dir() else TSM(tsm)


def _report(response: bytes) -> bytes:
    reader = Reader(response, "sev-guest response")
    status, size = reader.u32le(), reader.u32le()
    reader.take(24)
    if status or size != snp.SIZE:
        raise MachineError(f"sev-guest: status 0x{status:x}, {size} bytes, want 0x0 and {snp.SIZE}")
    return reader.take(size)


def _used(table: bytes) -> bytes:
    """The certificate table without the unused end of its buffer; empty when the host put nothing there."""
    reader, end = Reader(table, "sev-guest certificates"), 0
    while reader.remaining:
        guid, offset, length = reader.take(16), reader.u32le(), reader.u32le()
        if not any(guid):
            break
        end = max(end, offset + length)
    return table[:end]
