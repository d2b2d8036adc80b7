"""The content of one file of a gocryptfs volume, opened: plain bytes in and out, sealed blocks on disk.

Whoever writes holds the file's lock. Whoever reads does not: a block that was half written when it was read does not
verify, so it is read again with writers held off, and only what does not verify then is refused.
"""

import ctypes
import errno
import os
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from itertools import pairwise
from threading import Lock
from typing import Final

from sidecars.fs.live.intents import Workspace
from sidecars.fs.live.operations import refuse
from strongroom.errors import FormatError, VerifyError
from strongroom.sealed.gocryptfs.content import BLOCK, FILE_ID_SIZE, HEADER_SIZE, MAX_SIZE, ContentCipher

_KEEP_SIZE: Final = 1  # of fallocate(2)
_PUNCH_HOLE: Final = 2
_ZERO_RANGE: Final = 16
_ZEROS: Final = memoryview(bytes(1 << 20))
_MANY: Final = 16 * BLOCK
# The cipher is called once for a block and lets go of the interpreter each time: two threads that have many to do would
# spend a fifth of it on taking turns.
_TURN: Final = Lock()
_NO_TURN: Final = nullcontext()
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Content:
    """One inode, shared by all who have it open. Offsets and sizes are of plaintext, but where `sealed` is said."""

    __slots__ = ("_cipher", "_file_id", "_inode", "_lock", "_shared", "fd", "key", "users", "writable")

    def __init__(
        self, fd: int, key: tuple[int, int], cipher: ContentCipher, *, writable: bool, shared: bool
    ) -> None:
        self.fd = fd
        self.key: Final = key  # device and inode number
        self.users = 1
        self.writable = writable
        self._inode: Final = key[1]
        self._cipher: Final = cipher
        self._shared: Final = shared  # another machine may give the file a new id
        self._file_id: bytes | None = None  # not yet read, or the file is empty; set by holders of the lock
        self._lock: Final = Lock()

    # Reading

    def read_into(self, out: memoryview, offset: int, work: Workspace) -> int:
        """Fill `out`, at most MAX_TRANSFER bytes, as far as the file goes; how far that was.

        Raises VerifyError or FormatError naming the block that does not verify; `out` then holds garbage.
        """
        if (file_id := self._file_id) is not None:
            with suppress(VerifyError, FormatError):
                return self._read(out, offset, work, file_id)
        with self._lock:
            self._file_id = None
            if not os.lseek(self.fd, 0, os.SEEK_END):
                return 0
            return self._read(out, offset, work, self._id())

    def _read(self, out: memoryview, offset: int, work: Workspace, file_id: bytes) -> int:
        cipher = self._cipher
        sealed_size = os.lseek(self.fd, 0, os.SEEK_END)
        wanted = min(len(out), cipher.plain_size(sealed_size) - offset)
        if wanted <= 0:
            return 0
        first, start = divmod(offset, BLOCK)
        count = -(-(start + wanted) // BLOCK)
        at = HEADER_SIZE + first * cipher.sealed_block
        sealed = work.sealed[: min(count * cipher.sealed_block, sealed_size - at)]
        self._load(sealed, at)
        plain = len(sealed) - count * cipher.overhead
        if start == 0 and plain <= len(out):
            self._open(file_id, first, sealed, out[:plain])
        else:
            self._open(file_id, first, sealed, work.plain[:plain])
            out[:wanted] = work.plain[start : start + wanted]
        return wanted

    def _open(self, file_id: bytes, first: int, sealed: memoryview, out: memoryview) -> None:
        with _TURN if len(out) >= _MANY else _NO_TURN:
            self._cipher.open_blocks(file_id, first, sealed, out)

    def _load(self, room: memoryview, at: int) -> None:
        if (got := os.preadv(self.fd, [room], at)) != len(room):
            raise VerifyError(f"inode {self._inode}: {got} bytes at byte {at}, want {len(room)}")

    def _id(self) -> bytes:
        if (file_id := self._file_id) is None or self._shared:
            file_id = self._file_id = self._cipher.parse_header(os.pread(self.fd, HEADER_SIZE, 0))
        return file_id

    def seek(self, offset: int, whence: int) -> int:
        """Where data, or a hole, begins at or behind `offset`: a hole is a block of which nothing is stored."""
        size = self._cipher.plain_size(os.lseek(self.fd, 0, os.SEEK_END))
        if offset >= size or whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            refuse(errno.ENXIO if offset >= size else errno.EINVAL)
        block = offset // BLOCK
        while block * BLOCK < size:
            data = self._data_from(block)
            if whence == os.SEEK_DATA:
                if data is None:
                    refuse(errno.ENXIO)
                return max(offset, data * BLOCK)
            if data != block:
                return max(offset, block * BLOCK)
            block = max(block + 1, self._hole_from(block))
        return size

    def _data_from(self, block: int) -> int | None:
        """The first block from this one on of which something is stored."""
        try:
            at = os.lseek(self.fd, HEADER_SIZE + block * self._cipher.sealed_block, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise
        return max(block, (at - HEADER_SIZE) // self._cipher.sealed_block)

    def _hole_from(self, block: int) -> int:
        """The first block behind this one that could be a hole."""
        at = os.lseek(self.fd, HEADER_SIZE + block * self._cipher.sealed_block, os.SEEK_HOLE)
        return -(-(at - HEADER_SIZE) // self._cipher.sealed_block)

    # Writing

    def write(self, data: memoryview, offset: int, work: Workspace) -> int:
        """Write at most MAX_TRANSFER bytes; how many, which is fewer only where the store became full."""
        if offset + len(data) > MAX_SIZE:
            refuse(errno.EFBIG)
        with self._lock:
            return self._write(data, offset, work)

    def truncate(self, length: int, work: Workspace) -> None:
        """Cut the file, or let it grow by a hole."""
        if length > MAX_SIZE:
            refuse(errno.EFBIG)
        with self._lock:
            sealed_size, size = self._sizes()
            if length > size:
                self._grow(length, sealed_size, size, work)
            elif length == 0:
                os.ftruncate(self.fd, 0)
                self._file_id = None
            elif length % BLOCK == 0 or length == size:
                os.ftruncate(self.fd, self._cipher.cipher_size(length))
            else:
                self._cut(length, size, work)

    def allocate(self, mode: int, offset: int, length: int, work: Workspace) -> None:
        """fallocate(2): reserve, punch a hole, or zero. OSError EOPNOTSUPP for the rest."""
        end = offset + length
        if end > MAX_SIZE:
            refuse(errno.EFBIG)
        with self._lock:
            sealed_size, size = self._sizes()
            if mode in (0, _KEEP_SIZE):
                start = HEADER_SIZE + offset // BLOCK * self._cipher.sealed_block
                _fallocate(self.fd, _KEEP_SIZE, start, self._cipher.cipher_size(end) - start)
            elif mode not in (_PUNCH_HOLE | _KEEP_SIZE, _ZERO_RANGE, _ZERO_RANGE | _KEEP_SIZE):
                refuse(errno.EOPNOTSUPP)
            elif offset < size:
                self._zero(offset, min(end, size), work)
            if not mode & _KEEP_SIZE and end > size:
                self._grow(end, sealed_size, size, work)

    def sync(self, *, data_only: bool) -> None:
        (os.fdatasync if data_only else os.fsync)(self.fd)

    def _sizes(self) -> tuple[int, int]:
        sealed_size = os.lseek(self.fd, 0, os.SEEK_END)
        return sealed_size, self._cipher.plain_size(sealed_size)

    def _write(self, data: memoryview, offset: int, work: Workspace) -> int:
        sealed_size, size = self._sizes()
        if offset > size and size % BLOCK and offset // BLOCK > size // BLOCK:
            self._put(_ZEROS[: BLOCK - size % BLOCK], size, sealed_size, work)
            sealed_size, size = self._sizes()
        if not sealed_size and offset >= BLOCK:
            sealed_size = self._begin()
        return self._put(data, offset, sealed_size, work)

    def _begin(self) -> int:
        """Give an empty file its header; its sealed size."""
        file_id = os.urandom(FILE_ID_SIZE)
        os.pwrite(self.fd, self._cipher.new_header(file_id), 0)
        self._file_id = file_id
        return HEADER_SIZE

    def _grow(self, length: int, sealed_size: int, size: int, work: Workspace) -> None:
        if length % BLOCK:
            self._write(_ZEROS[:1], length - 1, work)  # a last block that is short cannot be a hole
            return
        if size % BLOCK:
            self._put(_ZEROS[: BLOCK - size % BLOCK], size, sealed_size, work)
        elif not sealed_size:
            self._begin()
        os.ftruncate(self.fd, self._cipher.cipher_size(length))

    def _cut(self, length: int, size: int, work: Workspace) -> None:
        """End the file inside a block."""
        block, keep = divmod(length, BLOCK)
        old = self._old(block, size, work, work.plain)
        length = self._seal(block, work.plain[:keep], b"", work)
        self._store(block, 0, length, work, old={block: old}, cut=True)

    def _zero(self, start: int, end: int, work: Workspace) -> None:
        """Make bytes inside the file zeros, whole blocks by storing nothing of them."""
        first, last, sealed_block = -(-start // BLOCK), end // BLOCK, self._cipher.sealed_block
        edges = [(start, end)]
        if first < last:
            with suppress(OSError):  # of a store that knows no holes: zeros are written
                at = HEADER_SIZE + first * sealed_block
                _fallocate(self.fd, _PUNCH_HOLE | _KEEP_SIZE, at, (last - first) * sealed_block)
                edges = [(start, first * BLOCK), (last * BLOCK, end)]
        for low, high in edges:
            for at, after in pairwise([*range(low, high, len(_ZEROS)), high]):
                self._put(_ZEROS[: after - at], at, self._sizes()[0], work)

    def _put(self, data: memoryview, offset: int, sealed_size: int, work: Workspace) -> int:
        """Seal and store the blocks that `data` touches; how much of it was stored. There is a header, or no gap."""
        size = self._cipher.plain_size(sealed_size)
        end = offset + len(data)
        first, start = divmod(offset, BLOCK)
        base, last = first * BLOCK, (end - 1) // BLOCK
        after = min((last + 1) * BLOCK, max(size, end))  # where the last block will end
        old: dict[int, bytes] = {}
        if start or end < after:
            plain = work.plain[: after - base]
            if end < after and last > first:
                old[last] = self._old(last, size, work, plain[(last - first) * BLOCK :])
            if start or last == first:
                old[first] = self._old(first, size, work, plain)
                if (there := max(0, size - base)) < start:
                    plain[there:start] = _ZEROS[: start - there]
            plain[start : start + len(data)] = data
        else:
            plain = data
        if size % BLOCK and base <= size < end and size // BLOCK not in old:
            old[size // BLOCK] = self._stored(size // BLOCK, sealed_size, work)
        header = b"" if sealed_size else self._cipher.new_header(os.urandom(FILE_ID_SIZE))
        length = self._seal(first, plain, header, work)
        stored = self._store(first, len(header), length, work, old=old)
        if stored == length:
            return len(data)
        return min(len(data), stored // self._cipher.sealed_block * BLOCK - start)

    def _old(self, block: int, size: int, work: Workspace, out: memoryview) -> bytes:
        """Open a block into the start of `out`; the block as it is stored, nothing behind the end of the file."""
        there = min(BLOCK, size - block * BLOCK)
        if there <= 0:
            return b""
        sealed = work.sealed[: there + self._cipher.overhead]
        self._load(sealed, HEADER_SIZE + block * self._cipher.sealed_block)
        self._cipher.open_blocks(self._id(), block, sealed, out[:there])
        return bytes(sealed)

    def _stored(self, block: int, sealed_size: int, work: Workspace) -> bytes:
        at = HEADER_SIZE + block * self._cipher.sealed_block
        sealed = work.sealed[: min(self._cipher.sealed_block, sealed_size - at)]
        self._load(sealed, at)
        return bytes(sealed)

    def _seal(self, first: int, plain: memoryview, header: bytes, work: Workspace) -> int:
        """Fill work.room with header and sealed blocks; bytes of the blocks."""
        nonces = os.urandom(-(-len(plain) // BLOCK) * self._cipher.nonce_size)
        file_id = self._cipher.parse_header(header) if header else self._id()
        work.room[: len(header)] = header
        with _TURN if len(plain) >= _MANY else _NO_TURN:
            return self._cipher.seal_blocks(file_id, first, plain, work.room[len(header) :], nonces)

    def _store(
        self,
        first: int,
        header: int,
        length: int,
        work: Workspace,
        *,
        old: Mapping[int, bytes],
        cut: bool = False,
    ) -> int:
        """Write what lies in work.room; bytes of blocks that were written whole.

        `old` are blocks as they are stored now, at least the last of the file if it is short and is replaced. Where
        the store cannot take it all, no part of a block stays. OSError when it could take none.
        """
        at = 0 if header else HEADER_SIZE + first * self._cipher.sealed_block
        name = bytes(work.room[:header]) or self._cipher.new_header(self._id())
        before, done, total = os.lseek(self.fd, 0, os.SEEK_END), 0, header + length
        work.intend(inode=self._inode, header=name, offset=at, length=total, cut=cut)
        try:
            while done < total:
                done += os.pwrite(self.fd, work.room[done:total], at + done)
            if cut:
                os.ftruncate(self.fd, at + total)
        except OSError:
            blocks = max(0, done - header) // self._cipher.sealed_block
            whole = blocks * self._cipher.sealed_block
            with suppress(OSError):
                self._undo(at + header + whole if blocks else at, at + done, before, old.get(first + blocks))
            if not blocks:
                raise
            length = whole
        finally:
            work.settle()
        if header:
            self._file_id = self._cipher.parse_header(name)
        return length

    def _undo(self, start: int, end: int, before: int, old: bytes | None) -> None:
        """Take back part of a block that was written from `start` to `end` of an object of `before` bytes."""
        if start >= before:
            os.ftruncate(self.fd, start)
            return
        if old is None and end > start:
            rest = os.pread(self.fd, self._cipher.sealed_block - (end - start), end)
            old = None if any(rest) else bytes(end - start)  # it was a hole
        if old is not None:
            os.pwrite(self.fd, old, start)
        if end > before:
            os.ftruncate(self.fd, before)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    while _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        if (number := ctypes.get_errno()) != errno.EINTR:  # Python asks again by itself, ctypes does not
            refuse(number)
