"""Frames of the kernel's FUSE protocol that only a file system needs which can change. Pure: bytes in, bytes out.

What is called `attrs` here is fusepy's: a mapping with the names of stat(2), times in nanoseconds. Names are the
kernel's own. Source: linux/include/uapi/linux/fuse.h, protocol 7.31 to 7.45.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from struct import Struct
from typing import Final, NamedTuple

from sidecars.fs.protocol.frames import ATTR_SIZE, InitFlag, Opcode, Request, pack_entry
from strongroom.errors import ProtocolError

MAX_TRANSFER: Final = 1 << 20  # bytes of one READ or WRITE: 256 pages
REQUEST_BUFFER: Final = MAX_TRANSFER + 4096  # bytes: the largest WRITE and its headers
NO_CHANGE: Final = 2**32 - 1  # an owner that is left as it is
WRITE_KILL_SUIDGID: Final = 1 << 2
OPEN_KILL_SUIDGID: Final = 1 << 0
_SETATTR_IN: Final = Struct("=IIQQQQQQIIIIIIII")
_TWO_WORDS: Final = Struct("=II")
_FOUR_WORDS: Final = Struct("=IIII")
_LONG: Final = Struct("=Q")
_TRANSFER_IN: Final = Struct("=QQIIQII")
_FSYNC_IN: Final = Struct("=QII")
_FALLOCATE_IN: Final = Struct("=QQQII")
_LSEEK_IN: Final = Struct("=QQII")
_RENAME2_IN: Final = Struct("=QII")
_FORGET_ONE: Final = Struct("=QQ")
_ATTR: Final = Struct("=QQQQQQIIIIIIIIII")
_STATFS_OUT: Final = Struct("=QQQQQIIII24x")
_BILLION: Final = 10**9
_U64: Final = 2**64 - 1
# We take setuid away when a file is written; else the kernel asks for an attribute before each write.
_KILLPRIV_V2: Final = InitFlag(1 << 28)

# No WRITEBACK_CACHE: a write() that has returned is in the store, not in the memory of a kernel whose daemon may die,
# and "no space" is the answer of the write that met it. No locks either: the kernel keeps them, for one machine. No
# READDIRPLUS_AUTO: it asks for attributes in one of four requests only, and then for each of the rest alone.
WANTED: Final = (
    InitFlag.ASYNC_READ
    | InitFlag.ATOMIC_O_TRUNC
    | InitFlag.BIG_WRITES
    | InitFlag.DO_READDIRPLUS
    | InitFlag.ASYNC_DIO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
    | InitFlag.CACHE_SYMLINKS
    | _KILLPRIV_V2
)
WANTED_ALONE: Final = WANTED | InitFlag.EXPLICIT_INVAL_DATA  # nobody else changes the store
WANTED_SHARED: Final = WANTED | InitFlag.AUTO_INVAL_DATA  # pages go when a file's times have changed


class Valid(IntFlag):
    """Which members of a SETATTR count."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    KILL_SUIDGID = 1 << 11


class Changes(NamedTuple):
    """What a SETATTR asks for. Times in nanoseconds; None for "now"."""

    valid: Valid
    fh: int
    size: int
    mode: int
    uid: int
    gid: int
    atime: int | None
    mtime: int | None


class Transfer(NamedTuple):
    """A READ, WRITE, READDIR or READDIRPLUS."""

    fh: int
    offset: int
    size: int
    flags: int  # write_flags, read_flags


