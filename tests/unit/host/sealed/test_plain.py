"""Mirrors strongroom/host/sealed/plain.py."""

import os
import socket
from pathlib import Path

import pytest

from strongroom.errors import ConfigError, MachineError
from strongroom.host.sealed.plain import open_plain, read_at, scan, stamp
from strongroom.sealed.manifest import INLINE_BELOW, Directory, Entry, InlineFile, SealedFile, Symlink
from tests.fakes.sealed import counter


def entries(source: Path, *, dereference: bool = False) -> dict[str, Entry]:
    return {entry.path: entry for entry in scan(source, dereference=dereference, entropy=counter())}


def test_what_a_directory_holds(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir(mode=0o750)
    (tmp_path / "sub" / "small").write_bytes(b"x" * (INLINE_BELOW - 1))
    (tmp_path / "sub" / "large").write_bytes(b"x" * INLINE_BELOW)
    (tmp_path / "sub" / "large").chmod(0o4755)
    (tmp_path / "link").symlink_to("sub/large")
    os.utime(tmp_path / "sub" / "small", (5, -5))
    os.utime(tmp_path / "sub" / "large", ns=(0, 7_000_000_008))
    found = entries(tmp_path)
    assert list(found) == ["link", "sub", "sub/large", "sub/small"]
    assert isinstance(found["sub"], Directory) and found["sub"].mode == 0o750
    small, large = found["sub/small"], found["sub/large"]
    assert isinstance(small, InlineFile) and small.content == b"x" * (INLINE_BELOW - 1) and small.mtime == 0
    assert isinstance(large, SealedFile) and large.size == INLINE_BELOW and large.mode == 0o755
    assert (large.mtime, large.nanos, large.sha256) == (7, 8, None) and len(large.key) == 32
    assert isinstance(found["link"], Symlink) and found["link"].target == "sub/large"


def test_a_very_deep_tree(tmp_path: Path) -> None:
    levels = [tmp_path]
    try:
        for _ in range(1200):
            levels.append(levels[-1] / "d")
            levels[-1].mkdir()
        assert len(entries(tmp_path)) == 1200
    finally:
        for level in reversed(levels[1:]):  # what cleans up after tests goes down by recursion
            level.rmdir()


def test_order_is_that_of_bytes(tmp_path: Path) -> None:
    for name in ("a", "b-", "é", "Z"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"")
    assert list(entries(tmp_path)) == ["Z", "a", "b", "b-", "b/c", "é"]


def test_links_are_followed_on_request(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "123").write_bytes(b"weights")
    (snapshot / "model.bin").symlink_to("../../blobs/123")
    followed = entries(snapshot, dereference=True)["model.bin"]
    assert isinstance(followed, InlineFile) and followed.content == b"weights"
    with pytest.raises(ConfigError, match=r"leaves the tree, as in a Hugging Face cache: .*--dereference"):
        entries(snapshot)


@pytest.mark.parametrize("target", ["/etc/passwd", "..", "../x", "sub/../../x"])
def test_links_out_are_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "l").symlink_to(target)
    with pytest.raises(ConfigError, match=r"leaves the tree: seal a copy without links"):
        entries(tmp_path / "tree")


def test_links_to_other_things_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    link = tmp_path / "tree" / "l"
    for target, why in (
        (tmp_path, "leads to a directory"),
        ("/dev/null", "a character device"),
        ("/no", "nowhere"),
    ):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(ConfigError, match=why):
            entries(tmp_path / "tree", dereference=True)


def test_special_files_are_refused(tmp_path: Path, socket_dir: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="fifo: is a FIFO, want a file, a directory or a link"):
        entries(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_dir / "s"))
        with pytest.raises(ConfigError, match="is a socket"):
            entries(socket_dir)


def test_names_are_utf_8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad\xff")).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"'bad\\udcff' is not a name in UTF-8"):
        entries(tmp_path)


def test_a_source_is_a_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "none", Path("/dev/null")):
        with pytest.raises(ConfigError, match="not a directory"):
            scan(path, dereference=False, entropy=counter())


def test_a_file_that_became_something_else(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(MachineError, match="changed while it was sealed"):
        open_plain(tmp_path / "fifo")


def test_a_file_is_read_across_its_holes(tmp_path: Path) -> None:
    sparse, size = tmp_path / "sparse", 5 << 20
    with sparse.open("wb") as file:
        file.seek(1 << 20)
        file.write(b"data")
        file.truncate(size)
    content = bytes(1 << 20) + b"data" + bytes(size - (1 << 20) - 4)
    with open_plain(sparse) as file:
        for offset in (0, (1 << 20) - 2, 1 << 20, (1 << 20) + 3, 3 << 20, size - 100):
            out = bytearray(b"x" * 100)
            assert read_at(file.fileno(), offset, memoryview(out))
            assert out == content[offset : offset + 100]
        for offset in (size - 99, size, size + 5):  # the hole at the end does not go on behind it
            assert not read_at(file.fileno(), offset, memoryview(bytearray(100)))
        assert stamp(os.fstat(file.fileno()))[0] == size


def test_a_file_system_that_tells_no_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lseek(*_: int) -> int:
        raise OSError(22, "Invalid argument")

    (tmp_path / "file").write_bytes(b"content")
    monkeypatch.setattr("strongroom.host.sealed.plain.os.lseek", lseek)
    out = bytearray(7)
    with open_plain(tmp_path / "file") as file:
        assert read_at(file.fileno(), 0, memoryview(out)) and out == b"content"
