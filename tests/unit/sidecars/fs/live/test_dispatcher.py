"""The kernel's requests against an operations class over a plain directory."""

import errno
import os
import stat
import struct
import threading
from pathlib import Path

import pytest

from sidecars.fs.live.dispatcher import Answer, Dispatcher
from sidecars.fs.live.operations import Attributes, Operations
from sidecars.fs.protocol.frames import Opcode
from sidecars.fs.protocol.writing import MAX_TRANSFER, Valid
from strongroom.errors import ProtocolError
from tests.fakes.plain_operations import PlainOperations
from tests.unit.sidecars.fs.live.test_writing import call, setattr_body

ENTRY = struct.Struct("=QQQQII")
ROOT = 1


class Kernel:
    """What the kernel would remember."""

    def __init__(self, operations: Operations, *, shared: bool = False) -> None:
        self.dispatcher = Dispatcher(operations, shared=shared)
        self.room = memoryview(bytearray(MAX_TRANSFER))

    def ask(self, opcode: int, body: bytes = b"", node: int = ROOT) -> Answer:
        return self.dispatcher.answer(call(opcode, body, node), self.room)

    def must(self, opcode: int, body: bytes = b"", node: int = ROOT) -> bytes:
        answer = self.ask(opcode, body, node)
        assert answer is not None
        return bytes(answer)

    def look_up(self, name: bytes, node: int = ROOT) -> int:
        return int(ENTRY.unpack_from(self.must(Opcode.LOOKUP, name + b"\0", node))[0])

    def create(self, name: bytes, node: int = ROOT) -> tuple[int, int]:
        reply = self.must(Opcode.CREATE, struct.pack("=IIII", os.O_RDWR, 0o644, 0, 0) + name + b"\0", node)
        return ENTRY.unpack_from(reply)[0], struct.unpack_from("=Q", reply, 128)[0]

    def list(self, opcode: int, size: int = 4096, node: int = ROOT) -> list[bytes]:
        fh = struct.unpack_from("=Q", self.must(Opcode.OPENDIR, bytes(8), node))[0]
        names, offset = [], 0
        while listed := self.must(opcode, struct.pack("=QQIIQII", fh, offset, size, 0, 0, 0, 0), node):
            at = 0
            while at < len(listed):
                at += 128 if opcode == Opcode.READDIRPLUS else 0
                _, offset, length, _ = struct.unpack_from("=QQII", listed, at)
                names.append(listed[at + 24 : at + 24 + length])
                at += 24 + length + -length % 8
        self.must(Opcode.RELEASEDIR, struct.pack("=QIIQ", fh, 0, 0, 0), node)
        return names


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def kernel(top: Path) -> Kernel:
    return Kernel(PlainOperations(top))


def test_a_file_from_its_creation_to_its_end(kernel: Kernel, top: Path) -> None:
    node, fh = kernel.create(b"file")
    body = struct.pack("=QQIIQII", fh, 0, 5, 0, 0, 0, 0)
    assert kernel.must(Opcode.WRITE, body + b"hello", node) == struct.pack("=II", 5, 0)
    assert kernel.must(Opcode.READ, struct.pack("=QQIIQII", fh, 1, 100, 0, 0, 0, 0), node) == b"ello"
    assert kernel.must(Opcode.UNLINK, b"file\0") == b""
    reply = kernel.must(Opcode.GETATTR, bytes(16), node)
    assert struct.unpack_from("=QQ", reply, 16)[1] == 5
    kernel.must(Opcode.FSYNC, struct.pack("=QII", fh, 0, 0), node)
    kernel.must(Opcode.SETATTR, setattr_body(Valid.MODE, mode=0o600), node)
    kernel.must(Opcode.RELEASE, struct.pack("=QIIQ", fh, 0, 0, 0), node)
    with pytest.raises(OSError, match=f"Errno {errno.ESTALE}"):
        kernel.ask(Opcode.GETATTR, bytes(16), node)
    assert kernel.ask(Opcode.FORGET, struct.pack("=Q", 1), node) is None
    assert list(top.iterdir()) == []


