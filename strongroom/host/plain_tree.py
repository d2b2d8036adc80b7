"""A directory of plaintext as the entries of a manifest: what is in it, and what we refuse to seal."""

import os
import stat
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Final

from strongroom.errors import ConfigError, MachineError
from strongroom.sealed.keys import FILE_ID_SIZE
from strongroom.sealed.manifest import (
    INLINE_BELOW,
    OBJECT_ID_SIZE,
    Directory,
    Entry,
    InlineFile,
    SealedFile,
    Symlink,
)
from strongroom.sealed.paths import check_path

Entropy = Callable[[int], bytes]

_OPEN: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO swapped in must not hang us


def scan(source: Path, *, dereference: bool, entropy: Entropy) -> tuple[Entry, ...]:
    """Every entry below `source`, sorted. Objects get fresh ids; their sha256 is zeros until they are sealed.

    Links are kept, or with `dereference` followed when they lead to a file. Raises ConfigError for what
    cannot be sealed: devices, sockets, FIFOs, names that are not UTF-8, links that leave the tree.
    """
    if not source.is_dir():
        raise ConfigError(f"{source}: not a directory")
    found = _scan(source, dereference, entropy)
    return tuple(sorted(found, key=lambda entry: entry.path.encode()))


def open_plain(path: Path) -> FileIO:
    """The file, unbuffered, or MachineError when it is no regular file any more."""
    file = FileIO(os.open(path, _OPEN), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise changed(path)
    return file


def changed(path: Path) -> MachineError:
    return MachineError(f"{path}: changed while it was sealed, want a tree that nobody writes to")


def _scan(source: Path, dereference: bool, entropy: Entropy) -> Iterator[Entry]:
    pending = [(source, "")]  # a list, not recursion: a path may have two thousand parts
    while pending:
        directory, at = pending.pop()
        with os.scandir(directory) as children:
            found = list(children)
        for child in found:
            path = f"{at}/{child.name}" if at else child.name
            _check_name(directory, path)
            entry = _entry(child, path, dereference, entropy)
            if isinstance(entry, Directory):
                pending.append((Path(child.path), path))
            yield entry


def _entry(child: os.DirEntry[str], path: str, dereference: bool, entropy: Entropy) -> Entry:
    status = child.stat(follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        if not dereference:
            return _link(Path(child.path), path, status)
        status = _followed(Path(child.path))
    mode, mtime = status.st_mode & 0o777, max(0, int(status.st_mtime))
    if stat.S_ISDIR(status.st_mode):
        return Directory(path=path, mode=mode, mtime=mtime)
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{child.path}: is {_kind(status.st_mode)}, want a file, a directory or a link")
    if status.st_size < INLINE_BELOW:
        return InlineFile(path=path, mode=mode, mtime=mtime, content=_content(Path(child.path), status))
    return SealedFile(
        path=path,
        mode=mode,
        mtime=mtime,
        size=status.st_size,
        object_id=entropy(OBJECT_ID_SIZE),
        file_id=entropy(FILE_ID_SIZE),
        sha256=bytes(32),
    )


def _check_name(directory: Path, path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{directory}: {path!a} is not a name in UTF-8") from None
    check_path(path)


def _link(where: Path, path: str, status: os.stat_result) -> Symlink:
    target = os.readlink(where)
    if (
        os.path.isabs(target)
        or os.path.normpath(os.path.join("/tree", path, "..", target)).split("/")[1] != "tree"
    ):
        cache = ", as in a Hugging Face cache" if "blobs" in Path(target).parts else ""
        raise ConfigError(
            f"{where}: link to {target} leaves the tree{cache}: seal a copy without links, or use --dereference"
        )
    return Symlink(path=path, mtime=max(0, int(status.st_mtime)), target=target)


def _followed(where: Path) -> os.stat_result:
    try:
        status = where.stat()
    except OSError as error:
        raise ConfigError(f"{where}: link leads nowhere ({(error.strerror or 'failed').lower()})") from error
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{where}: link leads to {_kind(status.st_mode)}, want a file")
    return status


def _content(path: Path, status: os.stat_result) -> bytes:
    with open_plain(path) as file:
        content = file.read(INLINE_BELOW)
    if len(content) != status.st_size:
        raise changed(path)
    return content


def _kind(mode: int) -> str:
    names = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a block device",
        stat.S_IFCHR: "a character device",
        stat.S_IFDIR: "a directory",
    }
    return names.get(stat.S_IFMT(mode), "of an unknown kind")
