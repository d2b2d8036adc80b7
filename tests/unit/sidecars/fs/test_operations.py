"""Mirrors sidecars/fs/operations.py."""

import errno
import os
import struct

import pytest

from sidecars.fs.operations import SILENCE, Operations, Range, Refusal, greet
from sidecars.fs.protocol.frames import WANTED, Opcode
from sidecars.fs.tree import Tree
from strongroom.errors import ProtocolError
from strongroom.sealed.manifest import Directory, InlineFile, Manifest, SealedFile, Symlink
from tests.fakes.fuse import read, request

LARGE = SealedFile(
    path="large", mode=0o644, mtime=1, size=100_000, object_id=bytes(16), file_id=bytes(16), sha256=bytes(32)
)
MANIFEST = Manifest(
    name="m",
    entries=(
        Directory(path="dir", mode=0o755, mtime=1),
        InlineFile(path="dir/small", mode=0o644, mtime=1, content=b"0123456789"),
        LARGE,
        Symlink(path="link", mtime=1, target="dir/small"),
    ),
    tags_sha256=bytes(32),
)
ROOT, DIR, SMALL, FILE, LINK = 1, 2, 3, 4, 5
TREE = Tree.build(MANIFEST, chunk_size=65536, uid=0)
OPERATIONS = Operations(TREE)


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
    assert OPERATIONS.answer(read(Opcode.READ, FILE, 5, 10)) == Range(LARGE, 5, 10)
    assert OPERATIONS.answer(read(Opcode.READ, FILE, 99_990, 4096)) == Range(LARGE, 99_990, 10)
    assert OPERATIONS.answer(read(Opcode.READ, FILE, 100_000, 4096)) == b""
    assert OPERATIONS.answer(read(Opcode.READ, FILE, 1 << 50, 4096)) == b""
    assert OPERATIONS.answer(read(Opcode.READ, DIR, 0, 10)) == Refusal(errno.EISDIR)


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
    answer = OPERATIONS.answer(request(Opcode.OPEN, struct.pack("=II", flags, 0), node=FILE))
    assert answer == (struct.pack("=QIi", 0, 0b100010, 0) if want is None else Refusal(want))


def test_open_minds_what_it_opens() -> None:
    flags = struct.pack("=II", os.O_RDONLY, 0)
    assert OPERATIONS.answer(request(Opcode.OPEN, flags, node=DIR)) == Refusal(errno.EISDIR)
    assert OPERATIONS.answer(request(Opcode.OPENDIR, flags, node=FILE)) == Refusal(errno.ENOTDIR)
    assert isinstance(OPERATIONS.answer(request(Opcode.OPENDIR, flags, node=DIR)), bytes)


@pytest.mark.parametrize("opcode", [Opcode.READDIR, Opcode.READDIRPLUS])
@pytest.mark.parametrize("room", [200, 300, 4096])
def test_listing_in_pieces_gives_every_name_once(opcode: Opcode, room: int) -> None:
    whole = OPERATIONS.answer(read(opcode, ROOT, 0, 1 << 20))
    node = TREE.node(ROOT)
    assert node is not None
    records = node.listing if opcode == Opcode.READDIR else node.listing_plus
    found, offset = b"", 0
    while piece := OPERATIONS.answer(read(opcode, ROOT, offset, room)):
        assert isinstance(piece, bytes) and len(piece) <= room
        while piece:
            assert piece.startswith(records[offset])
            piece = piece[len(records[offset]) :]
            found += records[offset]
            offset += 1
    assert found == whole
    assert OPERATIONS.answer(read(opcode, ROOT, 1 << 60, room)) == b""
    assert OPERATIONS.answer(read(opcode, FILE, 0, room)) == b""


@pytest.mark.parametrize("opcode", [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51])
def test_whatever_writes_is_refused(opcode: int) -> None:
    assert OPERATIONS.answer(request(opcode, b"x\0", node=FILE)) == Refusal(errno.EROFS)


def test_the_rest() -> None:
    assert OPERATIONS.answer(request(Opcode.FORGET)) is SILENCE
    assert OPERATIONS.answer(request(Opcode.BATCH_FORGET)) is SILENCE
    assert OPERATIONS.answer(request(Opcode.RELEASE, node=FILE)) == b""
    assert OPERATIONS.answer(request(Opcode.STATFS)) == TREE.statfs
    assert OPERATIONS.answer(request(Opcode.GETATTR, node=99)) == Refusal(errno.ENOENT)
    assert OPERATIONS.answer(request(4711)) == Refusal(errno.ENOSYS)


def init(major: int, minor: int, flags: int = 0xFFFFFFFF) -> bytes:
    return greet(request(Opcode.INIT, struct.pack("=IIII", major, minor, 1 << 17, flags) + bytes(48)))


def test_greeting() -> None:
    major, minor, ahead, flags, background, _, max_write, _, max_pages, *_ = struct.unpack(
        "=IIIIHHIIHHI28x", init(7, 45)
    )
    assert (major, ahead, background, max_write, max_pages) == (7, 1 << 17, 64, 4096, 256)
    assert minor <= 45
    assert flags == WANTED
    assert struct.unpack("=IIII", init(7, 31, flags=1)[:16])[3] == 1  # nothing the kernel did not offer


@pytest.mark.parametrize("version", [(7, 30), (6, 99), (8, 0)])
def test_other_kernels_are_refused(version: tuple[int, int]) -> None:
    with pytest.raises(ProtocolError, match=f"kernel speaks {version[0]}.{version[1]}, want 7.31"):
        init(*version)


def test_the_first_request_is_the_greeting() -> None:
    with pytest.raises(ProtocolError, match="first request is 17, want 26"):
        greet(request(Opcode.STATFS))
