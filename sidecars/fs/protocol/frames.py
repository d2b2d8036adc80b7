"""Frames of the kernel's FUSE protocol: what every file system answers. Pure: bytes in, bytes out.

Every request starts with a 40-byte header, every reply with one of 16. A reply of the wrong length makes the kernel
refuse it with EINVAL. All numbers are in the machine's byte order. Names are the kernel's own.

Source: linux/include/uapi/linux/fuse.h, protocol 7.31 to 7.45.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final, Self

from strongroom.errors import ProtocolError

KERNEL_VERSION: Final = 7
OLDEST_MINOR: Final = 31  # Linux 5.4: the last change of a layout used here is older
MINOR: Final = 40  # passthrough and RESEND; we speak nothing newer
ROOT_ID: Final = 1
MAX_PAGES: Final = 256  # of 4 KiB in one request
MAX_READ: Final = MAX_PAGES * 4096  # bytes
MAX_WRITE: Final = 4096  # bytes; nobody writes, but the kernel wants at least this
REQUEST_BUFFER: Final = 64 * 1024  # bytes; at least 8 KiB, and room for long names
FOREVER: Final = 86400 * 365  # seconds that the kernel may trust an entry: the tree never changes
RESENT: Final = 1 << 63  # in the unique of a request that the kernel gives out again

_IN_HEADER: Final = Struct("=IIQQIIIHH")
_OUT_HEADER: Final = Struct("=IiQ")
_INIT_IN: Final = Struct("=IIII")
_INIT_IN_EXT: Final = Struct("=IIIII")
_INIT_OUT: Final = Struct("=IIIIHHIIHHII24x")
_OPEN_IN: Final = Struct("=II")
_OPEN_OUT: Final = Struct("=QIi")
_READ_IN: Final = Struct("=QQIIQII")
_READ: Final = Struct("=IIQQ16xQQI20x")  # a whole request: header and _READ_IN
_LSEEK_IN: Final = Struct("=QQII")
_LSEEK_OUT: Final = Struct("=Q")
_INTERRUPT_IN: Final = Struct("=Q")
_ATTR: Final = Struct("=QQQQQQIIIIIIIIII")
_ATTR_OUT: Final = Struct("=QII")
_STATX: Final = Struct("=IIQIIIHxxQQQQ16s16s16s16sIIII112x")
_STATX_OUT: Final = Struct("=QII16x")
_STATX_TIME: Final = Struct("=qI4x")
_BASIC_STATS: Final = 0x7FF  # STATX_BASIC_STATS: everything but the time of birth
_ENTRY_OUT: Final = Struct("=QQQQII")
_STATFS_OUT: Final = Struct("=QQQQQIIII24x")
_DIRENT: Final = Struct("=QQII")
_BILLION: Final = 10**9

HEADER_SIZE: Final = _OUT_HEADER.size
ATTR_SIZE: Final = _ATTR.size
ENTRY_SIZE: Final = _ENTRY_OUT.size + ATTR_SIZE


class Opcode(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52


class InitFlag(IntFlag):
    """The two words of flags as one number: the second counts from 1 << 32."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    FLOCK_LOCKS = 1 << 10
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    EXPLICIT_INVAL_DATA = 1 << 25  # the page cache stays when attributes are read again
    INIT_EXT = 1 << 30  # there is a second word
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37  # Linux 6.9
    HAS_RESEND = 1 << 39  # Linux 6.9


class OpenFlag(IntFlag):
    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    NONSEEKABLE = 1 << 2
    CACHE_DIR = 1 << 3
    NOFLUSH = 1 << 5  # else a process that forks with a file open waits for us at close
    PASSTHROUGH = 1 << 7  # the kernel reads a file of ours instead of asking us


WANTED: Final = (
    InitFlag.ASYNC_READ
    | InitFlag.DO_READDIRPLUS
    | InitFlag.READDIRPLUS_AUTO
    | InitFlag.ASYNC_DIO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.EXPLICIT_INVAL_DATA
    | InitFlag.INIT_EXT
    | InitFlag.DIRECT_IO_ALLOW_MMAP
    | InitFlag.PASSTHROUGH
    | InitFlag.HAS_RESEND
)


@dataclass(slots=True)
class Request:
    """One request. `body` points into the buffer it was read to: valid until the next one is read."""

    opcode: int
    unique: int
    node: int
    body: memoryview
    uid: int = 0
    gid: int = 0
    pid: int = 0

    @classmethod
    def parse(cls, frame: memoryview) -> Self:
        if len(frame) < _IN_HEADER.size:
            raise ProtocolError(f"fuse: request of {len(frame)} bytes, want at least {_IN_HEADER.size}")
        length, opcode, unique, node, uid, gid, pid, _, _ = _IN_HEADER.unpack_from(frame)
        if length != len(frame):
            raise ProtocolError(f"fuse: request says {length} bytes, got {len(frame)}")
        return cls(opcode, unique, node, frame[_IN_HEADER.size :], uid, gid, pid)

    @property
    def resent(self) -> bool:
        """Whether another process may have begun, or even done, what this asks."""
        return bool(self.unique & RESENT)

    def name(self) -> bytes:
        """The NUL-terminated name that is the whole body."""
        if not (name := bytes(self.body)).endswith(b"\0") or name.count(b"\0") != 1:
            raise ProtocolError("fuse: name without its one NUL")
        return name[:-1]

    def open_flags(self) -> int:
        return int(self._unpack(_OPEN_IN)[0])

    def read_range(self) -> tuple[int, int]:
        """Offset and size in bytes, of READ, READDIR and READDIRPLUS."""
        _, offset, size, *_ = self._unpack(_READ_IN)
        return offset, size

    def seek(self) -> tuple[int, int]:
        """Offset and whence of LSEEK."""
        _, offset, whence, _ = self._unpack(_LSEEK_IN)
        return offset, whence

    def interrupted(self) -> int:
        """The unique of the request whose caller lost patience."""
        return self._unpack(_INTERRUPT_IN)[0]

    def init(self) -> tuple[int, int, int, InitFlag]:
        """major, minor, max_readahead, flags of both words."""
        major, minor, max_readahead, flags = self._unpack(_INIT_IN)
        if flags & InitFlag.INIT_EXT:
            flags |= self._unpack(_INIT_IN_EXT)[4] << 32
        return major, minor, max_readahead, InitFlag(flags)

    def _unpack(self, layout: Struct) -> tuple[int, ...]:
        if len(self.body) < layout.size:
            raise ProtocolError(f"fuse: request {self.opcode} has {len(self.body)} bytes, want {layout.size}")
        return layout.unpack_from(self.body)


