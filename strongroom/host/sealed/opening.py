"""A sealed tree back into a plain directory. Nothing is written that was not verified first."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from strongroom.errors import ConfigError, VerifyError
from strongroom.host.folder import CREATE
from strongroom.host.removal import clear, undone
from strongroom.host.sealed.blocks import Room, bounds, count_blocks, open_block
from strongroom.host.sealed.crew import Crew, Progress, default_workers
from strongroom.host.sealed.destination import machine_errors
from strongroom.host.sealed.tree import SealedStore, StoredObject
from strongroom.sealed.manifest import Directory, InlineFile, SealedFile, Symlink
from strongroom.sealed.volume import OpenedObject

_ZEROS: Final = bytes(64 << 10)


def open_tree(
    store: SealedStore,
    dest: Path,
    *,
    workers: int | None = None,
    progress: Progress = lambda _: None,
) -> None:
    """Write every file, directory and link of `store` into `dest`, which must be absent or empty.

    Raises VerifyError naming object and chunk at the first that does not verify. Then, and when the disk fails, `dest`
    is empty or absent again; where that cannot be, the error says so.
    """
    existed = os.path.lexists(dest)
    with machine_errors(dest):
        dest.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _opened(dest) as top:
            if os.listdir(top):
                raise ConfigError(f"{dest}: not empty, want an empty or absent directory")

            def undo() -> None:
                clear(top)
                if not existed:
                    dest.rmdir()

            with undone(undo, f"what was written to {dest}"), machine_errors(dest):
                _write_all(store, dest, workers or default_workers(), progress)


@contextmanager
def _opened(dest: Path) -> Iterator[int]:
    top = os.open(dest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield top
    finally:
        os.close(top)


def _write_all(store: SealedStore, dest: Path, workers: int, progress: Progress) -> None:
    for entry in store.manifest.entries:  # sorted: a directory comes before what it holds
        match entry:
            case Directory():
                (dest / entry.path).mkdir(mode=0o700)
            case InlineFile():
                with os.fdopen(os.open(dest / entry.path, CREATE, 0o600), "wb") as file:
                    file.write(entry.content)
                    file.flush()  # or it would be written behind its time
                    _stamp(file.fileno(), entry)
            case _:
                pass
    jobs = [_Opening(one, store.stored, dest / one.file.path) for one in store.objects]
    Crew(lambda: Room(store.header.chunk_log2), workers=workers).run(jobs, progress)
    for entry in reversed(store.manifest.entries):  # what writes into a directory changes its time
        match entry:
            case Symlink():
                (dest / entry.path).symlink_to(entry.target)
                os.utime(dest / entry.path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
            case Directory():
                (dest / entry.path).chmod(entry.mode)
                os.utime(dest / entry.path, ns=(entry.mtime_ns, entry.mtime_ns))
            case _:
                pass


def _stamp(fd: int, file: InlineFile | SealedFile) -> None:
    os.fchmod(fd, file.mode)
    os.utime(fd, ns=(file.mtime_ns, file.mtime_ns))


class _Opening:
    """A job for a crew: one object into one file. Zeros are left out, so that holes are holes again."""

    def __init__(
        self, opened: OpenedObject, stored: Callable[[OpenedObject], StoredObject], target: Path
    ) -> None:
        self._opened: Final = opened
        self._open_stored: Final = stored
        self._target: Final = target
        self._digest: Final = sha256() if opened.file.sha256 is not None else None
        self._stored: StoredObject | None = None
        self._writer = -1

    @property
    def blocks(self) -> int:
        return count_blocks(self._opened.file.size)

    def start(self) -> None:
        self._stored = self._open_stored(self._opened)
        try:
            self._writer = os.open(self._target, CREATE, 0o600)
            os.ftruncate(self._writer, self._opened.file.size)
        except BaseException:
            self.drop()
            raise

    def work(self, block: int, room: Room) -> int:
        assert self._stored is not None  # start() was called
        plain = open_block(self._stored, block, room)
        offset, length = bounds(self._opened.file.size, block)
        for at in range(0, length, len(_ZEROS)):
            piece = plain[at : at + len(_ZEROS)]
            if piece != _ZEROS[: len(piece)]:
                _write_whole(self._writer, offset + at, piece)
        return length

    def follow(self, block: int, room: Room) -> None:
        if self._digest is not None:
            self._digest.update(room.plain[: bounds(self._opened.file.size, block)[1]])

    def finish(self) -> None:
        file = self._opened.file
        if self._digest is not None and file.sha256 and self._digest.digest() != file.sha256:
            found = self._digest.hexdigest()
            raise VerifyError(f"object {file.object_name}: digest is {found}, want {file.sha256.hex()}")
        _stamp(self._writer, file)
        self.drop()

    def drop(self) -> None:
        if self._stored is not None:
            self._stored.close()
            self._stored = None
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1


def _write_whole(fd: int, offset: int, piece: memoryview) -> None:
    while piece:
        count = os.pwrite(fd, piece, offset)
        piece, offset = piece[count:], offset + count
