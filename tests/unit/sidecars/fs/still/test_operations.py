"""Mirrors sidecars/fs/still/operations.py."""

import errno
import os
import stat
import struct

import pytest

from sidecars.fs.protocol.frames import Opcode, OpenFlag, pack_open
from sidecars.fs.still.operations import OPENED, SILENCE, HandedOver, Operations, Range, Refusal
from sidecars.fs.still.tree import Tree
from strongroom.host.stored import Item
from tests.fakes.fuse import read, request

ITEMS = (
    Item(path=b"dir", mode=stat.S_IFDIR | 0o755),
    Item(path=b"dir/small", mode=stat.S_IFREG | 0o644, size=10, content=b"0123456789"),
    Item(path=b"large", mode=stat.S_IFREG | 0o644, size=100_000, key=4),
    Item(path=b"link", mode=stat.S_IFLNK | 0o777, size=9, target=b"dir/small"),
    Item(path=b"empty", mode=stat.S_IFREG | 0o644),
)
ROOT, DIR, SMALL, FILE, LINK, EMPTY = range(1, 7)
TREE = Tree.build(ITEMS, unit=65536, uid=0)
OPERATIONS = Operations(TREE)
AHEAD = Operations(TREE, ahead=[FILE])


def node_in(reply: object) -> int:
    assert isinstance(reply, bytes)
    return int(struct.unpack("=Q", reply[:8])[0])


def test_lookup() -> None:
    assert node_in(OPERATIONS.answer(request(Opcode.LOOKUP, b"large\0"))) == FILE
    assert node_in(OPERATIONS.answer(request(Opcode.LOOKUP, b"small\0", node=DIR))) == SMALL
    missing = OPERATIONS.answer(request(Opcode.LOOKUP, b"other\0"))
    assert node_in(missing) == 0  # node 0: the kernel remembers that it is not there
    assert OPERATIONS.answer(request(Opcode.LOOKUP, b"x\0", node=FILE)) == Refusal(errno.ENOTDIR)


def test_reads() -> None:
    assert OPERATIONS.answer(read(Opcode.READ, SMALL, 3, 4)) == b"3456"
    assert OPERATIONS.answer(read(Opcode.READ, SMALL, 10, 4)) == b""
    assert OPERATIONS.answer(read(Opcode.READ, FILE, 5, 10)) == Range(4, 5, 10)
    assert OPERATIONS.answer(read(Opcode.READ, FILE, 99_990, 4096)) == Range(4, 99_990, 10)
    assert OPERATIONS.answer(read(Opcode.READ, FILE, 100_000, 4096)) == b""
    assert OPERATIONS.answer(read(Opcode.READ, FILE, 1 << 50, 4096)) == b""
    assert OPERATIONS.answer(read(Opcode.READ, EMPTY, 0, 10)) == b""
    assert OPERATIONS.answer(read(Opcode.READ, DIR, 0, 10)) == Refusal(errno.EISDIR)
    assert OPERATIONS.answer(read(Opcode.READ, 99, 0, 10)) == Refusal(errno.ENOENT)
    assert OPERATIONS.read(99, 0, 10) == Refusal(errno.ENOENT)


def test_links() -> None:
    assert OPERATIONS.answer(request(Opcode.READLINK, node=LINK)) == b"dir/small"
    assert OPERATIONS.answer(request(Opcode.READLINK, node=FILE)) == Refusal(errno.EINVAL)


@pytest.mark.parametrize(
    ("flags", "want"),
    [
        (os.O_RDONLY, None),
        (os.O_RDONLY | os.O_DIRECT, None),
        (os.O_RDWR, errno.EROFS),
        (os.O_WRONLY, errno.EROFS),
        (os.O_RDONLY | os.O_TRUNC, errno.EROFS),
    ],
)
def test_open(flags: int, want: int | None) -> None:
    asked = request(Opcode.OPEN, struct.pack("=II", flags, 0), node=FILE)
    assert OPERATIONS.answer(asked) == (OPENED if want is None else Refusal(want))
    assert AHEAD.answer(asked) == (HandedOver(Opcode.OPEN, FILE) if want is None else Refusal(want))


def test_opened_keeps_pages_and_flushes_nothing() -> None:
    assert struct.pack("=QIi", 0, 0b100010, 0) == OPENED


