"""Directories on disk -> the entries of a tree digest. No link is followed, not even at the root.

What is measured is named "NAME=PATH", or "PATH" where the last part is the name: the name stands first in
every path of the digest, so that several trees (code, units, a virtual environment) make one golden value
wherever they lie. Contents are read in pieces of 1 MiB. Anything but files, directories and links is refused.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from strongroom.errors import ConfigError, FormatError, MachineError
from strongroom.measure.tree import LINK_MODE, TreeEntry, tree_digest, tree_name

_PIECE: Final = 1 << 20  # bytes
# Not blocking, so that a FIFO swapped in does not hang us.
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def measure(arguments: Sequence[str]) -> bytes:
    """The digest over all trees of "NAME=PATH" or "PATH" arguments.

    Raises ConfigError for a name that will not do or is there twice, MachineError for what cannot be read.
    """
    trees: dict[str, Path] = {}
    for name, path in map(named, arguments):
        if name in trees:
            raise ConfigError(f"tree {name}: is there twice, want names that differ (NAME=PATH)")
        trees[name] = path
    return tree_digest(entry for name, path in trees.items() for entry in walk(path, name))


def named(argument: str) -> tuple[str, Path]:
    """("code", Path("/opt/x")) for "code=/opt/x", ("x", Path("/opt/x")) for "/opt/x"."""
    name, equals, path = argument.partition("=")
    where = Path(path if equals else name)
    try:
        return tree_name(name if equals else Path(os.path.abspath(where)).name), where
    except FormatError as error:
        raise ConfigError(f"tree {argument!r}: {error}") from error


def walk(root: Path, name: str) -> list[TreeEntry]:
    """Every entry at and below `root`, the root itself under `name`, in the order of their paths."""
    try:
        if not stat.S_ISDIR(root.lstat().st_mode):
            raise MachineError(f"tree {root}: not a directory, want one that is no link")
        return sorted(_entries(root, name), key=lambda entry: entry.path.encode())
    except OSError as error:
        where = os.fsdecode(error.filename or root)
        raise MachineError(f"tree {where}: {(error.strerror or 'failed').lower()}") from error


def _entries(root: Path, name: str) -> Iterator[TreeEntry]:
    found = [(root, name)]  # not recursive: a tree may be deeper than Python's stack
    while found:
        path, name = found.pop()
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            yield _file(path, name)
        elif stat.S_ISLNK(status.st_mode):
            yield TreeEntry(path=name, mode=LINK_MODE, target=os.readlink(path))
        elif stat.S_ISDIR(status.st_mode):
            yield TreeEntry(path=name, mode=stat.S_IMODE(status.st_mode))
            found += [(path / child, f"{name}/{child}") for child in os.listdir(path)]
        else:
            raise MachineError(f"tree {path}: neither file, directory nor link, cannot be measured")


def _file(path: Path, name: str) -> TreeEntry:
    with open(os.open(path, _OPEN), "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise MachineError(f"tree {path}: changed while it was measured")
        contents = hashlib.sha256()
        while piece := file.read(_PIECE):
            contents.update(piece)
        return TreeEntry(path=name, mode=stat.S_IMODE(status.st_mode), sha256=contents.digest())
