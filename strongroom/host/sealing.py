"""Plaintext directory in, sealed tree out. MANIFEST appears last, by a rename: a tree without one is not sealed.

Every object is new: fresh object id, fresh file id, fresh salt. Sealing the same model twice under the same
key repeats no nonce.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Final

from strongroom.errors import ConfigError, FormatError, MachineError
from strongroom.host.plain_tree import Entropy, changed, open_plain, scan
from strongroom.host.sealed_tree import MANIFEST, OBJECTS, TAGS
from strongroom.sealed.chunks import TAG_SIZE, ChunkCipher, Chunking
from strongroom.sealed.header import ManifestHeader
from strongroom.sealed.keys import Octets, VolumeKeys
from strongroom.sealed.manifest import Entry, InlineFile, Manifest, SealedFile
from strongroom.sealed.volume import root_digest, seal_manifest

Progress = Callable[[int], None]  # bytes of plaintext sealed so far

_PARTIAL: Final = MANIFEST + ".partial"
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be sealed. Making one refuses every tree that could not be served later."""

    source: Path
    entries: tuple[Entry, ...]
    name: str

    @classmethod
    def make(cls, source: Path, *, name: str, dereference: bool, entropy: Entropy) -> "Plan":
        try:
            entries = scan(source, dereference=dereference, entropy=entropy)
            Manifest(name=name, entries=entries, tags_sha256=bytes(32))
        except FormatError as error:
            raise ConfigError(f"{source}: {error}") from error
        return cls(source=source, entries=entries, name=name)

    @property
    def files(self) -> tuple[InlineFile | SealedFile, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, InlineFile | SealedFile))

    @property
    def total(self) -> int:
        """Bytes of plaintext in all files."""
        return sum(file.size for file in self.files)


def seal_tree(
    plan: Plan,
    dest: Path,
    *,
    model_key: Octets,
    epoch: int,
    chunk_log2: int,
    entropy: Entropy,
    keep: Callable[[bytes], None],
    progress: Progress,
) -> bytes:
    """Seal the planned tree into `dest`, which must be absent or empty; the result is the root digest.

    `keep` is called with the root digest when everything but the name MANIFEST is on disk: the place to store
    the key, so that no sealed tree exists without one. On any failure what was written is removed again.
    Raises ConfigError for a destination we refuse, MachineError when the source changes meanwhile.
    """
    keys = VolumeKeys(model_key=model_key, salt=(salt := entropy(32)))
    header = ManifestHeader(
        chunk_log2=chunk_log2,
        epoch=epoch,
        volume_id=entropy(16),
        salt=salt,
        commitment=keys.commitment,
    )
    with _destination(dest, plan.source):
        entries, tags = _seal_objects(plan, dest / OBJECTS, keys, chunk_log2, progress)
        manifest = Manifest(name=plan.name, entries=entries, tags_sha256=sha256(tags).digest())
        data = seal_manifest(header, manifest, keys)
        _write(dest / TAGS, tags)
        _write(dest / _PARTIAL, data)
        sync_directory(dest / OBJECTS)
        keep(root_digest(data))
        os.rename(dest / _PARTIAL, dest / MANIFEST)
        sync_directory(dest)
        sync_directory(dest.parent)
    return root_digest(data)


def _seal_objects(
    plan: Plan, objects: Path, keys: VolumeKeys, chunk_log2: int, progress: Progress
) -> tuple[tuple[Entry, ...], bytes]:
    entries, tags = list[Entry](), bytearray()
    done = sum(file.size for file in plan.files if isinstance(file, InlineFile))
    for entry in plan.entries:
        if isinstance(entry, SealedFile):
            digest = sha256()
            for plaintext, tag in _seal_object(plan.source / entry.path, objects, entry, keys, chunk_log2):
                digest.update(plaintext)
                tags += tag
                progress(done := done + len(plaintext))
            entries.append(replace(entry, sha256=digest.digest()))
        else:
            entries.append(entry)
    return tuple(entries), bytes(tags)


def _seal_object(
    source: Path, objects: Path, entry: SealedFile, keys: VolumeKeys, chunk_log2: int
) -> Iterator[tuple[memoryview, memoryview]]:
    """Write one object, and yield each chunk's plaintext and tag while their buffers are valid."""
    chunking = Chunking(entry.size, chunk_log2)
    cipher = ChunkCipher(key=keys.file_key(entry.file_id), file_id=entry.file_id, chunking=chunking)
    plain, sealed = (
        memoryview(bytearray(chunking.chunk_size)),
        memoryview(bytearray(chunking.chunk_size + TAG_SIZE)),
    )
    with open_plain(source) as reader, _create(objects / entry.object_name) as writer:
        before = os.fstat(reader.fileno())
        for index in range(chunking.count):
            length = chunking.length(index)
            if not _fill(reader, plain[:length]):
                raise changed(source)
            cipher.seal(index, plain[:length], sealed[: length + TAG_SIZE])
            writer.write(sealed[:length])
            yield plain[:length], sealed[length : length + TAG_SIZE]
        after = os.fstat(reader.fileno())
        if (after.st_size, after.st_mtime_ns) != (entry.size, before.st_mtime_ns):
            raise changed(source)


def _fill(reader: FileIO, buffer: memoryview) -> bool:
    while buffer:
        if not (count := reader.readinto(buffer)):
            return False
        buffer = buffer[count:]
    return True


@contextmanager
def _destination(dest: Path, source: Path) -> Iterator[None]:
    if dest.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"{dest}: lies inside {source}, want a place outside")
    existed = dest.exists()
    try:
        dest.mkdir(parents=True, exist_ok=True)
        if any(dest.iterdir()):
            raise ConfigError(f"{dest}: not empty, want an empty or absent directory")
        (dest / OBJECTS).mkdir()
        try:
            yield
        except BaseException:
            _remove(dest, keep_directory=existed)
            raise
    except OSError as error:
        where = os.fsdecode(error.filename or dest)
        raise MachineError(f"{where}: {(error.strerror or 'failed').lower()}") from error


def _remove(dest: Path, *, keep_directory: bool) -> None:
    shutil.rmtree(dest / OBJECTS, ignore_errors=True)
    for name in (TAGS, _PARTIAL, MANIFEST):
        (dest / name).unlink(missing_ok=True)
    if not keep_directory:
        with suppress(OSError):
            dest.rmdir()


@contextmanager
def _create(path: Path) -> Iterator[BinaryIO]:
    with os.fdopen(os.open(path, _CREATE, 0o644), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, content: bytes) -> None:
    with _create(path) as file:
        file.write(content)


def sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