def test_open_minds_what_it_opens() -> None:
    flags = struct.pack("=II", os.O_RDONLY, 0)
    assert OPERATIONS.answer(request(Opcode.OPEN, flags, node=DIR)) == Refusal(errno.EISDIR)
    assert OPERATIONS.answer(request(Opcode.OPENDIR, flags, node=FILE)) == Refusal(errno.ENOTDIR)
    opened = OPERATIONS.answer(request(Opcode.OPENDIR, flags, node=DIR))
    # No CACHE_DIR: of 2000 names that were evicted, a cached listing has every one looked up.
    assert opened == pack_open(OpenFlag.KEEP_CACHE)


def test_the_master_is_asked_only_about_files_read_ahead() -> None:
    flags = struct.pack("=II", os.O_RDONLY, 0)
    assert AHEAD.answer(request(Opcode.OPEN, flags, node=SMALL)) == OPENED
    assert AHEAD.answer(request(Opcode.RELEASE, node=FILE)) == HandedOver(Opcode.RELEASE, FILE)
    assert AHEAD.answer(request(Opcode.RELEASE, node=SMALL)) == b""
    gone = request(Opcode.INTERRUPT, struct.pack("=Q", 55))
    assert AHEAD.answer(gone) == HandedOver(Opcode.INTERRUPT, 55)
    assert OPERATIONS.answer(gone) == Refusal(errno.ENOSYS)


@pytest.mark.parametrize("opcode", [Opcode.READDIR, Opcode.READDIRPLUS])
@pytest.mark.parametrize("room", [200, 300, 4096])
def test_listing_in_pieces_gives_every_name_once(opcode: Opcode, room: int) -> None:
    whole = OPERATIONS.answer(read(opcode, ROOT, 0, 1 << 20))
    assert isinstance(whole, bytes | memoryview)
    directory = TREE.directory(ROOT)
    assert directory is not None
    found, position = b"", 0
    while piece := OPERATIONS.answer(read(opcode, ROOT, position, room)):
        assert isinstance(piece, bytes | memoryview)
        assert len(piece) <= room
        found += bytes(piece)
        listed = 0
        while listed < len(piece):
            head = 128 if opcode == Opcode.READDIRPLUS else 0
            length = struct.unpack("=I", piece[listed + head + 16 : listed + head + 20])[0]
            listed += head + 24 + length + -length % 8
            position += 1
        assert listed == len(piece)
    assert found == bytes(whole)
    assert position == 2 + 4
    assert not OPERATIONS.answer(read(opcode, ROOT, 1 << 60, room))
    assert OPERATIONS.answer(read(opcode, FILE, 0, room)) == Refusal(errno.ENOTDIR)


@pytest.mark.parametrize(
    ("offset", "whence", "want"),
    [
        (5, os.SEEK_DATA, 5),
        (5, os.SEEK_HOLE, 100_000),
        (99_999, os.SEEK_DATA, 99_999),
        (100_000, os.SEEK_DATA, errno.ENXIO),
        (100_000, os.SEEK_HOLE, errno.ENXIO),
        (1 << 60, os.SEEK_HOLE, errno.ENXIO),
        (0, os.SEEK_SET, errno.EINVAL),
    ],
)
def test_seeks(offset: int, whence: int, want: int) -> None:
    answer = OPERATIONS.answer(request(Opcode.LSEEK, struct.pack("=QQII", 0, offset, whence, 0), node=FILE))
    assert answer == (Refusal(want) if want in (errno.ENXIO, errno.EINVAL) else struct.pack("=Q", want))


@pytest.mark.parametrize("opcode", [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51])
def test_whatever_writes_is_refused(opcode: int) -> None:
    assert OPERATIONS.answer(request(opcode, b"x\0", node=FILE)) == Refusal(errno.EROFS)


@pytest.mark.parametrize(
    "opcode", [Opcode.ACCESS, Opcode.GETXATTR, Opcode.LISTXATTR, Opcode.FLUSH, Opcode.POLL, 4711]
)
def test_what_need_not_be_asked_again(opcode: int) -> None:
    assert OPERATIONS.answer(request(opcode, node=FILE)) == Refusal(errno.ENOSYS)


def test_the_rest() -> None:
    assert OPERATIONS.answer(request(Opcode.FORGET)) is SILENCE
    assert OPERATIONS.answer(request(Opcode.BATCH_FORGET)) is SILENCE
    assert OPERATIONS.answer(request(Opcode.RELEASE, node=FILE)) == b""
    assert OPERATIONS.answer(request(Opcode.STATFS)) == TREE.statfs
    assert OPERATIONS.answer(request(Opcode.STATX, bytes(24), node=FILE)) == TREE.statx(FILE)
    assert OPERATIONS.answer(request(Opcode.GETATTR, node=99)) == Refusal(errno.ENOENT)
