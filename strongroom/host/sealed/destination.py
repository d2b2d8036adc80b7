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
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from strongroom.errors import ConfigError, MachineError
from strongroom.host.folder import APPEND, Folder
from strongroom.host.sealed.tree import MANIFEST, OBJECTS, TAGS, open_small, read_small
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


class Destination:
    """A directory held for writing. Failures of the machine are MachineErrors that name the file."""

    def __init__(self, top: Folder) -> None:
        self.path: Final = top.path
        self._top: Final = top
        self._folders: dict[str, Folder] = {}
        self._made: list[str] = []  # names of tags that this run wrote and no tree had

    @classmethod
    @contextmanager
    def hold(cls, path: Path) -> Iterator[Self]:
        """Make the directory if there is none, and keep other writers out of it. Readers are not disturbed."""
        existed = path.exists()
        with machine_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            try:
                with closing(Folder.open(path)) as top:
                    _lock(top.fd, path)
                    with closing(cls(top)) as held:
                        yield held
            finally:
                if not existed:
                    with suppress(OSError):  # not empty: it was needed
                        path.rmdir()

    def furnish(self) -> None:
        """Make the folders that every tree has, and open them: what is put in their place later is not looked at."""
        self.close()
        for name in (OBJECTS, TAGS):
            self._top.make(name)
            self._folders[name] = self._top.within(name)

    def close(self) -> None:
        """Let go of the folders; the directory stays held."""
        while self._folders:
            self._folders.popitem()[1].close()
        self._made.clear()

    @property
    def furnished(self) -> bool:
        return len(self._folders) == 2

    @property
    def objects(self) -> Folder:
        """Where objects are, after furnish()."""
        return self._folders[OBJECTS]

    @property
    def tags(self) -> Folder:
        """Where tags are, after furnish()."""
        return self._folders[TAGS]

    # What is there

    @property
    def root(self) -> bytes | None:
        """The root digest of the tree that is committed here; None when there is none."""
        return _root_in(self._top)

    @property
    def cut(self) -> bool:
        """Whether a seal into this directory was begun and not ended."""
        return self._top.has(JOURNAL)

    def foreign(self) -> list[str]:
        """Names of what is no part of a sealed tree, sorted."""
        return sorted(set(self._top.names()) - OURS)

    def has_object(self, file: SealedFile) -> bool:
        """Whether an object of the right name and length is there; its content is for its tags to judge."""
        return self.objects.size(file.object_name) == file.size

    def journal(self, model_key: Octets) -> Journal:
        """What the cut seal has done; nothing when it left no journal."""
        if not self.cut:
            return Journal()
        with open_small(JOURNAL, self._top.fd, MAX_JOURNAL, "journal") as file:
            return Journal.read(file.read, model_key=model_key)

    def open_journal(self) -> int:
        """A descriptor that appends to the journal."""
        return self._top.open_file(JOURNAL, APPEND)

    def check_space(self, wanted: int) -> None:
        """Raise MachineError when `wanted` bytes will not fit."""
        status = os.fstatvfs(self._top.fd)
        if status.f_blocks and (free := status.f_bavail * status.f_frsize) < wanted:
            raise MachineError(f"{self.path}: {free} bytes are free, want {wanted}")

    # What is written

    def write(self, name: str, content: bytes) -> None:
        """A whole file at the top, on disk under its name or not there at all."""
        _stage(self._top, name, content)
        _put(self._top, name)

    def write_tags(self, name: str, content: bytes) -> None:
        """The same for tags."""
        if not self.tags.has(name):
            self._made.append(name)
        _stage(self.tags, name, content)
        _put(self.tags, name)

    def commit(self, manifest: bytes, keep: Callable[[bytes], None]) -> bytes:
        """Put a new MANIFEST in place; the result is its root digest.

        `keep` gets the digest when everything but the name MANIFEST is on disk: the place to store the key, so
        that there is no tree without one.
        """
        root = root_digest(manifest)
        _stage(self._top, MANIFEST, manifest)
        for folder in (self.objects, self.tags):
            folder.sync()
        keep(root)
        self.recommit()
        return root

    @property
    def staged(self) -> bytes | None:
        """The root digest of what a commit that was cut was about to put in place; None when there is none."""
        return _root_in(self._top, f"{MANIFEST}{PARTIAL}")

    def recommit(self) -> None:
        """Put in place what is staged."""
        _put(self._top, MANIFEST)
        sync_directory(self.path.parent)

    def settle(self, index: Index) -> None:
        """What is due behind a commit: tell carriers the names, and forget the journal."""
        self.write(INDEX, index.pack())
        self._forget()
        self._top.sync()

    def _forget(self) -> None:
        """Remove what a seal leaves for the next one."""
        for name in (JOURNAL, *(f"{name}{PARTIAL}" for name in (MANIFEST, INDEX, JOURNAL))):
            self._top.remove(name)

    def disown(self) -> None:
        """Have no tree here, where one is that nobody can open: its objects and tags are the caller's to remove."""
        for name in (MANIFEST, INDEX):
            self._top.remove(name)

    def remove_objects(self, ids: Iterable[bytes]) -> None:
        for one in ids:
            self.objects.remove(one.hex())

    def give_up(self) -> None:
        """Leave the directory as it was found, when not one object has been finished. What others put there stays."""
        self._forget()
        if not self._top.has(MANIFEST):
            for name in self._made if self.furnished else ():
                for written in (name, f"{name}{PARTIAL}"):
                    self.tags.remove(written)
            self.close()
            for name in (TAGS, OBJECTS):
                with suppress(OSError):  # not empty, or no directory of ours
                    self._top.remove_empty(name)


class JournalFile:
    """The journal of a running seal, for several threads.

    A record a power cut takes away costs an object sealed again. One that stays speaks of an object that is on disk.
    """

    def __init__(
        self, destination: Destination, writer: JournalWriter, finished: dict[bytes, Finished]
    ) -> None:
        self._lock = threading.Lock()
        self._writer = writer
        self.finished: Final = finished  # by object id; what comes is added
        destination.write(JOURNAL, writer.header + b"".join(map(writer.pack, finished.values())))
        self._fd = destination.open_journal()

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
    top = Folder.open(path)
    try:
        return _root_in(top)
    finally:
        top.close()


def is_cut(path: Path) -> bool:
    """Whether a seal into this directory can be resumed."""
    return os.path.lexists(path / JOURNAL)


def sync_directory(directory: Path) -> None:
    folder = Folder.open(directory)
    try:
        folder.sync()
    finally:
        folder.close()


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


def _root_in(top: Folder, name: str = MANIFEST) -> bytes | None:
    return root_digest(read_small(name, top.fd, MAX_MANIFEST, "manifest")) if top.has(name) else None


def _stage(folder: Folder, name: str, content: bytes) -> None:
    partial = f"{name}{PARTIAL}"
    folder.remove(partial)
    with os.fdopen(folder.open_file(partial), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _put(folder: Folder, name: str) -> None:
    folder.rename(f"{name}{PARTIAL}", name)
    folder.sync()
