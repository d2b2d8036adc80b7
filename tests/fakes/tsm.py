"""The simulated report ABI at a real mount point, with one thing wrong.

`python -m tests.fakes.tsm MOUNT FAULT` prints "ready" when mounted. Faults are what a kernel, a driver or a
neighbour can do to a caller.
"""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from demo.silicon.entries import Attribute, Entries, _Entry, _File
from demo.silicon.mint import Silicon
from demo.silicon.tree import serve
from strongroom.host.run import PIPE, spawn
from tests import ROOT
from tests.fakes.intel import BODY, Platform
from tests.fakes.silicon import silicon


class Fault(Entries):
    """No fault: every report is right, and VMPL 1 answers without certificates."""

    def __init__(self, chip: Silicon) -> None:
        super().__init__(self.new_report)
        self.chip = chip
        self.certificates = chip.certificates()
        self.asked = 0

    def new_report(self, report_data: bytes, privlevel: int) -> tuple[bytes, bytes]:
        self.asked += 1
        aux = b"" if privlevel == 1 else self.certificates
        return self.chip.report(report_data, vmpl=privlevel), aux


class BusyTwice(Fault):
    def new_report(self, report_data: bytes, privlevel: int) -> tuple[bytes, bytes]:
        outblob, auxblob = super().new_report(report_data, privlevel)
        if self.asked < 3:
            raise OSError(errno.EBUSY, "")
        return outblob, auxblob


class Failing(Fault):
    number: int

    def new_report(self, report_data: bytes, privlevel: int) -> tuple[bytes, bytes]:
        raise OSError(self.number, "")


class AlwaysBusy(Failing):
    number = errno.EBUSY


class TooLarge(Failing):
    number = errno.EFBIG


class Withdrawn(Failing):
    number = errno.ENOTTY


class Odd(Failing):
    number = errno.EIO


class Unbound(Fault):
    def make(self, name: str) -> None:
        raise OSError(errno.ENXIO, "")


class Neighbour(Fault):
    """Someone else writes to the entry between our write and our read, once."""

    def _refresh(self, entry: _Entry) -> None:
        super()._refresh(entry)
        if self.asked == 1:
            entry.generation += 1


class TDX(Fault):
    """The provider of an Intel machine: a quote, and nothing beside it."""

    def new_report(self, report_data: bytes, privlevel: int) -> tuple[bytes, bytes]:
        platform = Platform(body=replace(BODY, report_data=report_data))
        return platform.quote().pack() + bytes(16), b""

    def _value(self, file: _File) -> bytes:
        return b"tdx_guest\n" if file.attribute is Attribute.PROVIDER else super()._value(file)


class TDXToken(TDX):
    """A platform that attests by DICE answers with a web token."""

    def new_report(self, report_data: bytes, privlevel: int) -> tuple[bytes, bytes]:
        return b"\xd2\x84" + bytes(12000), b""


class OtherProvider(Fault):
    def _value(self, file: _File) -> bytes:
        return b"arm_cca_guest\n" if file.attribute is Attribute.PROVIDER else super()._value(file)


class OddGeneration(Fault):
    def _value(self, file: _File) -> bytes:
        return b"many\n" if file.attribute is Attribute.GENERATION else super()._value(file)


class OtherReport(Fault):
    def new_report(self, report_data: bytes, privlevel: int) -> tuple[bytes, bytes]:
        return super().new_report(report_data[::-1], privlevel)


class Garbage(Fault):
    def new_report(self, report_data: bytes, privlevel: int) -> tuple[bytes, bytes]:
        return report_data, b""


class Endless(Fault):
    def new_report(self, report_data: bytes, privlevel: int) -> tuple[bytes, bytes]:
        return bytes(1 << 20), b""


FAULTS: Final[dict[str, Callable[[Silicon], Entries]]] = {
    fault.__name__: fault
    for fault in (
        Fault,
        BusyTwice,
        AlwaysBusy,
        TooLarge,
        Withdrawn,
        Odd,
        Unbound,
        TDX,
        TDXToken,
        Neighbour,
        OtherProvider,
        OddGeneration,
        OtherReport,
        Garbage,
        Endless,
    )
}


@contextmanager
def served(mount: Path, fault: str = "Fault") -> Iterator[Path]:
    """The mount point of a server that ends with the context."""
    argv: list[str | Path] = [sys.executable, "-m", "tests.fakes.tsm", mount, fault]
    with spawn(argv, cwd=ROOT, stdout=PIPE, env={"PYTHONDONTWRITEBYTECODE": "1"}) as child:
        assert child.line(60) == b"ready"
        yield mount


if __name__ == "__main__":
    serve(Path(sys.argv[1]), FAULTS[sys.argv[2]](silicon()), lambda: print("ready", flush=True))
