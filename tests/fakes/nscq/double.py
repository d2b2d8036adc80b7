"""A libnvidia-nscq.so.2 that misbehaves on request, compiled by the test and called through the real facade."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from guest.machine import nscq
from strongroom.host.run import run
from tests import need

SOURCE: Final = Path(__file__).with_name("nscq.c")
VERSION: Final = "610.43.02"  # of the driver's double


def build(folder: Path, *, version: str = VERSION, without: Sequence[str] = ()) -> Path:
    """The library under its soname, which leads to a file named after its version; it lacks the calls `without`."""
    need(shutil.which("cc"), "there is no C compiler")
    absent = [f"-D{name}=absent_{name}" for name in without]
    file, name = folder / f"libnvidia-nscq.so.{version}", folder / nscq.LIBRARY
    run(["cc", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", *absent, SOURCE, "-o", file])
    name.symlink_to(file.name)
    return name


class Double:
    """What a test says of the switches, and what was asked of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "state").touch()
        (folder / "calls").touch()

    def set(self, **values: int) -> None:
        with (self._folder / "state").open("a") as file:
            file.writelines(f"{key} {value}\n" for key, value in values.items())

    def switch(self, index: int, *, report: bytes, chain: bytes) -> None:
        (self._folder / f"report{index}").write_bytes(report)
        (self._folder / f"chain{index}").write_bytes(chain)

    @property
    def calls(self) -> list[str]:
        return (self._folder / "calls").read_text().splitlines()


@contextmanager
def bound(library: Path, folder: Path) -> Iterator[Double]:
    """The facade, calling `library` over a state in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NSCQ_DOUBLE", str(folder))
        patch.setattr(nscq, "LIBRARY", str(library))
        yield Double(folder)
