"""Verified plaintext out of objects, whole blocks decrypted where they shall lie.

With pins, a MiB is loaded whole the first time any of it is read, and the nonces and tags of all its blocks are
compared with the one digest the side manifest has for it. They are kept, so that the next read of the same MiB loads
its own blocks only.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from strongroom.errors import MachineError, ProtocolError, VerifyError
from strongroom.host.gocryptfs.stored import StoredFile
from strongroom.host.open_files import OpenFiles
from strongroom.host.stored import MAX_READ, make_buffer
from strongroom.sealed.gocryptfs.batch import BLOCKS, Batch
from strongroom.sealed.gocryptfs.content import BLOCK, ContentCipher
from strongroom.sealed.gocryptfs.side import DIGEST_SIZE

PAUSES: Final = (0.05, 0.2, 0.8)  # seconds before each further try at a store that fails
KEPT: Final = 512  # MiB of which the pins are kept: 8 KiB each


@dataclass(frozen=True, slots=True)
class Pins:
    """What a side manifest says of one file: a digest for each MiB, and which blocks are holes."""

    digests: memoryview = field(repr=False)
    holes: tuple[tuple[int, int], ...] = ()

    def holes_in(self, first: int, count: int) -> set[int]:
        """Numbers, from `first`, of the holes among `count` blocks."""
        found = set[int]()
        for start, length in self.holes:
            found.update(range(max(start - first, 0), min(start + length - first, count)))
        return found


@dataclass(frozen=True, slots=True)
class Readable:
    """A file that can be read: its place on disk, and what was found there.

    `pins` is None where the bare format has to do.
    """

    path: bytes  # on disk
    size: int  # bytes of plaintext
    file_id: bytes
    pins: Pins | None = None


class GocryptfsReader:
    """Reads with buffers made once, and opens objects as they are wanted, below the directory `top`.

    For one thread: what read() gives out is valid until the next read().
    """

    def __init__(
        self,
        files: Sequence[Readable],
        top: int,
        cipher: ContentCipher,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._files = files
        self._open_files = OpenFiles(self._open_file)
        self._top = top
        self._cipher = cipher
        self._pause = pause
        self._batch = Batch(cipher, make_buffer(BLOCKS * cipher.sealed_block))
        self._plain = make_buffer(MAX_READ + BLOCK)
        self._outs = [self._plain[at : at + BLOCK] for at in range(0, len(self._plain), BLOCK)]
        self._held: tuple[int, int] | None = None  # the MiB of the file whose blocks are all in the batch
        self._known: dict[tuple[int, int], bytes] = {}  # pins found genuine, oldest first

    def read(self, key: int, offset: int, size: int) -> memoryview:
        """1..MAX_READ bytes inside one file, every block of them verified."""
        if not 0 < size <= MAX_READ:
            raise ProtocolError(f"read of {size} bytes, want 1..{MAX_READ}")
        first, start = divmod(offset, BLOCK)
        self._open(key, first, self._outs[: -(-(start + size) // BLOCK)])
        return self._plain[start : start + size]

    def read_into(self, key: int, offset: int, out: memoryview) -> None:
        """As read(), of any length, into `out`. Whole blocks are decrypted where they shall lie."""
        if start := offset % BLOCK:
            head = min(BLOCK - start, len(out))
            out[:head] = self.read(key, offset, head)
            out, offset = out[head:], offset + head
        end = offset + len(out)
        whole = end == self._files[key].size or end % BLOCK == 0
        while len(out) >= BLOCK or (out and whole):
            length = min(len(out), MAX_READ - offset % MAX_READ)  # no more than one MiB of blocks at a time
            if not whole:
                length -= length % BLOCK
            piece = out[:length]
            self._open(key, offset // BLOCK, [piece[at : at + BLOCK] for at in range(0, length, BLOCK)])
            out, offset = out[length:], offset + length
        if out:
            out[:] = self.read(key, offset, len(out))

    def _open(self, key: int, first: int, outs: Sequence[memoryview]) -> None:
        """Fill `outs` with blocks from `first` on; the last block of the file may be shorter than its output."""
        stored, stop = self._stored(key), first + len(outs)
        if stop > stored.blocks:
            raise ProtocolError(f"{stored.subject}: read of block {stop - 1}, want 0..{stored.blocks - 1}")
        while first < stop:
            base = first - first % BLOCKS
            until = min(stop, base + BLOCKS)
            self._load(key, stored, base, first, until)
            full = min(until, stored.full)
            try:
                self._batch.open(stored.file_id, base, first - base, full - base, outs)
                if full < until:
                    room, short = self._batch.room(full - base, full - base, stored.rest), stored.size % BLOCK
                    self._cipher.open_block(stored.file_id, full, room, outs[full - first][:short])
            except VerifyError as error:
                raise VerifyError(f"{stored.subject}: {error}") from None
            outs, first = outs[until - first :], until

    def _stored(self, key: int) -> StoredFile:
        for pause in PAUSES:
            try:
                return self._open_files.get(key)
            except MachineError:
                self._pause(pause)
        return self._open_files.get(key)

    def _open_file(self, key: int) -> StoredFile:
        file = self._files[key]
        return StoredFile.again(file.path, self._top, self._cipher, size=file.size, file_id=file.file_id)

    def _load(self, key: int, stored: StoredFile, base: int, first: int, until: int) -> None:
        """See that the batch holds blocks first..until - 1 of the MiB that begins with block `base`."""
        file, mib = self._files[key], (key, base // BLOCKS)
        if self._held == mib:
            return
        self._held = None
        if file.pins is None:
            self._fetch(stored, base, first, until)
        elif (known := self._known.get(mib)) is None:
            last = min(base + BLOCKS, stored.blocks)
            pins = self._fetch(stored, base, base, last, pins=True)
            self._check(stored, file.pins, base, pins)
            self._held = mib
            self._keep(mib, pins)
        else:
            pins, size = self._fetch(stored, base, first, until, pins=True), self._cipher.overhead
            if pins != known[(first - base) * size : (until - base) * size]:
                raise VerifyError(
                    f"{stored.subject}: blocks {first}..{until - 1} are not those that were pinned"
                )

    def _fetch(self, stored: StoredFile, base: int, first: int, until: int, *, pins: bool = False) -> bytes:
        full = min(until, stored.full)
        places = (first - base, full - base, stored.rest if full < until else 0)
        room = self._batch.room(*places)
        for pause in PAUSES:
            try:
                stored.load(first, room)
                break
            except MachineError:
                self._pause(pause)
        else:
            stored.load(first, room)
        return self._batch.pins(*places) if pins else b""

    def _check(self, stored: StoredFile, wanted: Pins, base: int, pins: bytes) -> None:
        mib, size = base // BLOCKS, self._cipher.overhead
        if sha256(pins).digest() != wanted.digests[mib * DIGEST_SIZE : (mib + 1) * DIGEST_SIZE]:
            raise VerifyError(f"{stored.subject}: MiB {mib} is not the one that was pinned")
        hole = bytes(size)
        if hole in pins or wanted.holes:
            count = len(pins) // size
            found = {index for index in range(count) if pins[index * size : (index + 1) * size] == hole}
            if odd := found ^ wanted.holes_in(base, count):
                raise VerifyError(f"{stored.subject}: block {base + min(odd)} is a hole against the manifest")

    def _keep(self, mib: tuple[int, int], pins: bytes) -> None:
        while len(self._known) >= KEPT:
            del self._known[next(iter(self._known))]
        self._known[mib] = pins
