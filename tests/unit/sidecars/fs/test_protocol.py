"""Mirrors sidecars/fs/frames.py. Sizes are those of linux/include/uapi/linux/fuse.h."""

import struct

import pytest

from sidecars.fs.protocol import frames
from sidecars.fs.protocol.frames import WANTED, Attributes, OpenFlag, Request
from strongroom.errors import ProtocolError

ATTRIBUTES = Attributes(ino=5, size=1025, mode=0o100644, nlink=1, mtime=9, uid=7, blksize=131072)


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
    assert numbers == (5, 1025, 3, 9, 9, 9, 0, 0, 0, 0o100644, 1, 7, 0, 0, 131072, 0)


@pytest.mark.parametrize("length", range(1, 20))
def test_directory_records_are_padded_to_eight(length: int) -> None:
    record = frames.pack_dirent(4, 2, 8, b"n" * length)
    assert len(record) % 8 == 0
    assert struct.unpack("=QQII", record[:24]) == (4, 2, length, 8)
    assert record[24:].rstrip(b"\0") == b"n" * length
