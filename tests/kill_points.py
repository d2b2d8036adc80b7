"""`python -m tests.kill_points`: a seal, an update and a rekey ended at every system call that changes the disk.

Each run is a process of its own. At its n-th such call it is killed (SIGKILL, before the call), or the call fails with
EIO. Then what must hold is looked at: whoever has the keys on disk opens the old tree or the new one, whole; and a seal
that was cut is completed by --resume. `--step N` tries every N-th call alone.
"""

import argparse
import errno
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from strongroom.broker.resource import VolumeKey
from strongroom.cli import check, prune, rekey, seal
from strongroom.cli.main import main as strongroom
from strongroom.cli.terminal import table
from strongroom.errors import StrongroomError
from strongroom.host.sealed import settling
from tests.fakes.sealed import CHUNK, make_source, pattern
from tests.unit.sealed.test_by_hand import read_tree

CALLS: Final = ("fsync", "ftruncate", "mkdir", "open", "pwritev", "rename", "rmdir", "unlink", "write")
VERBS: Final = (check, prune, rekey, seal)  # loaded before the first fork
_RAN_OUT: Final = 77  # exit status of a run with fewer calls than asked for

OLD: Final = "old.key"
NEW: Final = "new.key"
SEAL: Final = ("seal", "model", "sealed", "--name", "m", "--chunk-kib", "64", "--workers", "1")
Contents = dict[str, bytes]


@dataclass(frozen=True)
class Scenario:
    """A command, the tree before it, and whether the same command with --resume completes it."""

    name: str
    argv: tuple[str, ...]
    over_a_tree: bool
    resumable: bool


SCENARIOS: Final = (
    Scenario("seal", (*SEAL, "--epoch", "2", "--key-out", NEW), over_a_tree=False, resumable=True),
    Scenario(
        "update",
        (*SEAL, "--update", "--key", OLD, "--epoch", "2", "--key-out", NEW),
        over_a_tree=True,
        resumable=True,
    ),
    Scenario(
        "update, prune",
        (*SEAL, "--update", "--key", OLD, "--epoch", "2", "--key-out", NEW, "--prune"),
        over_a_tree=True,
        resumable=True,
    ),
    Scenario(
        "rekey",
        ("rekey", "sealed", "--key", OLD, "--epoch", "2", "--key-out", NEW),
        over_a_tree=True,
        resumable=True,
    ),
)


@dataclass
class Ended:
    """What came of one scenario ended in one way at every call."""

    scenario: str
    way: str
    calls: int = 0
    old: int = 0  # times the old tree was there
    new: int = 0  # times the new one was
    neither: int = 0  # times no tree was there, as before the command
    resumed: int = 0
    wrong: list[str] = field(default_factory=list)


def sweep(scenario: Scenario, way: str, folder: Path, step: int = 1) -> Ended:
    """Every `step`-th call of the scenario; `folder` is empty and stays so. `way` is "killed" or "failed"."""
    ended, point = Ended(scenario.name, way), 0
    while True:
        at = folder / f"{point}"
        before, after = _lay_out(at, scenario)
        status = _run_child(at, scenario.argv, _Ending(point, way))
        if status == _RAN_OUT:
            shutil.rmtree(at)
            return ended
        ended.calls += 1
        _look(at, scenario, before, after, ended, f"{scenario.name}, {way} at call {point}")
        shutil.rmtree(at)
        point += step


def _lay_out(at: Path, scenario: Scenario) -> tuple[Contents, Contents]:
    """The model and, for what goes over a tree, that tree under OLD; what it holds before and after."""
    at.mkdir()
    before = make_source(at / "model")
    if scenario.over_a_tree:
        assert _run_child(at, (*SEAL, "--epoch", "1", "--key-out", OLD)) == 0
    if scenario.name == "rekey":
        return before, before
    (at / "model" / "exact.bin").write_bytes(pattern(2 * CHUNK + 1, 9))
    (at / "model" / "new.bin").write_bytes(pattern(CHUNK, 10))
    (at / "model" / "model-1.safetensors").unlink()
    (at / "model" / "latest").unlink()
    after = {str(path.relative_to(at / "model")): path.read_bytes() for path in _files(at / "model")}
    return (before if scenario.over_a_tree else {}), after


def _look(at: Path, scenario: Scenario, before: Contents, after: Contents, ended: Ended, where: str) -> None:
    found = _opened(at)
    if found == after and (at / NEW).exists() and _held(at, NEW) == after:
        ended.new += 1
    elif scenario.over_a_tree and found == before:
        ended.old += 1
    elif not scenario.over_a_tree and not (at / "sealed" / "MANIFEST").exists():
        ended.neither += 1
    else:
        ended.wrong.append(f"{where}: no key on disk opens a whole tree")
        return
    if scenario.resumable:
        status = _run_child(at, (*scenario.argv, "--resume"))
        if status != 0 or _held(at, NEW) != after or (at / "sealed" / "JOURNAL").exists():
            ended.wrong.append(f"{where}: --resume ended with {status}")
        else:
            ended.resumed += 1


def _opened(at: Path) -> Contents | None:
    """What the tree holds for whoever has the key files."""
    for name in (OLD, NEW):
        if (held := _held(at, name)) is not None:
            return held
    return None


def _held(at: Path, name: str) -> Contents | None:
    with suppress(StrongroomError, OSError, AssertionError, KeyError):
        volume = VolumeKey.parse((at / name).read_bytes())
        return read_tree(at / "sealed", volume.key)
    return None


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


class _Ending:
    """Ends a process at its n-th call that changes the disk, counted from 0."""

    def __init__(self, point: int, way: str) -> None:
        self._left = point
        self._way = way

    @property
    def reached(self) -> bool:
        return self._left < 0

    def arm(self) -> None:
        for name in CALLS:
            setattr(os, name, self._around(getattr(os, name)))
        vars(settling)["sync_file_system"] = self._around(settling.sync_file_system)

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def ending(*args: Any, **options: Any) -> Any:
            if call.__name__ == "open" and not args[1] & (os.O_CREAT | os.O_WRONLY):
                return call(*args, **options)  # it changes nothing
            self._left -= 1
            if self._left == -1:
                if self._way == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return call(*args, **options)

        return ending


def _run_child(at: Path, argv: tuple[str, ...], ending: _Ending | None = None) -> int:
    """Exit status of the command in a process of its own, minus the signal that ended it."""
    if (child := os.fork()) == 0:
        _be_child(at, argv, ending)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _be_child(at: Path, argv: tuple[str, ...], ending: _Ending | None) -> NoReturn:
    status = 1
    try:
        os.chdir(at)
        silence = os.open(os.devnull, os.O_WRONLY)
        for fd in (1, 2):
            os.dup2(silence, fd)
        if ending is not None:
            ending.arm()
        status = strongroom(argv)
        if ending is not None and not ending.reached:
            status = _RAN_OUT
    finally:
        os._exit(status)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="kill_points", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--step", type=int, default=1, metavar="N", help="try every N-th call alone (1: all)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        done = [
            sweep(scenario, way, Path(folder), args.step)
            for scenario in SCENARIOS
            for way in ("killed", "failed")
        ]
    rows = [
        (
            one.scenario,
            one.way,
            *map(str, (one.calls, one.old, one.new, one.neither, one.resumed, len(one.wrong))),
        )
        for one in done
    ]
    print(
        table([("command", "ended", "times", "old tree", "new tree", "no tree", "resumed", "wrong"), *rows])
    )
    wrong = [sentence for one in done for sentence in one.wrong]
    print("\n".join(wrong[:20]), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