def test_names_that_are_not_there_are_remembered(kernel: Kernel, top: Path) -> None:
    assert kernel.look_up(b"missing") == 0
    with pytest.raises(FileNotFoundError):
        Kernel(PlainOperations(top), shared=True).ask(Opcode.LOOKUP, b"missing\0")


def test_the_kernel_may_trust_less_of_a_shared_store(top: Path) -> None:
    (top / "file").touch()
    alone, shared = (Kernel(PlainOperations(top), shared=shared) for shared in (False, True))
    assert ENTRY.unpack_from(alone.must(Opcode.LOOKUP, b"file\0"))[2:4] == (60, 60)
    assert ENTRY.unpack_from(shared.must(Opcode.LOOKUP, b"file\0"))[2:4] == (0, 0)


@pytest.mark.parametrize("opcode", [Opcode.READDIR, Opcode.READDIRPLUS])
def test_listing_in_pieces(kernel: Kernel, top: Path, opcode: int) -> None:
    for number in range(50):
        (top / f"file-{number}").touch()
    want = sorted([b".", b"..", *os.listdir(os.fsencode(top))])
    for size in (400, 4096, 1 << 16):
        assert sorted(kernel.list(opcode, size)) == want


def test_names_alone_are_enough_to_list(kernel: Kernel) -> None:
    class Sparse(Operations):
        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", "odd", "gone"]

        def getattr(self, path: str, fh: int | None = None) -> Attributes:
            if path == "/gone":
                raise FileNotFoundError(errno.ENOENT, "gone")
            return {
                "st_mode": stat.S_IFREG,
                "st_nlink": 1,
                "st_size": 0,
                "st_uid": 0,
                "st_gid": 0,
            } | dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), 0)

    for opcode in (Opcode.READDIR, Opcode.READDIRPLUS):
        assert Kernel(Sparse()).list(opcode) == [b".", b"..", b"odd", b"gone"]


def test_a_name_is_found_below_a_renamed_directory(kernel: Kernel, top: Path) -> None:
    (top / "d").mkdir()
    (top / "d/f").write_bytes(b"x")
    d = kernel.look_up(b"d")
    f = kernel.look_up(b"f", d)
    kernel.must(Opcode.RENAME, struct.pack("=Q", ROOT) + b"d\0e\0")
    (top / "d").mkdir()
    kernel.must(Opcode.SETATTR, setattr_body(Valid.MODE, mode=0o600), f)
    assert stat.S_IMODE((top / "e/f").stat().st_mode) == 0o600
    assert kernel.create(b"g", d)
    assert (top / "e/g").exists()
    kernel.must(Opcode.RENAME2, struct.pack("=QII", ROOT, 2, 0) + b"d\0e\0")
    kernel.create(b"h", d)
    assert (top / "d/h").exists()


def test_attributes_are_set_in_an_order_that_keeps_them(kernel: Kernel, top: Path) -> None:
    (top / "f").write_bytes(b"12345")
    node = kernel.look_up(b"f")
    valid = Valid.MODE | Valid.UID | Valid.GID | Valid.SIZE | Valid.ATIME | Valid.MTIME
    kernel.must(
        Opcode.SETATTR,
        setattr_body(valid, mode=0o4755, uid=1000, gid=1001, size=3, atime=7, mtime=8, mtimensec=9),
        node,
    )
    status = (top / "f").stat()
    assert (status.st_size, status.st_uid, status.st_gid, status.st_mode & 0o7777) == (3, 1000, 1001, 0o4755)
    assert (status.st_atime_ns, status.st_mtime_ns) == (7 * 10**9, 8 * 10**9 + 9)
    kernel.must(Opcode.SETATTR, setattr_body(Valid.MTIME, mtime=20), node)
    assert (top / "f").stat().st_atime_ns == 7 * 10**9
    kernel.must(Opcode.SETATTR, setattr_body(Valid.ATIME | Valid.ATIME_NOW), node)
    assert (top / "f").stat().st_mtime_ns == 20 * 10**9
    kernel.must(Opcode.SETATTR, setattr_body(Valid.SIZE | Valid.KILL_SUIDGID, size=1), node)
    assert (top / "f").stat().st_mode & 0o7777 == 0o755


