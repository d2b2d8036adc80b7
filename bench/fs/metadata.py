"""Many small files: listing them with their attributes, and reading each, with every cache of the machine dropped."""

import os
import stat
from pathlib import Path
from typing import Final

from bench.fs.mounts import Mounted, drop_caches
from bench.fs.names import DEBIAN, FUSE_IN_C, GOCRYPTFS, NEWEST, PLAIN, RCLONE, SECUREFS, STREAM, WARM
from bench.fs.options import Options
from bench.fs.report import Part, Target
from bench.fs.stage import Place, staged
from bench.fs.trial import Round, in_turns, timed

SUBJECTS: Final = (PLAIN, *FUSE_IN_C, DEBIAN, NEWEST, SECUREFS, RCLONE, STREAM, WARM, GOCRYPTFS)
TARGETS: Final = (Target("scan", STREAM, NEWEST, 1.5),)
_SIZE: Final = 4096  # bytes of each file
_BUFFER: Final = 128 << 10


def measure(place: Place, options: Options) -> Part:
    plain = place.work / "plain"
    plain.mkdir()
    for number in range(options.files):
        (plain / f"file-{number:06}").write_bytes(os.urandom(_SIZE))
    part = Part(
        "metadata",
        f"{options.files} files of {_SIZE} bytes in one folder; every cache dropped before each round",
        targets=TARGETS,
        unit="files/s",
        scale=1.0,
    )
    with staged(place, plain, options.chosen(SUBJECTS)) as stage:
        for name, act in {"scan": scan, "open and read": read_all}.items():

            def work(mounted: Mounted) -> Round:
                return timed(lambda: act(mounted.path), mounted)  # noqa: B023 - run at once

            part.measured.append(
                in_turns(name, stage.subjects, work, rounds=options.rounds, before=drop_caches)
            )
        part.tell(stage)
    return part


def scan(folder: Path) -> int:
    """scandir(3) and a stat(2) of every entry, folder by folder; gives the number of entries."""
    count, folders = 0, [folder]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
                    folders.append(Path(entry.path))
                count += 1
    return count


def read_all(folder: Path) -> int:
    """Every file opened, read from its beginning to its end and closed; gives their number."""
    buffer, count = bytearray(_BUFFER), 0
    for top, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = os.open(os.path.join(top, name), os.O_RDONLY)
            while os.readv(file, [buffer]) == _BUFFER:
                pass
            os.close(file)
            count += 1
    return count
