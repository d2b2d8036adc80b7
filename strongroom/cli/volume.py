"""How a verb is given a sealed tree: the directory, and the file with its key."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from strongroom.broker.resource import VolumeKey
from strongroom.cli.progress import Progress
from strongroom.errors import ConfigError, FormatError
from strongroom.host.sealed.crew import Progress as Show
from strongroom.host.sealed.keyfile import read_volume_key
from strongroom.host.sealed.tree import SealedStore
from strongroom.sealed.header import MAX_EPOCH
from strongroom.sealed.manifest import check_name

KEY_HELP: Final = 'file of mode 0600 with the volume key, or "-" for standard input'


def add_volume(parser: Any) -> None:
    parser.add_argument("sealed", metavar="SEALED", type=Path, help="directory that `strongroom seal` made")
    parser.add_argument("--key", required=True, metavar="FILE", type=Path, help=KEY_HELP)


@contextmanager
def opened(sealed: Path, key_file: Path) -> Iterator[tuple[VolumeKey, SealedStore]]:
    """The key in a file and the tree it opens; raises what reading either raises."""
    key = read_volume_key(key_file)
    with SealedStore.open(sealed, model_key=key.key, epoch=key.epoch, root=key.root) as store:
        yield key, store


def check_release(*, epoch: int, name: str | None) -> None:
    """Raise ConfigError unless an epoch and, where there is one, a name given as options can be sealed."""
    if not 1 <= epoch <= MAX_EPOCH:
        raise ConfigError(f"--epoch: got {epoch}, want a whole number 1..2**53-1")
    if name is None:
        return
    try:
        check_name(name)
    except FormatError as error:
        raise ConfigError(f"--name: {error}") from error


class Stages:
    """Progress of work in stages, one after the other."""

    def __init__(self) -> None:
        self._now: Progress | None = None

    def begin(self, verb: str, total: int) -> Show:
        self.end()
        self._now = Progress(verb, total)
        return self._now.show

    def end(self) -> None:
        if self._now is not None:
            self._now.end()
            self._now = None


@contextmanager
def stages() -> Iterator[Stages]:
    """Stages of progress; the terminal is clean again at the end, also of a failure."""
    shown = Stages()
    try:
        yield shown
    finally:
        shown.end()


def add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=int, metavar="N", help="threads that work side by side (default: one a processor)"
    )
