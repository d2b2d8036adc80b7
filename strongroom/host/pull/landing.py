"""The directory a tree is pulled into: nothing outside it is touched, and no name is there before its file is whole.

    MANIFEST                      last of all, by a rename: until then it is no sealed tree, or still the one before
    INDEX                         what a tree consists of
    tags/<hex>, objects/<hex>     whole files
    ….partial, ….etag             what has come of a file so far, and which file it is of

Names come from strangers: is_name() knows all that there can be. Folders and files are opened by descriptor and links
are not followed.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import file_digest
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from strongroom.errors import ConfigError, MachineError
from strongroom.sealed.index import is_name

PARTIAL: Final = ".partial"
ETAG: Final = ".etag"
MAX_ETAG: Final = 256  # bytes
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDERS: Final = ("objects", "tags")


class Landing:
    """An open destination that no other pull can open meanwhile."""

    def __init__(self, path: Path, folders: dict[str, int]) -> None:
        self.path: Final = path
        self._folders: Final = folders  # "" is the top

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Make the directory where it is missing; a failure leaves no empty one behind.

        MachineError when it cannot be made, or somebody else is writing there.
        """
        with ExitStack() as stack, _named(path):
            existed = path.exists()
            path.mkdir(parents=True, exist_ok=True)
            folders = {"": os.open(path, _DIRECTORY)}
            stack.callback(os.close, folders[""])
            try:
                fcntl.flock(folders[""], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MachineError(f"{path}: somebody else is writing there") from None
            for name in _FOLDERS:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=folders[""])
                folders[name] = os.open(name, _DIRECTORY, dir_fd=folders[""])
                stack.callback(os.close, folders[name])
            try:
                yield cls(path, folders)
            except BaseException:
                for name in _FOLDERS:
                    _remove_empty(name, folders[""])
                if not existed:
                    _remove_empty(path, None)
                raise

    def size(self, name: str) -> int | None:
        """Bytes of a whole file, None when there is none."""
        folder, leaf = self._place(name)
        with suppress(FileNotFoundError):
            status = os.stat(leaf, dir_fd=folder, follow_symlinks=False)
            return status.st_size if stat.S_ISREG(status.st_mode) else None
        return None

    def digest(self, name: str) -> bytes:
        """The SHA-256 of a whole file."""
        folder, leaf = self._place(name)
        with _named(self.path / name), open(os.open(leaf, os.O_RDONLY | _FILE, dir_fd=folder), "rb") as file:
            return file_digest(file, "sha256").digest()

    def remove(self, name: str) -> None:
        """Remove a whole file: it is not what was wanted."""
        folder, leaf = self._place(name)
        with _named(self.path / name), suppress(FileNotFoundError):
            os.unlink(leaf, dir_fd=folder)

    def directory(self, name: str) -> int:
        """A descriptor of "objects" or "tags", as long as this is open."""
        return self._folders[name]

    def begun(self, name: str) -> int:
        """Bytes of it that have come so far."""
        folder, leaf = self._place(name)
        with suppress(FileNotFoundError):
            return os.stat(leaf + PARTIAL, dir_fd=folder, follow_symlinks=False).st_size
        return 0

    def free(self) -> int:
        """Bytes that can still be written."""
        room = os.fstatvfs(self._folders[""])
        return room.f_bavail * room.f_frsize

    def partial(self, name: str) -> "Partial":
        """What there is of a file, to be continued. A context manager."""
        folder, leaf = self._place(name)
        with _named(self.path / name):
            return Partial(self.path / name, folder, leaf)

    def put(self, name: str, content: bytes) -> None:
        """Write a whole file, in place of one that is there."""
        with self.partial(name) as partial:
            partial.restart(None)
            partial.write(content)
            partial.finish()

    def sweep(self) -> None:
        """Remove what earlier pulls began and this one had no use for."""
        for name in _FOLDERS:
            for leaf in os.listdir(self._folders[name]):
                if leaf.endswith((PARTIAL, ETAG)) and is_name(f"{name}/{leaf.rpartition('.')[0]}"):
                    os.unlink(leaf, dir_fd=self._folders[name])

    def sync(self) -> None:
        """Make all names outlive a power cut."""
        for folder in reversed(self._folders.values()):
            os.fsync(folder)

    def _place(self, name: str) -> tuple[int, str]:
        if not is_name(name):
            raise ConfigError(f"{name[:80]!a}: no file of a sealed tree has such a name")
        folder, _, leaf = name.rpartition("/")
        return self._folders[folder], leaf


class Partial:
    """The beginning of a file, and the validator (ETag) of the version it is of."""

    def __init__(self, path: Path, folder: int, leaf: str) -> None:
        self._path = path
        self._folder = folder
        self._leaf = leaf
        self._fd = os.open(leaf + PARTIAL, os.O_RDWR | os.O_CREAT | _FILE, 0o644, dir_fd=folder)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise MachineError(f"{path}{PARTIAL}: not a regular file")
        self.length = status.st_size
        self.etag = self._read_etag() if self.length else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def restart(self, etag: str | None) -> None:
        """Forget what has come; what comes next is of the version that `etag` names."""
        with _named(self._path):
            os.ftruncate(self._fd, 0)
            self.length, self.etag = 0, etag
            self._drop_etag()
            if etag is not None:
                fd = os.open(
                    self._leaf + ETAG,
                    os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE,
                    0o644,
                    dir_fd=self._folder,
                )
                with os.fdopen(fd, "wb") as file:
                    file.write(etag.encode("ascii"))

    def write(self, piece: bytes) -> None:
        with _named(self._path):
            view = memoryview(piece)
            while view:
                count = os.pwrite(self._fd, view, self.length)
                self.length += count
                view = view[count:]

    def read(self, offset: int, length: int) -> bytes:
        with _named(self._path):
            return os.pread(self._fd, length, offset)

    def finish(self) -> None:
        """Give the file its name, once it is on the disk."""
        with _named(self._path):
            os.fsync(self._fd)
            os.rename(self._leaf + PARTIAL, self._leaf, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._drop_etag()

    def discard(self) -> None:
        """Remove what has come: it is not what was wanted."""
        with _named(self._path), suppress(FileNotFoundError):
            os.unlink(self._leaf + PARTIAL, dir_fd=self._folder)
        self._drop_etag()

    def _read_etag(self) -> str | None:
        try:
            fd = os.open(self._leaf + ETAG, os.O_RDONLY | _FILE, dir_fd=self._folder)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            return strong_etag(file.read(MAX_ETAG + 1).decode("ascii", "replace"))

    def _drop_etag(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._leaf + ETAG, dir_fd=self._folder)


def strong_etag(text: str) -> str | None:
    """An entity tag that stands for exact bytes (RFC 9110 8.8.3), None for a weak one and for none."""
    inner = text[1:-1]
    fit = len(text) <= MAX_ETAG and all("!" <= char <= "~" and char != '"' for char in inner)
    return text if fit and len(text) >= 2 and text[0] == text[-1] == '"' else None


def _remove_empty(path: Path | str, within: int | None) -> None:
    with suppress(OSError):  # not empty: it was needed
        os.rmdir(path, dir_fd=within)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (
            "is a link or no directory" if error.errno in (errno.ELOOP, errno.ENOTDIR) else error.strerror
        )
        raise MachineError(f"{path}: {(reason or 'failed').lower()}") from error
