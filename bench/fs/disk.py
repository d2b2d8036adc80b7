"""The same file on a disk, with every cache of the machine dropped before each round."""

from typing import Final

from bench.fs import model
from bench.fs.mounts import Mounted, drop_caches
from bench.fs.names import COLD, GOCRYPTFS, NEWEST, NEWEST_RAISED, PLAIN, STREAM
from bench.fs.options import Options
from bench.fs.readers import READERS
from bench.fs.report import Part, Target
from bench.fs.stage import Place, staged
from bench.fs.trial import Round, in_turns, timed

SUBJECTS: Final = (PLAIN, NEWEST, NEWEST_RAISED, STREAM, COLD, GOCRYPTFS)
OPERATIONS: Final = ("seq", "mmap")
TARGETS: Final = (
    Target("seq", COLD, NEWEST, 3.0),
    Target("seq", COLD, NEWEST_RAISED, 2.0),
    Target("seq", COLD, PLAIN, 0.85),
)


def measure(place: Place, options: Options) -> Part:
    plain = place.work / "plain"
    plain.mkdir()
    model.weights(plain / model.FILE, options.size)
    part = Part(
        "disk",
        f"one file of {options.size / 1e9:.2f} GB on {options.disk}, all caches dropped",
        targets=TARGETS,
    )
    with staged(place, plain, options.chosen(SUBJECTS)) as stage:
        for name in OPERATIONS:

            def work(mounted: Mounted) -> Round:
                return timed(lambda: READERS[name](mounted.path / model.FILE), mounted)  # noqa: B023 - run at once

            measured = in_turns(
                name, stage.subjects, work, rounds=options.rounds, memory=options.size, before=drop_caches
            )
            part.measured.append(measured)
        part.tell(stage)
    return part
