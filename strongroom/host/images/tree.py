"""A tree of files being put together below one directory, from layers that may hold anything.

Every path is walked from the top, one component at a time, and the kernel follows no link: one on the way is followed
here, as if the top were `/`. So nothing outside is reached, whatever a layer says. Nobody else writes there meanwhile.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias

from strongroom.errors import FormatError, MachineError
from strongroom.host.removal import remove

Parts: TypeAlias = tuple[str, ...]

MAX_LINKS: Final = 40
MAX_PATH: Final = 4096  # bytes
MAX_DEPTH: Final = 256  # directories, links followed
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def parts_of(name: str) -> Parts:
    """The components of a path as archives write it; FormatError for one that goes up or cannot be a name."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts or "\0" in name or len(os.fsencode(name)) > MAX_PATH:
        raise FormatError(f"path {name[:120]!a} leads outside, or is no path")
    if any(len(os.fsencode(part)) > 255 for part in parts):
        raise FormatError(f"path {name[:120]!a} has a part of more than 255 bytes")
    return parts


class Tree:
    """The top directory, opened."""

    def __init__(self, top: int) -> None:
        self._top: Final = top
        self._known: set[Parts] = {()}  # true directories, no links: members of a layer come folder by folder
        self._at: tuple[Parts, int] | None = None  # the one used last, open

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["Tree"]:
        top = os.open(path, _DIRECTORY)
        try:
            tree = cls(top)
            try:
                yield tree
            finally:
                tree._leave()
        finally:
            os.close(top)

    def resolve(self, parts: Parts) -> Parts:
        """Where a path leads once every link on the way is followed, but for its last component."""
        resolved = self._resolve(parts)
        if len(resolved) > MAX_DEPTH:
            raise FormatError(
                f"path {'/'.join(parts)[:120]!a} is {len(resolved)} deep, want at most {MAX_DEPTH}"
            )
        return resolved

    def _resolve(self, parts: Parts) -> Parts:
        if parts[:-1] in self._known:
            return parts
        todo, done, links = list(reversed(parts[:-1])), list[str](), 0
        while todo:
            part = todo.pop()
            if part == "..":
                del done[-1:]
                continue
            target = self._target((*done, part))
            if target is None:
                done.append(part)
                continue
            if (links := links + 1) > MAX_LINKS:
                raise FormatError(f"path {'/'.join(parts)[:120]!a} needs more than {MAX_LINKS} links")
            if target.startswith("/"):
                done.clear()
            todo += [one for one in reversed(target.split("/")) if one not in ("", ".")]
        return (*done, *parts[-1:])

    @contextmanager
    def folder(self, parts: Parts, *, make: bool) -> Iterator[int]:
        """A descriptor of the directory that holds the last component of resolved `parts`, while it is used."""
        where = parts[:-1]
        if self._at is not None and self._at[0] == where:
            fd = os.dup(self._at[1])
        else:
            fd = self._walk(where, make=make)
            self._leave()
            self._at = where, os.dup(fd)
        try:
            yield fd
        finally:
            os.close(fd)

    def _walk(self, where: Parts, *, make: bool) -> int:
        fd = os.dup(self._top)
        for depth, part in enumerate(where, 1):
            try:
                if make and where[:depth] not in self._known:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=fd)
                inner = os.open(part, _DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = inner
            self._known.add(where[:depth])
        return fd

    def _leave(self) -> None:
        if self._at is not None:
            os.close(self._at[1])
            self._at = None

    def status(self, parts: Parts) -> os.stat_result | None:
        """Of what is at resolved `parts` itself; None when there is nothing."""
        if not parts:
            return os.fstat(self._top)
        with suppress(FileNotFoundError, NotADirectoryError), self.folder(parts, make=False) as folder:
            return os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
        return None

    def children(self, parts: Parts) -> list[str]:
        """The names in the directory at resolved `parts`; none when there is no such one."""
        with suppress(OSError), self.folder((*parts, ""), make=False) as folder:
            return os.listdir(folder)
        return []

    def remove(self, parts: Parts) -> None:
        """Remove what is at resolved `parts`, with all it holds."""
        if parts in self._known:
            self._known = {one for one in self._known if one[: len(parts)] != parts}
            self._leave()
        with suppress(FileNotFoundError), self.folder(parts, make=False) as folder:
            remove(parts[-1], folder)

    def make_directory(self, parts: Parts) -> None:
        status = self.status(parts)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            self.remove(parts)
            status = None
        if status is None:
            with self.folder(parts, make=True) as folder:
                os.mkdir(parts[-1], 0o700, dir_fd=folder)

    @contextmanager
    def make_file(self, parts: Parts) -> Iterator[int]:
        """A new file in place of whatever was there."""
        self.remove(parts)
        with self.folder(parts, make=True) as folder:
            fd = os.open(parts[-1], _NEW, 0o600, dir_fd=folder)
            try:
                yield fd
            finally:
                os.close(fd)

    def make_link(self, parts: Parts, target: str) -> None:
        self.remove(parts)
        with self.folder(parts, make=True) as folder:
            os.symlink(target, parts[-1], dir_fd=folder)

    def make_fifo(self, parts: Parts) -> None:
        self.remove(parts)
        with self.folder(parts, make=True) as folder:
            os.mkfifo(parts[-1], 0o600, dir_fd=folder)

    def make_hard_link(self, parts: Parts, existing: Parts) -> None:
        """Another name for the file at resolved `existing`."""
        status = self.status(existing)
        if status is None or stat.S_ISDIR(status.st_mode):
            raise FormatError(f"hard link {'/'.join(parts)[:120]!a} leads to no file of the image")
        if parts == existing:
            return
        self.remove(parts)
        with self.folder(existing, make=False) as source, self.folder(parts, make=True) as folder:
            os.link(existing[-1], parts[-1], src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)

    def _target(self, parts: Parts) -> str | None:
        with suppress(FileNotFoundError), self.folder(parts, make=False) as folder:
            try:
                return os.readlink(parts[-1], dir_fd=folder)
            except OSError as error:
                if error.errno != errno.EINVAL:  # not a link
                    raise
        return None


@contextmanager
def in_words(subject: str) -> Iterator[None]:
    """Failures of the disk, and of an image that puts files below files, as one sentence."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or "failed").lower()
        if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EEXIST):
            raise FormatError(f"{subject}: {reason}") from error
        raise MachineError(f"{subject}: {reason}") from error
