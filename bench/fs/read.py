"""Reading one large file cold, in every way programs read."""

from typing import Final

from bench.fs import model
from bench.fs.mounts import Mounted, forget
from bench.fs.names import (
    COLD,
    EITHER,
    FUSE_IN_C,
    GOCRYPTFS,
    GOCRYPTFS_COLD,
    NEWEST,
    NEWEST_RAISED,
    NULL,
    PLAIN,
    RCLONE,
    SECUREFS,
    STREAM,
    WARM,
)
from bench.fs.options import Options
from bench.fs.readers import READERS
from bench.fs.report import Part, Target
from bench.fs.stage import Place, staged
from bench.fs.trial import Round, in_turns, timed

SUBJECTS: Final = (
    PLAIN,
    *FUSE_IN_C,
    *EITHER,
    SECUREFS,
    RCLONE,
    NULL,
    STREAM,
    COLD,
    WARM,
    GOCRYPTFS,
    GOCRYPTFS_COLD,
)
TARGETS: Final = (
    Target("seq", STREAM, NEWEST, 2.0),
    Target("seq", STREAM, NEWEST_RAISED, 1.2),
    Target("seq", STREAM, NULL, 0.9),
    Target("direct8", STREAM, NEWEST, 4.0),
    Target("direct8", STREAM, NEWEST_RAISED, 4.0),
    Target("direct8", GOCRYPTFS, NEWEST, 2.4),
    Target("direct8", GOCRYPTFS, NEWEST_RAISED, 2.4),
    Target("seq", STREAM, NEWEST, 0.4, "daemon CPU"),
    Target("seq", STREAM, NULL, 1.2, "daemon CPU"),
)
_RANDOM: Final = {"r4k", "r128k"}  # of a cold resident file they would time the decryption of all of it


def measure(place: Place, options: Options) -> Part:
    plain = place.work / "plain"
    plain.mkdir()
    model.weights(plain / model.FILE, options.size)
    part = Part(
        "read", f"one file of {options.size / 1e9:.2f} GB, volumes in {options.where}, cold", targets=TARGETS
    )
    with staged(place, plain, options.chosen(SUBJECTS)) as stage:
        for name, reader in READERS.items():

            def work(mounted: Mounted) -> Round:
                path = mounted.path / model.FILE
                if mounted.since is None:  # a fresh mount has nothing to forget, and its clock runs
                    forget(path)
                return timed(lambda: reader(path), mounted)  # noqa: B023 - run at once

            subjects = [
                subject
                for subject in stage.subjects
                if not (name in _RANDOM and subject.name in {COLD, GOCRYPTFS_COLD})
            ]
            part.measured.append(in_turns(name, subjects, work, rounds=options.rounds, memory=options.size))
        part.tell(stage)
    return part
