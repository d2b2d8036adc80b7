"""A sealed tree on disk, opened for reading. The disk belongs to a stranger: sizes are checked, links are not
followed, ciphertext is copied before it is opened (a mapped file could change between check and use).
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Final, Self

from strongroom.errors import MachineError, VerifyError
from strongroom.sealed.chunks import TAG_SIZE
from strongroom.sealed.header import ManifestHeader
from strongroom.sealed.keys import Octets
from strongroom.sealed.manifest import Manifest, SealedFile
from strongroom.sealed.volume import MAX_MANIFEST, OpenedObject, Volume, open_volume

MANIFEST: Final = "MANIFEST"
TAGS: Final = "tags"
OBJECTS: Final = "objects"
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class StoredObject:
    """One object: its open file, its tags, its key. For several threads, each with its own buffers.

    `found` says that its length has been looked at before: what was cut off since costs the chunks that are gone alone.
    """

    __slots__ = ("_cipher", "_directory", "_fd", "_tags", "chunking", "file", "name")

    def __init__(self, opened: OpenedObject, directory: int, *, found: bool = False) -> None:
        self.file: Final[SealedFile] = opened.file
        self.chunking: Final = opened.chunking
        self.name: Final = opened.file.object_name
        self._tags: Final = opened.tags
        self._cipher: Final = opened.cipher()
        self._directory: Final = directory
        self._fd: Final = self._open(found=found)

    def load(self, first: int, slots: Sequence[memoryview]) -> None:
        """Read consecutive chunks from `first` on, one into each slot; a slot has exactly its chunk's length.

        Raises VerifyError when the object ends early, MachineError when the store cannot be read.
        """
        offset, want = first << self.chunking.chunk_log2, sum(map(len, slots))
        try:
            got = os.preadv(self._fd, slots, offset)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise MachineError(f"object {self.name}: {_words(error)} at byte {offset}") from error
            got = self._load_again(slots, offset)
        if got != want:
            raise VerifyError(f"object {self.name}: {got} bytes at byte {offset}, want {want}")

    def open(self, index: int, slot: memoryview, out: memoryview) -> None:
        """Fill `out` with the plaintext of a chunk. `slot` holds its ciphertext and TAG_SIZE bytes of room
        behind.

        Raises VerifyError naming object and chunk; then `out` must not be used.
        """
        slot[-TAG_SIZE:] = self._tags[index * TAG_SIZE : (index + 1) * TAG_SIZE]
        try:
            self._cipher.open(index, slot, out)
        except VerifyError as error:
            raise VerifyError(f"object {self.name}: {error}") from None

    def close(self) -> None:
        os.close(self._fd)

    def _open(self, *, found: bool) -> int:
        fd = _open_regular(self.name, self._directory, f"object {self.name}", want=self.file.size)
        if not found and (size := os.fstat(fd).st_size) != self.file.size:
            os.close(fd)
            raise VerifyError(f"object {self.name}: {size} bytes, want {self.file.size}")
        return fd

    def _load_again(self, slots: Sequence[memoryview], offset: int) -> int:
        fresh = self._open(found=False)
        os.dup2(fresh, self._fd, inheritable=False)  # in place: other threads hold the same number
        os.close(fresh)
        try:
            return os.preadv(self._fd, slots, offset)
        except OSError as error:
            raise MachineError(f"object {self.name}: {_words(error)} at byte {offset}") from error


class SealedStore:
    """A genuine manifest and genuine tags. Objects are opened one by one, when they are wanted."""

    def __init__(
        self, volume: Volume, objects: tuple[OpenedObject, ...], folders: tuple[int, int, int]
    ) -> None:
        self.header: Final[ManifestHeader] = volume.header
        self.manifest: Final[Manifest] = volume.manifest
        self.volume: Final = volume
        self.objects: Final = objects
        self.folders: Final = folders  # descriptors: the tree itself, its tags, its objects
        self._directory: Final = folders[-1]

    @classmethod
    @contextmanager
    def open(cls, source: Path, *, model_key: Octets, epoch: int, root: bytes) -> Iterator[Self]:
        """Open the tree at `source`.

        Raises, in this order: what open_volume() raises; VerifyError for other TAGS.
        """
        with ExitStack() as stack:
            top = open_directory(source, None, f"sealed tree {source}")
            stack.callback(os.close, top)
            manifest = read_small(MANIFEST, top, MAX_MANIFEST, "manifest")
            volume = open_volume(manifest, model_key=model_key, epoch=epoch, root=root)
            tags = open_directory(TAGS, top, TAGS)
            stack.callback(os.close, tags)
            objects = volume.open_objects(read_small(volume.tags_name, tags, volume.tags_size, "tags"))
            directory = open_directory(OBJECTS, top, OBJECTS)
            stack.callback(os.close, directory)
            yield cls(volume, objects, (top, tags, directory))

    def stored(self, opened: OpenedObject) -> StoredObject:
        """One object, open. VerifyError when it is missing or has another length."""
        return StoredObject(opened, self._directory)


class SealedTree(SealedStore):
    """A genuine manifest and every object of it, found on disk, of the right length and ours to read. None is open."""

    @classmethod
    @contextmanager
    def open(cls, source: Path, *, model_key: Octets, epoch: int, root: bytes) -> Iterator[Self]:
        """Open the tree at `source`.

        Raises, in this order: what SealedStore.open() raises; VerifyError naming the first object that is
        missing or has another length, MachineError naming the first that we may not read.
        """
        with super().open(source, model_key=model_key, epoch=epoch, root=root) as tree:
            for one in tree.objects:
                tree.check_present(one)
            yield tree

    def check_present(self, opened: OpenedObject) -> None:
        """Raise VerifyError unless the object is there, of its length, MachineError unless we may read it."""
        _check_present(opened.file, self._directory)

    def stored(self, opened: OpenedObject) -> StoredObject:
        """One object, open. VerifyError when it has gone since the tree was opened."""
        return StoredObject(opened, self._directory, found=True)


def read_small(name: str, directory: int, most: int, subject: str) -> bytes:
    """A whole file of at most `most` bytes. VerifyError when it is missing or larger."""
    with open_small(name, directory, most, subject) as file:
        content = bytearray()
        while piece := file.read(min(1 << 20, most + 1 - len(content))):
            content += piece
    return bytes(content)


@contextmanager
def open_small(name: str, directory: int, most: int, subject: str) -> Iterator[FileIO]:
    """The same, to be read by whoever asks. What the system says while it is, is a MachineError."""
    with FileIO(_open_regular(name, directory, subject), "rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise VerifyError(f"{subject}: {size} bytes, want at most {most}")
        try:
            yield file
        except OSError as error:
            raise MachineError(f"{subject}: {_words(error)}") from error


def _check_present(file: SealedFile, directory: int) -> None:
    """What can be said of an object without opening it: a tree may have more of them than we may open files."""
    name, subject = file.object_name, f"object {file.object_name}"
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        raise _missing(subject, file.size) from None
    except OSError as error:
        raise MachineError(f"{subject}: {_words(error)}") from error
    if stat.S_ISLNK(status.st_mode):  # as the system says it of a link that is not followed
        raise MachineError(f"{subject}: {os.strerror(errno.ELOOP).lower()}")
    if not stat.S_ISREG(status.st_mode):
        raise VerifyError(f"{subject}: not a regular file")
    if status.st_size != file.size:
        raise VerifyError(f"{subject}: {status.st_size} bytes, want {file.size}")
    if not os.access(name, os.R_OK, dir_fd=directory, effective_ids=True):
        raise MachineError(f"{subject}: permission denied")


def _missing(subject: str, want: int | None) -> VerifyError:
    return VerifyError(f"{subject}: missing" + ("" if want is None else f", want {want} bytes"))


def _open_regular(name: str, directory: int, subject: str, *, want: int | None = None) -> int:
    try:
        fd = os.open(name, _OPEN, dir_fd=directory)
    except FileNotFoundError:
        raise _missing(subject, want) from None
    except OSError as error:
        if error.errno == errno.EMFILE:
            raise MachineError(f"{subject}: too many open files, raise LimitNOFILE") from error
        raise MachineError(f"{subject}: {_words(error)}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise VerifyError(f"{subject}: not a regular file")
    return fd


def open_directory(path: Path | str, directory: int | None, subject: str) -> int:
    """A descriptor of a directory. Inside a tree a link is not followed, and one that is missing is a VerifyError."""
    try:
        return os.open(path, _DIRECTORY | (0 if directory is None else os.O_NOFOLLOW), dir_fd=directory)
    except OSError as error:
        if directory is not None and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise VerifyError(f"{subject}: missing, or no directory") from None
        raise MachineError(f"{subject}: {_words(error)}") from error


def _words(error: OSError) -> str:
    return (error.strerror or "failed").lower()
