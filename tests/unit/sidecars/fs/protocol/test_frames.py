"""Mirrors sidecars/fs/protocol/frames.py. Sizes are those of linux/include/uapi/linux/fuse.h."""

import struct
from dataclasses import replace

import pytest

from sidecars.fs.protocol import frames
from sidecars.fs.protocol.frames import RESENT, WANTED, Attributes, InitFlag, OpenFlag, Request
from strongroom.errors import ProtocolError

ATTRIBUTES = Attributes(
    ino=5, size=1025, mode=0o100644, nlink=1, mtime_ns=9 * 10**9 + 8, uid=7, blksize=131072
)


def frame(opcode: int, body: bytes = b"", *, node: int = 1, unique: int = 77) -> memoryview:
    header = struct.pack("=IIQQIIIHH", 40 + len(body), opcode, unique, node, 0, 0, 0, 0, 0)
    return memoryview(header + body)


def test_a_request() -> None:
    request = Request.parse(frame(1, b"config.json\0", node=3))
    assert (request.opcode, request.unique, request.node) == (1, 77, 3)
    assert request.name() == b"config.json"


@pytest.mark.parametrize("length", range(40))
def test_a_short_request(length: int) -> None:
    with pytest.raises(ProtocolError, match=f"request of {length} bytes"):
        Request.parse(frame(1)[:length])


def test_a_request_of_another_length_than_it_says() -> None:
    for other in (frame(1, b"name\0")[:-1], memoryview(bytes(frame(1, b"name\0")) + b"x")):
        with pytest.raises(ProtocolError, match="request says 45 bytes"):
            Request.parse(other)


@pytest.mark.parametrize("body", [b"", b"name", b"na\0me\0", b"name\0\0"])
def test_a_name_has_one_nul_at_its_end(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="name without its one NUL"):
        Request.parse(frame(1, body)).name()


def test_a_read() -> None:
    body = struct.pack("=QQIIQII", 0, 1 << 40, 4096, 0, 0, 0, 0)
    assert Request.parse(frame(15, body)).read_range() == (1 << 40, 4096)
    with pytest.raises(ProtocolError, match="request 15 has 39 bytes, want 40"):
        Request.parse(frame(15, body[:-1])).read_range()


def test_sizes_are_the_kernels() -> None:
    assert len(ATTRIBUTES.pack()) == 88
    assert len(frames.pack_attr(ATTRIBUTES.pack())) == 16 + 88
    assert len(frames.pack_entry(1, ATTRIBUTES.pack())) == len(frames.pack_no_entry()) == 40 + 88
    assert len(frames.pack_open(OpenFlag.KEEP_CACHE)) == 16
    assert len(frames.pack_statfs(total=1, nodes=1)) == 80
    assert len(frames.pack_init(max_readahead=1, flags=WANTED)) == 64
    assert frames.pack_header(9, 100) == struct.pack("=IiQ", 116, 0, 9)
    assert frames.pack_refusal(9, 5) == struct.pack("=IiQ", 16, -5, 9)


def test_attributes_in_place() -> None:
    numbers = struct.unpack("=6Q10I", ATTRIBUTES.pack())
    assert numbers == (5, 1025, 3, 9, 9, 9, 8, 8, 8, 0o100644, 1, 7, 0, 0, 131072, 0)


def test_attributes_of_what_changes() -> None:
    packed = replace(ATTRIBUTES, atime_ns=-1, ctime_ns=4, gid=6, rdev=9, blocks=77).pack()
    numbers = struct.unpack("=3Qq2Q10I", packed)
    assert numbers == (5, 1025, 77, -1, 9, 0, 999_999_999, 8, 4, 0o100644, 1, 7, 6, 9, 131072, 0)


def test_statx_says_what_attributes_do() -> None:
    reply = frames.pack_statx(replace(ATTRIBUTES, atime_ns=-1, gid=6).pack(), valid=3)
    assert len(reply) == 288
    assert struct.unpack("=QII16x", reply[:32]) == (3, 0, 0)
    mask, blksize, attributes, nlink, uid, gid, mode = struct.unpack("=IIQIIIH", reply[32:62])
    assert (mask, blksize, attributes, nlink, uid, gid, mode) == (0x7FF, 131072, 0, 1, 7, 6, 0o100644)
    assert struct.unpack("=QQQQ", reply[64:96]) == (5, 1025, 3, 0)
    times = [struct.unpack("=qI4x", reply[at : at + 16]) for at in (96, 112, 128, 144)]
    assert times == [(-1, 999_999_999), (0, 0), (9, 8), (9, 8)]  # access, birth, change, modification
    assert not any(reply[160:])


def test_a_seek_and_an_interrupt() -> None:
    seek = Request.parse(frame(46, struct.pack("=QQII", 0, 1 << 40, 4, 0)))
    assert seek.seek() == (1 << 40, 4)
    assert frames.pack_seek(1 << 41) == struct.pack("=Q", 1 << 41)
    assert Request.parse(frame(36, struct.pack("=Q", 99))).interrupted() == 99
    for opcode, reader in ((46, Request.seek), (36, Request.interrupted)):
        with pytest.raises(ProtocolError, match=f"request {opcode} has 7 bytes"):
            reader(Request.parse(frame(opcode, bytes(7))))


def test_a_request_given_out_again_says_so() -> None:
    assert not Request.parse(frame(1, b"x\0")).resent
    assert Request.parse(frame(1, b"x\0", unique=77 | RESENT)).resent


def test_two_words_of_flags() -> None:
    words = struct.pack("=IIII", 7, 45, 1, InitFlag.INIT_EXT | 1)
    offered = Request.parse(frame(26, words + struct.pack("=I", 1 << 5) + bytes(44))).init()[3]
    assert InitFlag.PASSTHROUGH in offered
    assert InitFlag.ASYNC_READ in offered
    single = Request.parse(frame(26, struct.pack("=IIII", 7, 31, 1, 1) + struct.pack("=I", 1 << 5))).init()[3]
    assert single == InitFlag.ASYNC_READ
    reply = frames.pack_init(
        max_readahead=1, flags=InitFlag.PASSTHROUGH | InitFlag.ASYNC_READ, max_stack_depth=1
    )
    assert struct.unpack("=IIII", reply[:16])[3] == 1
    assert struct.unpack("=II", reply[32:40]) == (1 << 5, 1)


def test_a_backing_file_is_named_last() -> None:
    assert frames.pack_open(OpenFlag.PASSTHROUGH, backing=9, handle=3) == struct.pack("=QIi", 3, 128, 9)


@pytest.mark.parametrize("length", range(1, 20))
def test_directory_records_are_padded_to_eight(length: int) -> None:
    record = frames.pack_dirent(4, 2, 8, b"n" * length)
    assert len(record) % 8 == 0
    assert struct.unpack("=QQII", record[:24]) == (4, 2, length, 8)
    assert record[24:].rstrip(b"\0") == b"n" * length
