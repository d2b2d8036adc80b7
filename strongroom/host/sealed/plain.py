"""A directory of plaintext as the entries of a manifest: what is in it, and what we refuse to seal."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Final

from strongroom.errors import ConfigError, MachineError
from strongroom.sealed.keys import KEY_SIZE
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
    """Every entry below `source`, sorted. Objects get fresh ids and keys; they have no sha256 until they are sealed.

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


def read_at(fd: int, offset: int, out: memoryview) -> bool:
    """Fill `out` with what stands at `offset`, holes without reading them; False when the file ends before."""
    if _is_hole(fd, offset, len(out)):
        out[:] = bytes(len(out))
        return os.fstat(fd).st_size >= offset + len(out)
    while out:
        if not (count := os.preadv(fd, [out], offset)):
            return False
        out, offset = out[count:], offset + count
    return True


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
    mode, (mtime, nanos) = status.st_mode & 0o777, _moment(status)
    if stat.S_ISDIR(status.st_mode):
        return Directory(path=path, mode=mode, mtime=mtime, nanos=nanos)
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{child.path}: is {_kind(status.st_mode)}, want a file, a directory or a link")
    if status.st_size < INLINE_BELOW:
        content = _content(Path(child.path), status)
        return InlineFile(path=path, mode=mode, mtime=mtime, nanos=nanos, content=content)
    return SealedFile(
        path=path,
        mode=mode,
        mtime=mtime,
        nanos=nanos,
        size=status.st_size,
        object_id=entropy(OBJECT_ID_SIZE),
        key=entropy(KEY_SIZE),
    )


def stamp(status: os.stat_result) -> tuple[int, int]:
    """Size and time of the last change, as an entry has them: two that are equal have one content."""
    seconds, nanos = _moment(status)
    return status.st_size, seconds * 1_000_000_000 + nanos


def _moment(status: os.stat_result) -> tuple[int, int]:
    """Seconds and nanoseconds; what lies before 1970 is 1970."""
    seconds, nanos = divmod(max(0, status.st_mtime_ns), 1_000_000_000)
    return seconds, nanos


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
    mtime, nanos = _moment(status)
    return Symlink(path=path, mtime=mtime, nanos=nanos, target=target)


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


def _is_hole(fd: int, offset: int, length: int) -> bool:
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO  # no data from here on; anything else: not a file system that tells


def _kind(mode: int) -> str:
    names = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a block device",
        stat.S_IFCHR: "a character device",
        stat.S_IFDIR: "a directory",
    }
    return names.get(stat.S_IFMT(mode), "of an unknown kind")
