"""Frames of the kernel's FUSE protocol, those a read-only file system needs. Pure: bytes in, bytes out.

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
MINOR: Final = 36  # FUSE_INIT_EXT; we speak nothing newer
ROOT_ID: Final = 1
MAX_PAGES: Final = 256  # of 4 KiB in one request
MAX_READ: Final = MAX_PAGES * 4096  # bytes
MAX_WRITE: Final = 4096  # bytes; nobody writes, but the kernel wants at least this
REQUEST_BUFFER: Final = 64 * 1024  # bytes; at least 8 KiB, and room for long names
FOREVER: Final = 86400 * 365  # seconds that the kernel may trust an entry: the tree never changes

_IN_HEADER: Final = Struct("=IIQQIIIHH")
_OUT_HEADER: Final = Struct("=IiQ")
_INIT_IN: Final = Struct("=IIII")
_INIT_OUT: Final = Struct("=IIIIHHIIHHI28x")
_OPEN_IN: Final = Struct("=II")
_OPEN_OUT: Final = Struct("=QIi")
_READ_IN: Final = Struct("=QQIIQII")
_ATTR: Final = Struct("=QQQQQQIIIIIIIIII")
_ATTR_OUT: Final = Struct("=QII")
_ENTRY_OUT: Final = Struct("=QQQQII")
_STATFS_OUT: Final = Struct("=QQQQQIIII24x")
_DIRENT: Final = Struct("=QQII")

HEADER_SIZE: Final = _OUT_HEADER.size


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
    SETXATTR = 21
    REMOVEXATTR = 24
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    COPY_FILE_RANGE = 47
    TMPFILE = 51


class InitFlag(IntFlag):
    ASYNC_READ = 1 << 0
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    EXPLICIT_INVAL_DATA = 1 << 25  # the page cache stays when attributes are read again


class OpenFlag(IntFlag):
    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3
    NOFLUSH = 1 << 5  # else a process that forks with a file open waits for us at close


WANTED: Final = (
    InitFlag.ASYNC_READ
    | InitFlag.DO_READDIRPLUS
    | InitFlag.READDIRPLUS_AUTO
    | InitFlag.ASYNC_DIO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.EXPLICIT_INVAL_DATA
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `body` points into the buffer it was read to: valid until the next one is read."""

    opcode: int
    unique: int
    node: int
    body: memoryview

    @classmethod
    def parse(cls, frame: memoryview) -> Self:
        if len(frame) < _IN_HEADER.size:
            raise ProtocolError(f"fuse: request of {len(frame)} bytes, want at least {_IN_HEADER.size}")
        length, opcode, unique, node, *_ = _IN_HEADER.unpack_from(frame)
        if length != len(frame):
            raise ProtocolError(f"fuse: request says {length} bytes, got {len(frame)}")
        return cls(opcode, unique, node, frame[_IN_HEADER.size :])

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

    def init(self) -> tuple[int, int, int, int]:
        """major, minor, max_readahead, flags."""
        major, minor, max_readahead, flags = self._unpack(_INIT_IN)
        return major, minor, max_readahead, flags

    def _unpack(self, layout: Struct) -> tuple[int, ...]:
        if len(self.body) < layout.size:
            raise ProtocolError(f"fuse: request {self.opcode} has {len(self.body)} bytes, want {layout.size}")
        return layout.unpack_from(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    ino: int
    size: int
    mode: int  # type and permissions
    nlink: int
    mtime: int  # seconds
    uid: int
    blksize: int

    def pack(self) -> bytes:
        """fuse_attr, 88 bytes."""
        blocks = -(-self.size // 512)
        times = (self.mtime, self.mtime, self.mtime, 0, 0, 0)
        owner = (self.nlink, self.uid, 0, 0)
        return _ATTR.pack(self.ino, self.size, blocks, *times, self.mode, *owner, self.blksize, 0)


def pack_header(unique: int, length: int) -> bytes:
    """The header of a reply with `length` bytes of payload."""
    return _OUT_HEADER.pack(HEADER_SIZE + length, 0, unique)


def pack_refusal(unique: int, errno: int) -> bytes:
    """A whole reply that says no: the header alone."""
    return _OUT_HEADER.pack(HEADER_SIZE, -errno, unique)


def pack_init(*, max_readahead: int, flags: InitFlag) -> bytes:
    return _INIT_OUT.pack(
        KERNEL_VERSION,
        MINOR,
        max_readahead,
        flags,
        64,  # max_background: the default of 12 throttles parallel read-ahead
        48,  # congestion_threshold
        MAX_WRITE,
        1,  # time_gran, nanoseconds
        MAX_PAGES,
        0,  # map_alignment
        0,  # flags2
    )


def pack_attr(attributes: bytes) -> bytes:
    return _ATTR_OUT.pack(FOREVER, 0, 0) + attributes


def pack_entry(node: int, attributes: bytes) -> bytes:
    return _ENTRY_OUT.pack(node, 0, FOREVER, FOREVER, 0, 0) + attributes


def pack_no_entry() -> bytes:
    """A name that is not there, for the kernel to remember."""
    return pack_entry(0, bytes(_ATTR.size))


def pack_open(flags: OpenFlag) -> bytes:
    return _OPEN_OUT.pack(0, flags, 0)


def pack_statfs(*, total: int, nodes: int) -> bytes:
    """A full file system of `total` bytes."""
    return _STATFS_OUT.pack(-(-total // 4096), 0, 0, nodes, 0, 4096, 255, 4096, 0)


def pack_dirent(node: int, offset: int, kind: int, name: bytes) -> bytes:
    """One name of a directory. `offset` is where the next one starts, `kind` the type bits of the mode >> 12."""
    padding = bytes(-len(name) % 8)
    return _DIRENT.pack(node, offset, len(name), kind) + name + padding


def pack_direntplus(entry: bytes, dirent: bytes) -> bytes:
    return entry + dirent
