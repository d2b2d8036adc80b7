"""One large file's way into an object: read, seal, write, and a record when it is on disk whole."""

import os
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from strongroom.errors import MachineError
from strongroom.host.blocks import Room, bounds, count_blocks
from strongroom.host.plain_tree import changed, open_plain, read_at, stamp
from strongroom.sealed.chunks import TAG_SIZE, ChunkCipher, Chunking
from strongroom.sealed.journal import Begun, Finished, Record
from strongroom.sealed.manifest import SealedFile

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class SealingObject:
    """A job for a crew. `record` is called for the object when it is begun, and when it is finished."""

    def __init__(
        self,
        source: Path,
        objects: Path,
        file: SealedFile,
        *,
        chunk_log2: int,
        hashed: bool,
        record: Callable[[Record], None],
    ) -> None:
        self._source = source
        self._target = objects / file.object_name
        self._file = file
        self._chunking = Chunking(file.size, chunk_log2)
        self._cipher = ChunkCipher(key=file.key, object_id=file.object_id, chunking=self._chunking)
        self._digest = sha256() if hashed else None
        self._tags = bytearray(self._chunking.count * TAG_SIZE)
        self._record = record
        self._reader = self._writer = -1

    @property
    def blocks(self) -> int:
        return count_blocks(self._file.size)

    def start(self) -> None:
        try:
            with open_plain(self._source) as reader:
                self._reader = os.dup(reader.fileno())
            self._check_unchanged()
            self._record(Begun(self._file.object_id))
            self._writer = os.open(self._target, CREATE, 0o644)
        except BaseException:
            self.drop()
            raise

    def work(self, block: int, room: Room) -> int:
        offset, length = bounds(self._file.size, block)
        self._read(offset, room.plain[:length])
        sealed = []
        for index, slot, plain in room.of(self._chunking, offset >> self._chunking.chunk_log2):
            self._cipher.seal(index, plain, slot)
            self._tags[index * TAG_SIZE : (index + 1) * TAG_SIZE] = slot[-TAG_SIZE:]
            sealed.append(slot[:-TAG_SIZE])
        _write_at(self._writer, offset, sealed)
        return length

    def follow(self, block: int, room: Room) -> None:
        if self._digest is not None:
            self._digest.update(room.plain[: bounds(self._file.size, block)[1]])

    def finish(self) -> None:
        self._check_unchanged()
        os.fsync(self._writer)
        os.posix_fadvise(
            self._writer, 0, 0, os.POSIX_FADV_DONTNEED
        )  # what is verified is read from the store
        digest = None if self._digest is None else self._digest.digest()
        self._record(Finished(replace(self._file, sha256=digest), bytes(self._tags)))
        self._close()

    def drop(self) -> None:
        if self._writer >= 0:
            self._target.unlink(missing_ok=True)
        self._close()

    def _read(self, offset: int, out: memoryview) -> None:
        try:
            whole = read_at(self._reader, offset, out)
        except OSError as error:
            words = (error.strerror or "failed").lower()
            raise MachineError(f"{self._source}: {words} at byte {offset}") from error
        if not whole:
            raise changed(self._source)

    def _check_unchanged(self) -> None:
        if stamp(os.fstat(self._reader)) != (self._file.size, self._file.mtime_ns):
            raise changed(self._source)

    def _close(self) -> None:
        for fd in (self._reader, self._writer):
            if fd >= 0:
                os.close(fd)
        self._reader = self._writer = -1


def _write_at(fd: int, offset: int, pieces: list[memoryview]) -> None:
    while pieces:
        count = os.pwritev(fd, pieces, offset)
        offset += count
        while pieces and count >= len(pieces[0]):
            count -= len(pieces.pop(0))
        if count:
            pieces[0] = pieces[0][count:]
