"""The directory a tree is sealed into: one writer at a time, one commit point, nothing of an older tree touched.

No name of an object or of tags ever stands for two contents, so writing them disturbs nobody. The rename of MANIFEST
is the commit: before it the old tree is there, behind it the new one. Only pruning.py removes what a manifest once
named.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from strongroom.errors import ConfigError, MachineError
from strongroom.host.sealed_tree import MANIFEST, OBJECTS, TAGS, read_small
from strongroom.host.sealing_object import CREATE
from strongroom.sealed.index import INDEX, Index
from strongroom.sealed.journal import MAX_JOURNAL, Finished, Journal, JournalWriter, Record
from strongroom.sealed.keys import Octets
from strongroom.sealed.manifest import SealedFile
from strongroom.sealed.volume import MAX_MANIFEST, root_digest

JOURNAL: Final = "JOURNAL"
PARTIAL: Final = ".partial"
OURS: Final = frozenset(
    (MANIFEST, INDEX, JOURNAL, TAGS, OBJECTS, *(f"{name}{PARTIAL}" for name in (MANIFEST, INDEX, JOURNAL)))
)
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Destination:
    """A directory held for writing. Failures of the machine are MachineErrors that name the file."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path: Final = path
        self.objects: Final = path / OBJECTS
        self._fd: Final = fd

    @classmethod
    @contextmanager
    def hold(cls, path: Path) -> Iterator[Self]:
        """Make the directory if there is none, and keep other writers out of it. Readers are not disturbed."""
        existed = path.exists()
        with machine_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, _DIRECTORY)
            try:
                _lock(fd, path)
                yield cls(path, fd)
            finally:
                os.close(fd)
                if not existed:
                    with suppress(OSError):  # not empty: it was needed
                        path.rmdir()

    def furnish(self) -> None:
        """Make the folders that every tree has."""
        for folder in (self.objects, self.path / TAGS):
            folder.mkdir(exist_ok=True)

    # What is there

    @property
    def root(self) -> bytes | None:
        """The root digest of the tree that is committed here; None when there is none."""
        return tree_root(self.path)

    @property
    def cut(self) -> bool:
        """Whether a seal into this directory was begun and not ended."""
        return is_cut(self.path)

    def foreign(self) -> list[str]:
        """Names of what is no part of a sealed tree, sorted."""
        return sorted(set(os.listdir(self.path)) - OURS)

    def has_object(self, file: SealedFile) -> bool:
        """Whether an object of the right name and length is there; its content is for its tags to judge."""
        try:
            return (self.objects / file.object_name).lstat().st_size == file.size
        except FileNotFoundError:
            return False

    def journal(self, model_key: Octets) -> Journal:
        """What the cut seal has done; nothing when it left no journal."""
        if not self.cut:
            return Journal()
        return Journal.parse(read_small(JOURNAL, self._fd, MAX_JOURNAL, "journal"), model_key=model_key)

    def check_space(self, wanted: int) -> None:
        """Raise MachineError when `wanted` bytes will not fit."""
        status = os.fstatvfs(self._fd)
        if status.f_blocks and (free := status.f_bavail * status.f_frsize) < wanted:
            raise MachineError(f"{self.path}: {free} bytes are free, want {wanted}")

    # What is written

    def write(self, name: str, content: bytes) -> None:
        """A whole file, on disk under its name or not there at all."""
        self._stage(name, content)
        self._put(name)

    def commit(self, manifest: bytes, keep: Callable[[bytes], None]) -> bytes:
        """Put a new MANIFEST in place; the result is its root digest.

        `keep` gets the digest when everything but the name MANIFEST is on disk: the place to store the key, so
        that there is no tree without one.
        """
        root = root_digest(manifest)
        self._stage(MANIFEST, manifest)
        for folder in (OBJECTS, TAGS):
            sync_directory(self.path / folder)
        keep(root)
        self._put(MANIFEST)
        sync_directory(self.path.parent)
        return root

    def settle(self, index: Index) -> None:
        """What is due behind a commit: tell carriers the names, and forget the journal."""
        self.write(INDEX, index.pack())
        self._forget()
        sync_directory(self.path)

    def _forget(self) -> None:
        """Remove what a seal leaves for the next one."""
        for name in (JOURNAL, *(f"{name}{PARTIAL}" for name in (MANIFEST, INDEX, JOURNAL))):
            (self.path / name).unlink(missing_ok=True)

    def remove_objects(self, ids: Iterable[bytes]) -> None:
        for one in ids:
            (self.objects / one.hex()).unlink(missing_ok=True)

    def give_up(self) -> None:
        """Leave the directory as it was found, when not one object has been finished."""
        self._forget()
        if self.root is None:
            for name in os.listdir(self.path / TAGS):
                (self.path / TAGS / name).unlink()
            for folder in (self.path / TAGS, self.objects):
                folder.rmdir()

    def _stage(self, name: str, content: bytes) -> None:
        partial = self.path / f"{name}{PARTIAL}"
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, CREATE, 0o644), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def _put(self, name: str) -> None:
        os.rename(self.path / f"{name}{PARTIAL}", self.path / name)
        sync_directory((self.path / name).parent)


class JournalFile:
    """The journal of a running seal, for several threads.

    A record a power cut takes away costs an object sealed again. One that stays speaks of an object that is on disk.
    """

    def __init__(self, destination: Destination, writer: JournalWriter, finished: dict[bytes, Finished]) -> None:
        self._lock = threading.Lock()
        self._writer = writer
        self.finished: Final = finished  # by object id; what comes is added
        destination.write(JOURNAL, writer.header + b"".join(map(writer.pack, finished.values())))
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(destination.path / JOURNAL, flags)

    def record(self, record: Record) -> None:
        with self._lock:
            if isinstance(record, Finished):
                self.finished[record.file.object_id] = record
            data = self._writer.pack(record)
            if os.write(self._fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        os.close(self._fd)


def tree_root(path: Path) -> bytes | None:
    """The root digest of the tree that is committed in a directory; None when there is none."""
    if not os.path.lexists(path / MANIFEST):
        return None
    fd = os.open(path, _DIRECTORY)
    try:
        return root_digest(read_small(MANIFEST, fd, MAX_MANIFEST, "manifest"))
    finally:
        os.close(fd)


def is_cut(path: Path) -> bool:
    """Whether a seal into this directory can be resumed."""
    return os.path.lexists(path / JOURNAL)


def sync_directory(directory: Path) -> None:
    fd = os.open(directory, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def machine_errors(path: Path) -> Iterator[None]:
    """OSErrors as MachineErrors that name their file, or `path` when they name none."""
    try:
        yield
    except OSError as error:
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else path
        raise MachineError(f"{where}: {(error.strerror or 'failed').lower()}") from error


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            raise ConfigError(f"{path}: another process is writing to it") from None
        # a store that knows no locks: then keeping to one writer is up to its owner
