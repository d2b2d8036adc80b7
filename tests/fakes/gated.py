"""The real daemon over plain files whose store answers only while a file called "gate" lies beside them.

`python -m tests.fakes.gated` takes the same credentials; root and epoch are not looked at.
"""

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecars.fs import __main__ as daemon
from sidecars.fs.config import VolumeConfig
from sidecars.fs.opening import Opened
from strongroom.errors import MachineError
from strongroom.host.stored import MAX_READ, Item
from strongroom.sealed.keys import Octets


class GatedReader:
    def __init__(self, descriptors: list[int], gate: Path) -> None:
        self._descriptors = descriptors
        self._gate = gate
        self._buffer = memoryview(bytearray(MAX_READ))

    def read(self, key: int, offset: int, size: int) -> memoryview:
        self.read_into(key, offset, self._buffer[:size])
        return self._buffer[:size]

    def read_into(self, key: int, offset: int, out: memoryview) -> None:
        while not self._gate.exists():
            time.sleep(0.01)
        if self._gate.read_bytes() == b"fail":
            raise MachineError("object 00: input/output error")
        os.preadv(self._descriptors[key], [out], offset)


class GatedSource:
    unit = 4096

    def __init__(self, top: Path) -> None:
        paths = sorted(path for path in top.iterdir() if path.name != "gate")
        self._gate = top / "gate"
        self._descriptors = [os.open(path, os.O_RDONLY) for path in paths]
        self.items = tuple(
            Item(path=path.name.encode(), mode=stat.S_IFREG | 0o644, size=path.stat().st_size, key=key)
            for key, path in enumerate(paths)
        )

    def reader(self) -> GatedReader:
        return GatedReader(self._descriptors, self._gate)


@contextmanager
def open_gated(config: VolumeConfig, _: Octets) -> Iterator[Opened]:
    yield Opened(GatedSource(config.source), "gated")


if __name__ == "__main__":
    vars(daemon)["open_volume"] = open_gated
    sys.exit(daemon.main())