def test_extended_attributes_fit_or_do_not(kernel: Kernel, top: Path) -> None:
    (top / "f").touch()
    node = kernel.look_up(b"f")
    kernel.must(Opcode.SETXATTR, struct.pack("=II", 5, 0) + b"user.a\0value", node)
    assert kernel.must(Opcode.GETXATTR, struct.pack("=II", 0, 0) + b"user.a\0", node) == struct.pack(
        "=II", 5, 0
    )
    assert kernel.must(Opcode.GETXATTR, struct.pack("=II", 5, 0) + b"user.a\0", node) == b"value"
    assert kernel.must(Opcode.LISTXATTR, struct.pack("=II", 100, 0), node) == b"user.a\0"
    with pytest.raises(OSError, match=f"Errno {errno.ERANGE}"):
        kernel.ask(Opcode.GETXATTR, struct.pack("=II", 4, 0) + b"user.a\0", node)


def test_what_nobody_does_is_not_there(kernel: Kernel) -> None:
    for opcode in (Opcode.ACCESS, Opcode.IOCTL, Opcode.COPY_FILE_RANGE, Opcode.GETLK, Opcode.STATX, 4000):
        with pytest.raises(OSError, match=f"Errno {errno.ENOSYS}"):
            kernel.ask(opcode, bytes(100))
    with pytest.raises(OSError, match=f"Errno {errno.EBADF}"):
        kernel.ask(Opcode.READDIR, struct.pack("=QQIIQII", 99, 0, 100, 0, 0, 0, 0))
    with pytest.raises(OSError, match=f"Errno {errno.EINVAL}"):
        kernel.ask(Opcode.READ, struct.pack("=QQIIQII", 1, 0, MAX_TRANSFER + 1, 0, 0, 0, 0))
    with pytest.raises(ProtocolError):
        kernel.ask(Opcode.MKDIR, b"")


def test_a_file_system_that_refuses_to_change(kernel: Kernel) -> None:
    empty = Kernel(Operations())
    for opcode, body in {
        Opcode.MKDIR: struct.pack("=II", 0o755, 0) + b"d\0",
        Opcode.SYMLINK: b"a\0b\0",
        Opcode.UNLINK: b"a\0",
        Opcode.RMDIR: b"a\0",
        Opcode.RENAME: struct.pack("=Q", ROOT) + b"a\0b\0",
        Opcode.CREATE: struct.pack("=IIII", 2, 0o644, 0, 0) + b"n\0",
        Opcode.SETATTR: setattr_body(Valid.MODE, mode=0),
        Opcode.SETXATTR: struct.pack("=II", 1, 0) + b"user.a\0v",
    }.items():
        with pytest.raises(OSError, match=f"Errno {errno.EROFS}"):
            empty.ask(opcode, body)
    assert len(empty.must(Opcode.STATFS)) == 80


def test_a_rename_waits_for_those_who_use_the_old_names(top: Path) -> None:
    inside, go = threading.Event(), threading.Event()

    class Slow(PlainOperations):
        def getattr(self, path: str, fh: int | None = None) -> Attributes:
            if path == "/d/f":
                inside.set()
                assert go.wait(10)
            return super().getattr(path, fh)

    (top / "d").mkdir()
    (top / "d/f").touch()
    kernel = Kernel(Slow(top))
    d, found = kernel.look_up(b"d"), list[int]()
    looker = threading.Thread(target=lambda: found.append(kernel.look_up(b"f", d)))
    looker.start()
    assert inside.wait(10)
    renamer = threading.Thread(target=lambda: kernel.must(Opcode.RENAME, struct.pack("=Q", ROOT) + b"d\0e\0"))
    renamer.start()
    assert (top / "d").exists()
    go.set()
    looker.join()
    renamer.join()
    assert found[0]
    assert (top / "e/f").exists()
