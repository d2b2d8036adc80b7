"""Loading weights as vLLM does, cold: its default iterator, its prefetch, and Run:ai's streamer where it installs."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from bench.fs import model
from bench.fs.mounts import Mounted, forget
from bench.fs.names import (
    COLD,
    DEBIAN,
    DEBIAN_RAISED,
    GOCRYPTFS,
    GOCRYPTFS_COLD,
    NEWEST,
    NEWEST_RAISED,
    PLAIN,
    SECUREFS,
    SPLICE,
    STREAM,
    WARM,
)
from bench.fs.options import Options
from bench.fs.ours import ROOT
from bench.fs.report import Part, Target
from bench.fs.stage import Place, staged
from bench.fs.trial import Round, in_turns
from strongroom.errors import MachineError
from strongroom.host.run import run, spawn

# Not rclone: a map of a file is what it is slowest at, by a factor of twenty.
SUBJECTS: Final = (
    PLAIN,
    SPLICE,
    DEBIAN,
    DEBIAN_RAISED,
    NEWEST,
    NEWEST_RAISED,
    SECUREFS,
    STREAM,
    COLD,
    WARM,
    GOCRYPTFS,
    GOCRYPTFS_COLD,
)
TARGETS: Final = (
    Target("default", COLD, NEWEST, 4.5),
    Target("default", COLD, NEWEST_RAISED, 3.5),
    Target("default", COLD, PLAIN, 0.9),
    Target("default", WARM, NEWEST, 15.0),
    Target("default", WARM, NEWEST_RAISED, 12.0),
    Target("default", WARM, PLAIN, 2.5),
    Target("default", STREAM, NEWEST, 1.6),
    Target("default", STREAM, NEWEST_RAISED, 1.5),
    Target("default", STREAM, PLAIN, 0.35),
    Target("default", GOCRYPTFS, NEWEST, 1.4),
    Target("default", GOCRYPTFS, NEWEST_RAISED, 1.3),
    Target("default", GOCRYPTFS_COLD, NEWEST, 3.0),
    Target("streamer", STREAM, NEWEST, 2.0),
    Target("streamer", STREAM, NEWEST_RAISED, 2.0),
    Target("streamer", STREAM, PLAIN, 0.8),
)
ENGINE: Final = ROOT / "build" / "engine" / "bin" / "python"
_STREAMER: Final = ("runai-model-streamer", "humanize")
_IMPORTS: Final = 180.0  # seconds


def measure(place: Place, options: Options) -> Part:
    plain = place.work / "plain"
    plain.mkdir()
    model.weights(plain / model.FILE, options.size)
    part = Part(
        "loader", f"a safetensors file of {options.size / 1e9:.2f} GB, every tensor copied", targets=TARGETS
    )
    with staged(place, plain, options.chosen(SUBJECTS)) as stage, _loading(place) as (channel, ways):
        for how in ways:

            def work(mounted: Mounted) -> Round:
                path = mounted.path / model.FILE
                if mounted.since is None:
                    forget(path)
                asked = {"how": how, "files": [str(path)], "since": mounted.since}  # noqa: B023 - sent at once
                done = _ask(channel, asked)
                return Round(done["bytes"], done["seconds"], done["cpu"])

            part.measured.append(
                in_turns(how, stage.subjects, work, rounds=options.rounds, memory=2 * options.size)
            )
        part.tell(stage)
    return part


@contextmanager
def _loading(place: Place) -> Iterator[tuple[IO[str], list[str]]]:
    """A process in the engine's environment that loads what it is asked to, and the ways it knows."""
    if not ENGINE.exists():
        raise MachineError(f"{ENGINE}: no engine, want ./setup.sh engine")
    ours, theirs = socket.socketpair()
    ours.settimeout(_IMPORTS)
    env = {"PYTHONPATH": str(_streamer(place.cache)), "HOME": str(place.work), "HF_HUB_OFFLINE": "1"}
    argv: list[str | Path] = [ENGINE, Path(__file__).with_name("load.py"), str(theirs.fileno())]
    log = place.work / "load.log"
    with (
        ours,
        theirs,
        log.open("wb") as file,
        spawn(argv, env=env, stdout=file, stderr=file, pass_fds=[theirs.fileno()]),
        ours.makefile("rw") as channel,
    ):
        theirs.close()
        yield channel, _answer(channel)["ways"]


def _ask(channel: IO[str], asked: dict[str, Any]) -> dict[str, Any]:
    channel.write(json.dumps(asked) + "\n")
    channel.flush()
    return _answer(channel)


def _answer(channel: IO[str]) -> dict[str, Any]:
    line = channel.readline()
    if not line:
        raise MachineError("loader: the process that loads has ended, want an answer")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise MachineError(f"loader: {answer['error']}")
    return answer


def _streamer(cache: Path) -> Path:
    """A folder with Run:ai's streamer for the engine's interpreter; empty where it does not install."""
    folder = cache / "streamer"
    if not folder.is_dir():
        pip: list[str | Path] = [
            ENGINE,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            folder,
            *_STREAMER,
        ]
        run(pip, timeout=300, check=False)
        folder.mkdir(exist_ok=True)
    return folder