@dataclass(slots=True)
class Call(Request):
    """One request. Every method raises ProtocolError for a body that is not what fuse.h says."""

    def name_at(self, at: int = 0) -> bytes:
        """The name that is the body from `at` on."""
        return self._strings(at, 1)[0]

    def names(self, at: int = 0) -> tuple[bytes, bytes]:
        """The two names that are the body from `at` on."""
        first, second = self._strings(at, 2)
        return first, second

    def forgotten(self) -> list[tuple[int, int]]:
        """Nodes of a BATCH_FORGET, and how many lookups of each."""
        count = self._unpack(_TWO_WORDS)[0]
        if len(self.body) != _TWO_WORDS.size + count * _FORGET_ONE.size:
            raise ProtocolError(f"fuse: {count} nodes to forget in {len(self.body)} bytes")
        return [(node, lookups) for node, lookups in _FORGET_ONE.iter_unpack(self.body[_TWO_WORDS.size :])]

    def forget(self) -> int:
        return self._unpack(_LONG)[0]

    def setattr(self) -> Changes:
        valid, _, fh, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = self._unpack(
            _SETATTR_IN
        )
        flags = Valid(valid)
        return Changes(
            flags,
            fh,
            size,
            mode,
            uid if Valid.UID in flags else NO_CHANGE,
            gid if Valid.GID in flags else NO_CHANGE,
            None if Valid.ATIME_NOW in flags else _signed(atime) * _BILLION + atime_ns,
            None if Valid.MTIME_NOW in flags else _signed(mtime) * _BILLION + mtime_ns,
        )

    def mknod(self) -> tuple[int, int, bytes]:
        """mode, rdev, name."""
        mode, rdev, _, _ = self._unpack(_FOUR_WORDS)
        return mode, rdev, self.name_at(_FOUR_WORDS.size)

    def mkdir(self) -> tuple[int, bytes]:
        """mode, name."""
        return self._unpack(_TWO_WORDS)[0], self.name_at(_TWO_WORDS.size)

    def rename(self) -> tuple[int, int, bytes, bytes]:
        """The new directory, flags of renameat2(2), old and new name, of a RENAME or RENAME2."""
        if self.opcode == Opcode.RENAME:
            return self._unpack(_LONG)[0], 0, *self.names(_LONG.size)
        directory, flags, _ = self._unpack(_RENAME2_IN)
        return directory, flags, *self.names(_RENAME2_IN.size)

    def link(self) -> tuple[int, bytes]:
        """The node to link, and the new name."""
        return self._unpack(_LONG)[0], self.name_at(_LONG.size)

    def open(self) -> tuple[int, int]:
        """flags of open(2), open_flags."""
        flags, more = self._unpack(_TWO_WORDS)
        return flags, more

    def create(self) -> tuple[int, int, bytes]:
        """flags of open(2), mode, name."""
        flags, mode, _, _ = self._unpack(_FOUR_WORDS)
        return flags, mode, self.name_at(_FOUR_WORDS.size)

    def fh(self) -> int:
        """Of RELEASE, RELEASEDIR and FLUSH."""
        return self._unpack(_LONG)[0]

    def transfer(self) -> Transfer:
        fh, offset, size, flags, _, _, _ = self._unpack(_TRANSFER_IN)
        return Transfer(fh, offset, size, flags)

    def written(self, size: int) -> memoryview:
        """The data of a WRITE that says it has `size` bytes; points into the buffer of the request."""
        data = self.body[_TRANSFER_IN.size :]
        if len(data) != size:
            raise ProtocolError(f"fuse: write says {size} bytes, got {len(data)}")
        return data

    def fsync(self) -> tuple[int, bool]:
        """fh, and whether only data has to be safe."""
        fh, flags, _ = self._unpack(_FSYNC_IN)
        return fh, bool(flags & 1)

    def setxattr(self) -> tuple[bytes, bytes, int]:
        """name, value, flags."""
        size, flags = self._unpack(_TWO_WORDS)
        name, end, value = bytes(self.body[_TWO_WORDS.size :]).partition(b"\0")
        if not end or len(value) != size:
            raise ProtocolError(f"fuse: attribute of {len(value)} bytes, want a name and {size}")
        return name, value, flags

    def getxattr(self) -> tuple[int, bytes]:
        """How much room there is for the value, and its name."""
        return self.listxattr(), self.name_at(_TWO_WORDS.size)

    def listxattr(self) -> int:
        return self._unpack(_TWO_WORDS)[0]

    def fallocate(self) -> tuple[int, int, int, int]:
        """fh, offset, length, mode."""
        fh, offset, length, mode, _ = self._unpack(_FALLOCATE_IN)
        return fh, offset, length, mode

    def lseek(self) -> tuple[int, int, int]:
        """fh, offset, whence."""
        fh, offset, whence, _ = self._unpack(_LSEEK_IN)
        return fh, offset, whence

    def _strings(self, at: int, count: int) -> list[bytes]:
        parts = bytes(self.body[at:]).split(b"\0")
        if len(parts) != count + 1 or parts[-1]:
            raise ProtocolError(f"fuse: request {self.opcode} with {len(parts) - 1} names, want {count}")
        return parts[:-1]


def pack_attributes(attrs: Mapping[str, int]) -> bytes:
    """fuse_attr, 88 bytes."""
    atime, atime_ns = divmod(attrs["st_atime"], _BILLION)
    mtime, mtime_ns = divmod(attrs["st_mtime"], _BILLION)
    ctime, ctime_ns = divmod(attrs["st_ctime"], _BILLION)
    size = attrs["st_size"]
    return _ATTR.pack(
        attrs.get("st_ino", 0),
        size,
        attrs["st_blocks"] if "st_blocks" in attrs else -(-size // 512),
        atime & _U64,
        mtime & _U64,
        ctime & _U64,
        atime_ns,
        mtime_ns,
        ctime_ns,
        attrs["st_mode"],
        attrs["st_nlink"],
        attrs["st_uid"],
        attrs["st_gid"],
        attrs.get("st_rdev", 0),
        attrs.get("st_blksize", 4096),
        0,
    )


def pack_no_entry(seconds: int) -> bytes:
    """A name that is not there, for the kernel to remember so long."""
    return pack_entry(0, bytes(ATTR_SIZE), valid=seconds)


def pack_write(size: int) -> bytes:
    return _TWO_WORDS.pack(size, 0)


def pack_size(size: int) -> bytes:
    """How long an attribute or a list of them is, when that was all the question."""
    return _TWO_WORDS.pack(size, 0)


def pack_statfs(statfs: Mapping[str, int]) -> bytes:
    """From a mapping with the names of statvfs(3)."""
    return _STATFS_OUT.pack(
        *(
            statfs[f"f_{name}"]
            for name in ("blocks", "bfree", "bavail", "files", "ffree", "bsize", "namemax")
        ),
        statfs["f_frsize"],
        0,
    )


def _signed(value: int) -> int:
    return value - 2**64 if value >> 63 else value
