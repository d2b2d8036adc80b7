"""An open directory. What is in it is looked at, made and removed by its descriptor: whoever holds the disk may put
a link in its place, or in the place of any file, and leads nobody elsewhere.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Folder:
    """Names are single names. OSErrors carry the whole path."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path: Final = path  # for people
        self.fd: Final = fd

    @classmethod
    def open(cls, path: Path) -> Self:
        """The directory at a path of ours, which may be a link."""
        return cls(path, os.open(path, _DIRECTORY))

    def within(self, name: str) -> "Folder":
        """The directory of that name in this one. A link is none."""
        with self._named(name):
            return Folder(self.path / name, os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self.fd))

    def make(self, name: str) -> bool:
        """Make a directory; whether there was none."""
        with self._named(name), suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=self.fd)
            return True
        return False

    def names(self) -> list[str]:
        """Of everything in it, sorted."""
        with self._named(""):
            return sorted(os.listdir(self.fd))

    def size(self, name: str) -> int | None:
        """Bytes of the file or the link itself; None when there is nothing of that name."""
        with self._named(name), suppress(FileNotFoundError):
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_size
        return None

    def has(self, name: str) -> bool:
        return self.size(name) is not None

    def open_file(self, name: str, flags: int = CREATE) -> int:
        """A descriptor to write with: of a new file of mode 0644, or for APPEND of one that is there."""
        with self._named(name):
            return os.open(name, flags, 0o644, dir_fd=self.fd)

    def remove(self, name: str) -> None:
        """Remove a file, or a link; nothing happens when there is none."""
        with self._named(name), suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    def remove_empty(self, name: str) -> None:
        """Remove a directory that holds nothing."""
        with self._named(name):
            os.rmdir(name, dir_fd=self.fd)

    def rename(self, name: str, to: str) -> None:
        with self._named(to):
            os.rename(name, to, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def sync(self) -> None:
        """Have its names on disk."""
        with self._named(""):
            os.fsync(self.fd)

    def close(self) -> None:
        os.close(self.fd)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = str(self.path / name)
            raise
