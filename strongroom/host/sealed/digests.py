"""The SHA-256 of plaintext files, several at a time."""

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

from strongroom.host.sealed.blocks import BLOCK, bounds, count_blocks
from strongroom.host.sealed.crew import Crew, Progress, default_workers
from strongroom.host.sealed.plain import changed, open_plain, read_at
from strongroom.sealed.manifest import SealedFile


def digests(
    source: Path, files: Iterable[SealedFile], progress: Progress = lambda _: None
) -> dict[str, bytes]:
    """Path to digest, of files below `source` as a scan found them. MachineError when one is shorter by now."""
    jobs = [_Hashing(source / file.path, file) for file in files]
    Crew(lambda: memoryview(bytearray(BLOCK)), workers=default_workers()).run(jobs, progress)
    return {job.file.path: job.digest.digest() for job in jobs}


class _Hashing:
    def __init__(self, source: Path, file: SealedFile) -> None:
        self.file: Final = file
        self.digest: Final = sha256()
        self._source: Final = source
        self._fd = -1

    @property
    def blocks(self) -> int:
        return count_blocks(self.file.size)

    def start(self) -> None:
        with open_plain(self._source) as reader:
            self._fd = os.dup(reader.fileno())

    def work(self, block: int, room: memoryview) -> int:
        offset, length = bounds(self.file.size, block)
        if not read_at(self._fd, offset, room[:length]):
            raise changed(self._source)
        return length

    def follow(self, block: int, room: memoryview) -> None:
        self.digest.update(room[: bounds(self.file.size, block)[1]])

    def finish(self) -> None:
        os.close(self._fd)

    def drop(self) -> None:
        os.close(self._fd)
