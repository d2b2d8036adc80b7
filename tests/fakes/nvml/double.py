"""A libnvidia-ml.so.1 that misbehaves on request, compiled by the test and called by the real nvidia-ml-py."""

import ctypes
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pynvml  # type: ignore[import-untyped]
import pytest

from strongroom.host.run import run
from tests import need

SOURCE: Final = Path(__file__).with_name("nvml.c")
NAME: Final = "libnvidia-ml.so.1"


def build(folder: Path, *, without: Sequence[str] = ()) -> Path:
    """The library, lacking the calls `without`: those of a driver older than they are."""
    need(shutil.which("cc"), "there is no C compiler")
    absent = [f"-D{name}=absent_{name}" for name in without]
    run(
        ["cc", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", *absent, SOURCE, "-o", folder / NAME]
    )
    return folder / NAME


class Double:
    """What a test says of the GPUs, and what was asked of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "state").touch()
        (folder / "calls").touch()

    def set(self, **values: int) -> None:
        with (self._folder / "state").open("a") as file:
            file.writelines(f"{key} {value}\n" for key, value in values.items())

    def device(self, index: int, *, report: bytes, chain: bytes) -> None:
        (self._folder / f"report{index}").write_bytes(report)
        (self._folder / f"chain{index}").write_bytes(chain)

    def note(self, call: str) -> None:
        """Put something that is no call of the library into the same order."""
        with (self._folder / "calls").open("a") as file:
            file.write(call + "\n")

    @property
    def calls(self) -> list[str]:
        """Every call in its order; of reports only which device was asked."""
        return [" ".join(line.split()[:2]) for line in self._lines()]

    @property
    def nonces(self) -> list[str]:
        return [line.split()[2] for line in self._lines() if line.startswith("report ")]

    def _lines(self) -> list[str]:
        return (self._folder / "calls").read_text().splitlines()


@contextmanager
def bound(library: Path, folder: Path) -> Iterator[Double]:
    """The real binding, calling `library` over a state in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NVML_DOUBLE", str(folder))
        patch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(library)))
        patch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        yield Double(folder)