def parse_read(frame: memoryview) -> tuple[int, int, int, int] | None:
    """Unique, node, offset and size in bytes of a READ; None for any other request.

    What Request.parse() does for all of them costs more than the answer to a small one.
    """
    if len(frame) != _READ.size:
        return None
    length, opcode, unique, node, _, offset, size = _READ.unpack(frame)
    return (unique, node, offset, size) if opcode == Opcode.READ and length == _READ.size else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    ino: int
    size: int
    mode: int  # type and permissions
    nlink: int
    mtime_ns: int
    uid: int
    blksize: int
    gid: int = 0
    rdev: int = 0
    blocks: int | None = None  # of 512 bytes; None: as many as the size takes
    atime_ns: int | None = None  # None: as mtime_ns
    ctime_ns: int | None = None

    def pack(self) -> bytes:
        """fuse_attr, 88 bytes."""
        mtime = self.mtime_ns
        times = [mtime if time is None else time for time in (self.atime_ns, mtime, self.ctime_ns)]
        seconds = [(time // _BILLION) & 0xFFFFFFFFFFFFFFFF for time in times]
        rest = [time % _BILLION for time in times]
        blocks = -(-self.size // 512) if self.blocks is None else self.blocks
        owner = (self.nlink, self.uid, self.gid, self.rdev)
        return _ATTR.pack(self.ino, self.size, blocks, *seconds, *rest, self.mode, *owner, self.blksize, 0)


def pack_header(unique: int, length: int) -> bytes:
    """The header of a reply with `length` bytes of payload."""
    return _OUT_HEADER.pack(HEADER_SIZE + length, 0, unique)


def pack_refusal(unique: int, errno: int) -> bytes:
    """A whole reply that says no: the header alone."""
    return _OUT_HEADER.pack(HEADER_SIZE, -errno, unique)


def pack_init(
    *, max_readahead: int, flags: InitFlag, max_write: int = MAX_WRITE, max_stack_depth: int = 0
) -> bytes:
    return _INIT_OUT.pack(
        KERNEL_VERSION,
        MINOR,
        max_readahead,
        flags & 0xFFFFFFFF,
        64,  # max_background: the default of 12 throttles parallel read-ahead
        48,  # congestion_threshold
        max_write,
        1,  # time_gran, nanoseconds
        MAX_PAGES,
        0,  # map_alignment
        flags >> 32,
        max_stack_depth,
    )


def pack_attr(attributes: bytes, *, valid: int = FOREVER) -> bytes:
    return _ATTR_OUT.pack(valid, 0, 0) + attributes


def pack_statx(attributes: bytes, *, valid: int = FOREVER) -> bytes:
    """The reply to STATX about what fuse_attr says of a node. No time of birth."""
    ino, size, blocks, *numbers, _ = _ATTR.unpack(attributes)
    seconds, rest, (mode, nlink, uid, gid, rdev, blksize) = numbers[:3], numbers[3:6], numbers[6:]
    atime, mtime, ctime = (_STATX_TIME.pack(*time) for time in zip(map(_signed, seconds), rest, strict=True))
    who = (nlink, uid, gid, mode, ino, size, blocks)
    device = (rdev >> 8, rdev & 0xFF, 0, 0)
    body = _STATX.pack(_BASIC_STATS, blksize, 0, *who, 0, atime, bytes(16), ctime, mtime, *device)
    return _STATX_OUT.pack(valid, 0, 0) + body


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def pack_entry(node: int, attributes: bytes, *, valid: int = FOREVER) -> bytes:
    return _ENTRY_OUT.pack(node, 0, valid, valid, 0, 0) + attributes


def pack_no_entry() -> bytes:
    """A name that is not there, for the kernel to remember."""
    return pack_entry(0, bytes(_ATTR.size))


def pack_open(flags: OpenFlag, *, handle: int = 0, backing: int = 0) -> bytes:
    """`backing` is what BACKING_OPEN returned, for PASSTHROUGH."""
    return _OPEN_OUT.pack(handle, flags, backing)


def pack_seek(offset: int) -> bytes:
    return _LSEEK_OUT.pack(offset)


def pack_statfs(*, total: int, nodes: int) -> bytes:
    """A full file system of `total` bytes."""
    return _STATFS_OUT.pack(-(-total // 4096), 0, 0, nodes, 0, 4096, 255, 4096, 0)


def pack_dirent(node: int, offset: int, kind: int, name: bytes) -> bytes:
    """One name of a directory. `offset` is where the next one starts, `kind` the type bits of the mode >> 12."""
    padding = bytes(-len(name) % 8)
    return _DIRENT.pack(node, offset, len(name), kind) + name + padding


def pack_direntplus(entry: bytes, dirent: bytes) -> bytes:
    return entry + dirent
