"""One object being written: blocks of plaintext in, sealed chunks on disk, and a record when it is there whole."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from strongroom.host.folder import Folder
from strongroom.host.sealed.blocks import Room, bounds, count_blocks
from strongroom.host.sealed.settling import Settling
from strongroom.sealed.chunks import TAG_SIZE, ChunkCipher, Chunking
from strongroom.sealed.journal import Begun, Finished, Record
from strongroom.sealed.manifest import SealedFile


class ObjectWriter:
    """Every block is to be written once, in any order and by any thread, each with a room of its own.

    `record` is called for the object when it is begun, and when it is finished: at once, or with `settling` when that
    has settled it.
    """

    def __init__(
        self,
        objects: Folder,
        file: SealedFile,
        *,
        chunk_log2: int,
        record: Callable[[Record], None],
        settling: Settling | None = None,
    ) -> None:
        self._objects = objects
        self._file = file
        self._chunking = Chunking(file.size, chunk_log2)
        self._cipher = ChunkCipher(key=file.key, object_id=file.object_id, chunking=self._chunking)
        self._tags = bytearray(self._chunking.count * TAG_SIZE)
        self._record = record
        self._settling = settling
        self._fd = -1

    @property
    def blocks(self) -> int:
        return count_blocks(self._file.size)

    def begin(self) -> None:
        self._record(Begun(self._file.object_id))
        self._fd = self._objects.open_file(self._file.object_name)

    def write(self, block: int, room: Room) -> None:
        """Seal and write the block whose plaintext stands in the room."""
        offset, _ = bounds(self._file.size, block)
        sealed = []
        for index, slot, plain in room.of(self._chunking, offset >> self._chunking.chunk_log2):
            self._cipher.seal(index, plain, slot)
            self._tags[index * TAG_SIZE : (index + 1) * TAG_SIZE] = slot[-TAG_SIZE:]
            sealed.append(slot[:-TAG_SIZE])
        _write_at(self._fd, offset, sealed)

    def flush(self) -> None:
        """Have what was written on disk, so that the end of a large object does not have all of it to wait for."""
        os.fdatasync(self._fd)

    def finish(self, digest: bytes | None) -> None:
        """After the last block: on disk, out of the page cache, and recorded with the plaintext's SHA-256."""
        finished = Finished(replace(self._file, sha256=digest), bytes(self._tags))
        if self._settling is not None:
            fd, self._fd = self._fd, -1
            self._settling.add(fd, finished)
            return
        os.fsync(self._fd)
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)  # what is verified is read from the store
        self._record(finished)
        self.close()

    def drop(self) -> None:
        """Instead of finish(): nothing stays."""
        if self._fd >= 0:
            with suppress(OSError):  # what failed before is what is said
                self._objects.remove(self._file.object_name)
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def _write_at(fd: int, offset: int, pieces: list[memoryview]) -> None:
    while pieces:
        count = os.pwritev(fd, pieces, offset)
        offset += count
        while pieces and count >= len(pieces[0]):
            count -= len(pieces.pop(0))
        if count:
            pieces[0] = pieces[0][count:]
