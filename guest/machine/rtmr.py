"""TDX's run-time measurement registers through sysfs: read, and extend the one that is the guest's.

Registers 0 to 2 belong to firmware, boot loader and kernel; extending one would leave nobody able to predict it. An
extension is read back: a kernel that shows the register but does not extend it must not pass for one that does.

Source: Linux Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest (6.16).
"""

import os
from hashlib import sha384
from pathlib import Path
from typing import Final

from strongroom.errors import MachineError

MEASUREMENTS: Final = Path("/sys/devices/virtual/misc/tdx_guest/measurements")
GUEST: Final = 3
COUNT: Final = 4
SIZE: Final = 48  # bytes, SHA-384


class RTMR:
    """The registers below one directory."""

    def __init__(self, measurements: Path = MEASUREMENTS) -> None:
        self._measurements = measurements

    def read(self, index: int) -> bytes:
        """The 48 bytes of a register."""
        path = self._path(index)
        try:
            value = path.read_bytes()
        except OSError as error:
            raise self._failure(index, error) from error
        if len(value) != SIZE:
            raise MachineError(f"rtmr {index}: {len(value)} bytes, want {SIZE}")
        return value

    def extend(self, digest: bytes, index: int = GUEST) -> None:
        """Replace the register by SHA-384(register || digest)."""
        if index != GUEST:
            raise MachineError(f"rtmr {index}: not the guest's to extend, want {GUEST}")
        if len(digest) != SIZE:
            raise MachineError(f"rtmr {index}: digest is {len(digest)} bytes, want {SIZE}")
        before = self.read(index)
        self._write(index, digest)
        if self.read(index) != sha384(before + digest).digest():
            raise MachineError(f"rtmr {index}: did not become the hash of itself and what it was extended by")

    def _write(self, index: int, digest: bytes) -> None:
        try:
            file = os.open(self._path(index), os.O_WRONLY | os.O_CLOEXEC)
            try:
                written = os.write(file, digest)  # one write at offset 0: the kernel takes no other
            finally:
                os.close(file)
        except OSError as error:
            raise self._failure(index, error) from error
        if written != SIZE:
            raise MachineError(f"rtmr {index}: took {written} bytes, want {SIZE}")

    def _path(self, index: int) -> Path:
        if not 0 <= index < COUNT:
            raise MachineError(f"rtmr: register is {index}, want 0..{COUNT - 1}")
        return self._measurements / f"rtmr{index}:sha384"

    def _failure(self, index: int, error: OSError) -> MachineError:
        if not self._measurements.is_dir():
            return MachineError(
                f"rtmr: {self._measurements} is missing, want Linux 6.16 or later in a TDX guest"
            )
        return MachineError(f"rtmr {index}: {(error.strerror or 'failed').lower()}")
