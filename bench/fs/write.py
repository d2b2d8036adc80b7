"""Writing to volumes that can be written: a large file, blocks at random, many small files. All of them in memory."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.fs.mounts import Mounted
from bench.fs.names import DEBIAN, FUSE_IN_C, GOCRYPTFS_LIVE, NEWEST, PLAIN, RCLONE, SECUREFS
from bench.fs.options import Options
from bench.fs.report import Part
from bench.fs.stage import Place, staged
from bench.fs.trial import Round, in_turns, timed

SUBJECTS: Final = (PLAIN, *FUSE_IN_C, DEBIAN, NEWEST, SECUREFS, RCLONE, GOCRYPTFS_LIVE)
_MIB: Final = 1 << 20
_BLOCK: Final = 4096
_SEED: Final = 128
_LARGE: Final = "large"


def measure(place: Place, options: Options) -> Part:
    plain = place.work / "plain"
    plain.mkdir()
    (plain / "seed").write_bytes(b"1")  # a volume is made from something
    large, blocks, files = (32, 500, 100) if options.quick else (512, 4000, 1000)
    acts: dict[str, Callable[[Path], int]] = {
        "seq": lambda folder: _sequential(folder, large),
        "random 4k": lambda folder: _random(folder, blocks),
        "create and unlink": lambda folder: _create_and_unlink(folder, files),
    }
    part = Part(
        "write",
        f"{large} MiB by 1 MiB and fsync; {blocks} random blocks of 4 KiB in it and fsync; {files} files of 4 KiB made"
        " and removed; in MB of content",
    )
    with staged(place, plain, options.chosen(SUBJECTS)) as stage:
        for name, act in acts.items():

            def work(mounted: Mounted) -> Round:
                return timed(lambda: act(mounted.path), mounted)  # noqa: B023 - run at once

            part.measured.append(in_turns(name, stage.subjects, work, rounds=options.rounds))
        part.tell(stage)
    return part


def _sequential(folder: Path, count: int) -> int:
    """A new file each time; the last one stays, for _random()."""
    (folder / _LARGE).unlink(missing_ok=True)
    block = os.urandom(_MIB)
    with (folder / _LARGE).open("wb", buffering=0) as file:
        for _ in range(count):
            file.write(block)
        os.fsync(file.fileno())
    return count * _MIB


def _random(folder: Path, count: int) -> int:
    block = os.urandom(_BLOCK)
    with (folder / _LARGE).open("r+b", buffering=0) as file:
        places = range(os.fstat(file.fileno()).st_size // _BLOCK)
        for place in random.Random(_SEED).sample(places, count):
            os.pwrite(file.fileno(), block, place * _BLOCK)
        os.fsync(file.fileno())
    return count * _BLOCK


def _create_and_unlink(folder: Path, count: int) -> int:
    block = os.urandom(_BLOCK)
    made = [folder / f"small-{number}" for number in range(count)]
    for path in made:
        path.write_bytes(block)
    for path in made:
        path.unlink()
    return count * _BLOCK
