"""What daemons keep in memory after one reader, and after 64 at once."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from bench.fs import model
from bench.fs.daemon import Memory
from bench.fs.mounts import forget
from bench.fs.names import DEBIAN, GOCRYPTFS, NEWEST, RCLONE, SECUREFS, SPLICE, STREAM, WARM
from bench.fs.options import Options
from bench.fs.readers import MIB, sequential
from bench.fs.report import Part
from bench.fs.stage import Place, staged
from strongroom.cli.terminal import table

SUBJECTS: Final = (SPLICE, DEBIAN, NEWEST, SECUREFS, RCLONE, STREAM, WARM, GOCRYPTFS)
READERS: Final = 64
MOST: Final = 30e6  # bytes a worker of ours may have resident


def measure(place: Place, options: Options) -> Part:
    plain = place.work / "plain"
    plain.mkdir()
    model.weights(plain / model.FILE, options.size)
    part = Part("memory", f"of every process of a daemon, in MB, a file of {options.size / 1e9:.2f} GB")
    rows: list[tuple[str, ...]] = [
        ("", "processes", "largest", "together", f"largest, {READERS} readers", "together")
    ]
    with staged(place, plain, options.chosen(SUBJECTS)) as stage:
        for name, mounted in stage.daemons.items():
            if mounted.daemon is None:
                continue
            path = mounted.path / model.FILE
            sequential(path)
            one = mounted.daemon.memory()
            forget(path)
            _together(path, READERS)
            many = mounted.daemon.memory()
            rows.append((name, str(len(many.peaks)), *_cells(one), *_cells(many)))
            part.extra[name] = {"one_reader": _json(one), f"{READERS}_readers": _json(many)}
        part.tell(stage)
    part.notes.insert(0, table(rows))
    part.notes.insert(1, "largest: most one process ever had resident; together: a shared page counted once")
    if (measured := part.extra.get(STREAM)) is not None:
        peak = measured[f"{READERS}_readers"]["worker"]
        word = "met" if peak <= MOST else "MISSED"
        part.notes.insert(2, f"worker memory: {peak / 1e6:.1f} MB, at most {MOST / 1e6:.0f}: {word}")
        part.extra["worker_memory"] = {"bytes": peak, "target": MOST, "met": peak <= MOST}
    return part


def _together(path: Path, count: int) -> None:
    """Each thread reads its own stretch of the file, through a descriptor of its own."""
    size = path.stat().st_size
    stretch = size // count

    def read(number: int) -> None:
        buffer, file = bytearray(MIB), os.open(path, os.O_RDONLY)
        try:
            for offset in range(number * stretch, (number + 1) * stretch, MIB):
                os.preadv(file, [buffer], offset)
        finally:
            os.close(file)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(read, range(count)))


def _cells(memory: Memory) -> tuple[str, str]:
    return f"{memory.largest / 1e6:.1f}", f"{memory.proportional / 1e6:.1f}"


def _json(memory: Memory) -> dict[str, Any]:
    return {
        "largest": memory.largest,
        "worker": memory.worker,
        "together": memory.proportional,
        "processes": list(memory.peaks),
    }
