"""How sealing, mounting and reading grow: with the size of one file, and with the number of files. On a disk.

What should stay flat is the cost of a gigabyte, and of a file.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.fs import model, ours
from bench.fs.daemon import Memory
from bench.fs.metadata import read_all, scan
from bench.fs.mounts import drop_caches
from bench.fs.options import Options
from bench.fs.readers import sequential
from bench.fs.report import Part
from bench.fs.stage import Place
from strongroom.cli.terminal import table
from strongroom.errors import StrongroomError

SIZES: Final = (1.0, 4.0, 16.0)  # GB of one file
COUNTS: Final = (10, 1_000, 100_000)  # files
INLINE: Final = 1_000  # bytes of a file that lies in the manifest
OBJECT: Final = 70_000  # bytes of one that is an object of its own
_QUICK_SIZES: Final = (0.05, 0.2, 0.8)
_QUICK_COUNTS: Final = (10, 100, 1_000)


@dataclass(frozen=True, slots=True)
class Grown:
    """Seconds and bytes of one size: of the command that seals, of the daemon until it is ready and after reading."""

    seal: ours.Sealing
    ready: float
    acts: dict[str, float]  # seconds of each
    memory: Memory


def measure(place: Place, options: Options) -> Part:
    part = Part("growth", f"on {options.disk}, every cache dropped before each figure; one round")
    sizes, counts = (_QUICK_SIZES, _QUICK_COUNTS) if options.quick else (SIZES, COUNTS)
    _sizes(place.below("sizes"), sizes, part)
    for kind, size in (("small files, kept in the manifest", INLINE), ("objects", OBJECT)):
        _counts(place.below(kind.partition(" ")[0]), kind, size, counts, part)
    return part


def _sizes(place: Place, sizes: Sequence[float], part: Part) -> None:
    rows: list[tuple[str, ...]] = [
        ("one file", "seal s/GB", "sealer MB", "mount s", "read s/GB", "daemon MB")
    ]
    part.extra["sizes"] = {}
    for gigabytes in sizes:
        size = int(gigabytes * 1e9)
        grown = _grown(
            place,
            part,
            partial(_make_one, size=size),
            {"read": _read_one},
        )
        if grown is not None:
            rows.append(
                (
                    f"{gigabytes:g} GB",
                    f"{grown.seal.seconds / gigabytes:.2f}",
                    f"{grown.seal.memory / 1e6:.0f}",
                    f"{grown.ready:.2f}",
                    f"{grown.acts['read'] / gigabytes:.2f}",
                    f"{grown.memory.proportional / 1e6:.0f}",
                )
            )
            part.extra["sizes"][f"{gigabytes:g}"] = _json(grown)
    part.notes.append(table(rows))


def _counts(place: Place, kind: str, size: int, counts: Sequence[int], part: Part) -> None:
    rows: list[tuple[str, ...]] = [
        (kind, "seal us/file", "sealer MB", "mount us/file", "scan us/file", "read us/file", "daemon MB")
    ]
    part.extra[kind] = {}
    for count in counts:
        grown = _grown(
            place,
            part,
            partial(_make, count=count, size=size),
            {"scan": scan, "read": read_all},
        )
        if grown is not None:
            seconds = (grown.seal.seconds, grown.ready, grown.acts["scan"], grown.acts["read"])
            seal, ready, scanned, read = (f"{value / count * 1e6:.0f}" for value in seconds)
            memory = f"{grown.seal.memory / 1e6:.0f}", f"{grown.memory.proportional / 1e6:.0f}"
            rows.append((f"{count:,}", seal, memory[0], ready, scanned, read, memory[1]))
            part.extra[kind][str(count)] = _json(grown)
    part.notes.append(table(rows))


def _grown(
    place: Place, part: Part, make: Callable[[Path], None], acts: dict[str, Callable[[Path], int]]
) -> Grown | None:
    """None, with a note, when it cannot be sealed or served at that size."""
    plain, sealed, point = (place.work / name for name in ("plain", "sealed", "mount"))
    plain.mkdir()
    try:
        make(plain)
        drop_caches()
        volume, sealing = ours.seal_watched(plain, sealed)
        shutil.rmtree(plain)  # room for what is measured next
        drop_caches()
        seconds = {}
        begun = time.monotonic()
        with ours.stream(volume, point) as mounted:
            ready = time.monotonic() - begun
            for name, act in acts.items():
                drop_caches()
                begun = time.monotonic()
                act(point)
                seconds[name] = time.monotonic() - begun
            memory = mounted.daemon.memory() if mounted.daemon else Memory((), 0)
        return Grown(sealing, ready, seconds, memory)
    except (StrongroomError, OSError) as error:
        part.notes.append(f"not measured: {error}")
        print(f"bench-fs: growth: {error}", file=sys.stderr, flush=True)
        return None
    finally:
        for folder in (plain, sealed):
            shutil.rmtree(folder, ignore_errors=True)


def _read_one(folder: Path) -> int:
    return sequential(folder / model.FILE, most=float("inf"))


def _make_one(plain: Path, size: int) -> None:
    model.weights(plain / model.FILE, size)


def _make(plain: Path, count: int, size: int) -> None:
    """Folders of 1000 files, every one its own content."""
    body = os.urandom(size - 8)
    for number in range(count):
        folder = plain / f"folder-{number // 1000:03}"
        if number % 1000 == 0:
            folder.mkdir()
        (folder / f"file-{number:06}").write_bytes(number.to_bytes(8, "big") + body)


def _json(grown: Grown) -> dict[str, Any]:
    return {
        "seal_s": round(grown.seal.seconds, 3),
        "sealer_bytes": grown.seal.memory,
        "ready_s": round(grown.ready, 3),
        **{f"{name}_s": round(value, 4) for name, value in grown.acts.items()},
        "daemon_bytes": grown.memory.proportional,
    }
