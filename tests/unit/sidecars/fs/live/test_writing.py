"""Frames of a file system that can change."""

import struct

import pytest

from sidecars.fs.protocol.frames import Opcode
from sidecars.fs.protocol.writing import (
    NO_CHANGE,
    Call,
    Changes,
    Valid,
    pack_attributes,
    pack_no_entry,
    pack_size,
    pack_statfs,
    pack_write,
)
from strongroom.errors import ProtocolError


def call(opcode: int, body: bytes = b"", node: int = 1) -> Call:
    header = struct.pack("=IIQQIIIHH", 40 + len(body), opcode, 7, node, 1000, 1001, 99, 0, 0)
    return Call.parse(memoryview(header + body))


def setattr_body(valid: int, **members: int) -> bytes:
    order = (
        "fh",
        "size",
        "lock",
        "atime",
        "mtime",
        "ctime",
        "atimensec",
        "mtimensec",
        "ctimensec",
        "mode",
        "unused",
    )
    values = [members.get(name, 0) for name in (*order, "uid", "gid")]
    return struct.pack("=IIQQQQQQIIIIIIII", valid, 0, *[value & (2**64 - 1) for value in values], 0)


def test_the_caller() -> None:
    request = call(Opcode.MKDIR, struct.pack("=II", 0o755, 0o022) + b"dir\0")
    assert (request.uid, request.gid, request.pid) == (1000, 1001, 99)
    assert request.mkdir() == (0o755, b"dir")


def test_names() -> None:
    assert call(Opcode.SYMLINK, b"name\0target\0").names() == (b"name", b"target")
    assert call(Opcode.MKNOD, struct.pack("=IIII", 0o100644, 5, 0, 0) + b"n\0").mknod() == (0o100644, 5, b"n")
    assert call(Opcode.LINK, struct.pack("=Q", 9) + b"n\0").link() == (9, b"n")
    assert call(Opcode.CREATE, struct.pack("=IIII", 2, 0o644, 0, 0) + b"n\0").create() == (2, 0o644, b"n")
    assert call(Opcode.RENAME, struct.pack("=Q", 9) + b"a\0b\0").rename() == (9, 0, b"a", b"b")
    assert call(Opcode.RENAME2, struct.pack("=QII", 9, 2, 0) + b"a\0b\0").rename() == (9, 2, b"a", b"b")


@pytest.mark.parametrize("body", [b"", b"a", b"a\0b", b"a\0b\0", b"\0\0"])
def test_a_name_is_one_name(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="want 1"):
        call(Opcode.UNLINK, body).name_at()


def test_changes() -> None:
    request = call(
        Opcode.SETATTR,
        setattr_body(Valid.MODE | Valid.MTIME | Valid.FH, fh=3, mode=0o600, mtime=-2, mtimensec=5),
    )
    assert request.setattr() == Changes(
        Valid.MODE | Valid.MTIME | Valid.FH, 3, 0, 0o600, NO_CHANGE, NO_CHANGE, 0, -2 * 10**9 + 5
    )
    now = call(
        Opcode.SETATTR, setattr_body(Valid.UID | Valid.ATIME | Valid.ATIME_NOW, uid=5, gid=6)
    ).setattr()
    assert (now.uid, now.gid, now.atime) == (5, NO_CHANGE, None)


def test_transfers() -> None:
    body = struct.pack("=QQIIQII", 3, 4096, 5, 4, 0, 0, 0)
    request = call(Opcode.WRITE, body + b"12345")
    assert request.transfer() == (3, 4096, 5, 4)
    assert bytes(request.written(5)) == b"12345"
    with pytest.raises(ProtocolError, match="write says 4 bytes, got 5"):
        request.written(4)


def test_the_rest() -> None:
    assert call(Opcode.FORGET, struct.pack("=Q", 4)).forget() == 4
    batch = struct.pack("=IIQQQQ", 2, 0, 5, 1, 6, 2)
    assert call(Opcode.BATCH_FORGET, batch).forgotten() == [(5, 1), (6, 2)]
    assert call(Opcode.SETXATTR, struct.pack("=II", 3, 1) + b"user.a\0v\0w").setxattr() == (
        b"user.a",
        b"v\0w",
        1,
    )
    assert call(Opcode.GETXATTR, struct.pack("=II", 9, 0) + b"user.a\0").getxattr() == (9, b"user.a")
    assert call(Opcode.LISTXATTR, struct.pack("=II", 9, 0)).listxattr() == 9
    assert call(Opcode.FSYNC, struct.pack("=QII", 3, 1, 0)).fsync() == (3, True)
    assert call(Opcode.FALLOCATE, struct.pack("=QQQII", 3, 1, 2, 16, 0)).fallocate() == (3, 1, 2, 16)
    assert call(Opcode.LSEEK, struct.pack("=QQII", 3, 10, 4, 0)).lseek() == (3, 10, 4)
    assert call(Opcode.OPEN, struct.pack("=II", 2, 1)).open() == (2, 1)
    assert call(Opcode.RELEASE, struct.pack("=QIIQ", 3, 0, 0, 0)).fh() == 3


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("forgotten", struct.pack("=IIQQQQ", 2, 0, 5, 1, 6, 2)),
        ("forget", struct.pack("=Q", 4)),
        ("setattr", setattr_body(0)),
        ("mknod", struct.pack("=IIII", 0o100644, 5, 0, 0) + b"n\0"),
        ("mkdir", struct.pack("=II", 0o755, 0) + b"n\0"),
        ("link", struct.pack("=Q", 9) + b"n\0"),
        ("rename", struct.pack("=QII", 9, 2, 0) + b"a\0b\0"),
        ("open", struct.pack("=II", 2, 1)),
        ("create", struct.pack("=IIII", 2, 0o644, 0, 0) + b"n\0"),
        ("fh", struct.pack("=Q", 3)),
        ("transfer", struct.pack("=QQIIQII", 3, 4096, 5, 4, 0, 0, 0)),
        ("fsync", struct.pack("=QII", 3, 1, 0)),
        ("setxattr", struct.pack("=II", 3, 1) + b"user.a\0vvv"),
        ("getxattr", struct.pack("=II", 9, 0) + b"user.a\0"),
        ("fallocate", struct.pack("=QQQII", 3, 1, 2, 16, 0)),
        ("lseek", struct.pack("=QQII", 3, 10, 4, 0)),
    ],
)
def test_a_body_cut_anywhere_is_refused(method: str, body: bytes) -> None:
    for length in range(len(body)):
        with pytest.raises(ProtocolError):
            getattr(call(Opcode.RENAME2, body[:length]), method)()


def test_replies() -> None:
    attrs = dict.fromkeys(("st_mode", "st_nlink", "st_uid", "st_gid"), 1)
    attrs |= {"st_size": 1000, "st_atime": -1, "st_mtime": 5 * 10**9 + 3, "st_ctime": 0}
    packed = struct.unpack("=QQQQQQIIIIIIIIII", pack_attributes(attrs))
    assert packed == (0, 1000, 2, 2**64 - 1, 5, 0, 10**9 - 1, 3, 0, 1, 1, 1, 1, 0, 4096, 0)
    assert len(pack_no_entry(5)) == 128
    assert pack_write(9) == pack_size(9) == struct.pack("=II", 9, 0)
    names = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "namemax")
    reply = pack_statfs({f"f_{name}": number for number, name in enumerate(names)})
    assert struct.unpack("=QQQQQIIII24x", reply) == (2, 3, 4, 5, 6, 0, 7, 1, 0)
