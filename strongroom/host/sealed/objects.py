"""One large file's way into an object: read, sealed, written, and handed on to be settled on disk."""

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from strongroom.errors import MachineError
from strongroom.host.folder import Folder
from strongroom.host.sealed.blocks import Room, bounds
from strongroom.host.sealed.plain import changed, open_plain, read_at, stamp
from strongroom.host.sealed.settling import Settling
from strongroom.host.sealed.writer import ObjectWriter
from strongroom.sealed.journal import Record
from strongroom.sealed.manifest import SealedFile


class SealingObject:
    """A job for a crew. `record` is told of the object when it is begun, `settling` gets it when it is written."""

    def __init__(
        self,
        source: Path,
        objects: Folder,
        file: SealedFile,
        *,
        chunk_log2: int,
        hashed: bool,
        record: Callable[[Record], None],
        settling: Settling,
    ) -> None:
        self._source = source
        self._file = file
        self._writer = ObjectWriter(objects, file, chunk_log2=chunk_log2, record=record, settling=settling)
        self._digest = sha256() if hashed else None
        self._reader = -1

    @property
    def blocks(self) -> int:
        return self._writer.blocks

    def start(self) -> None:
        try:
            with open_plain(self._source) as reader:
                self._reader = os.dup(reader.fileno())
            self._check_unchanged()
            self._writer.begin()
        except BaseException:
            self.drop()
            raise

    def work(self, block: int, room: Room) -> int:
        offset, length = bounds(self._file.size, block)
        self._read(offset, room.plain[:length])
        self._writer.write(block, room)
        return length

    def follow(self, block: int, room: Room) -> None:
        if self._digest is not None:
            self._digest.update(room.plain[: bounds(self._file.size, block)[1]])

    def finish(self) -> None:
        self._check_unchanged()
        self._writer.finish(None if self._digest is None else self._digest.digest())
        self._close()

    def drop(self) -> None:
        self._writer.drop()
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
        if self._reader >= 0:
            os.close(self._reader)
        self._reader = -1
