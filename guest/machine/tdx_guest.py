"""TDREPORTs through /dev/tdx_guest: what this trust domain is, told by the processor to itself.

A TDREPORT is no evidence for others: its MAC means something on the same processor alone, and only the host's quoting
service, behind configfs-tsm, makes a quote of it. So this replaces configfs-tsm for looking at oneself, nothing else.

Source: Linux include/uapi/linux/tdx-guest.h, Documentation/virt/coco/tdx-guest.rst.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from strongroom.errors import FormatError, MachineError
from strongroom.evidence.tdx import TDReport

DEVICE: Final = Path("/dev/tdx_guest")
TDX_CMD_GET_REPORT0: Final = 0xC4405401  # _IOWR('T', 1, struct { u8 reportdata[64]; u8 tdreport[1024]; })
REPORT_DATA_SIZE: Final = 64
REPORT_SIZE: Final = 1024

IOCtl = Callable[[int, int, bytearray], object]


def td_report(report_data: bytes, path: Path = DEVICE, *, ioctl: IOCtl = fcntl.ioctl) -> TDReport:
    """The TDREPORT over exactly `report_data` (64 bytes), or MachineError."""
    if len(report_data) != REPORT_DATA_SIZE:
        raise MachineError(f"tdx_guest: report_data is {len(report_data)} bytes, want {REPORT_DATA_SIZE}")
    request = bytearray(report_data + bytes(REPORT_SIZE))
    try:
        device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            ioctl(device, TDX_CMD_GET_REPORT0, request)
        finally:
            os.close(device)
        report = TDReport.parse(bytes(request[REPORT_DATA_SIZE:]))
    except OSError as error:
        raise MachineError(f"tdx_guest: {path}: {(error.strerror or 'failed').lower()}") from error
    except FormatError as error:
        raise MachineError(f"tdx_guest: no report: {error}") from error
    if report.body.report_data != report_data:
        raise MachineError("tdx_guest: report speaks for other report_data than was asked")
    return report
