"""Names in a mounted volume: long ones, many, renamed, removed, linked."""

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fakes.live import refused, rename

pytestmark = pytest.mark.usefixtures("fuse_device", "real")


def test_a_tree_of_names(top: Path) -> None:
    (top / "a/b/c").mkdir(parents=True)
    (top / "a/b/c/ünï cødé").write_bytes(b"x")
    (top / os.fsdecode(b"not \xff utf-8")).write_bytes(b"y")
    assert sorted(os.listdir(os.fsencode(top))) == [b"a", b"not \xff utf-8"]
    assert os.listdir(top / "a/b/c") == ["ünï cødé"]
    with refused(errno.ENOTEMPTY):
        (top / "a/b").rmdir()
    with refused(errno.EEXIST):
        (top / "a").mkdir()
    with refused(errno.ENOENT):
        (top / "a/missing/x").write_bytes(b"")
    with refused(errno.ENOTDIR):
        (top / "a/b/c/ünï cødé/x").stat()
    (top / "a/b/c/ünï cødé").unlink()
    (top / "a/b/c").rmdir()
    (top / "a/b/c").mkdir()


@pytest.mark.parametrize("length", [175, 176, 255])
def test_long_names(top: Path, length: int) -> None:
    first, second = top / ("f" * length), top / ("d" * length)
    first.write_bytes(b"long")
    second.mkdir()
    first.rename(second / ("g" * length))
    os.link(second / ("g" * length), first)
    (top / ("l" * length)).symlink_to("f" * length)
    assert sorted(os.listdir(top)) == ["d" * length, "f" * length, "l" * length]
    assert (top / ("l" * length)).read_bytes() == b"long"
    (second / ("g" * length)).rename(second / "short")
    (second / "short").unlink()
    second.rmdir()
    first.rename(top / "short")
    assert sorted(os.listdir(top)) == ["l" * length, "short"]
    with refused(errno.ENAMETOOLONG):
        (top / ("n" * 256)).write_bytes(b"")


def test_listing_many_names(top: Path) -> None:
    names = {f"file {number:05}" for number in range(3000)}
    for name in names:
        os.close(os.open(top / name, os.O_CREAT | os.O_WRONLY))
    assert set(os.listdir(top)) == names
    with os.scandir(top) as entries:
        assert {entry.name for entry in entries if entry.stat().st_size == 0} == names
    for name in names:
        os.unlink(top / name)
    assert os.listdir(top) == []


def test_listing_in_many_threads(top: Path) -> None:
    names = {f"{number}" for number in range(700)}
    for name in names:
        (top / name).touch()

    def look(number: int) -> bool:
        if number % 4 == 0:
            (top / "new").mkdir()  # so that the kernel asks again
            (top / "new").rmdir()
        return set(os.listdir(top)) - {"new"} == names

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(look, [1, 2, 3] * 20))
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(look, [0, *[1, 2, 3, 5] * 10]))


def test_removing_names_while_listing_them(top: Path) -> None:
    for number in range(500):
        (top / f"f{number}").touch()
    seen = []
    with os.scandir(top) as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(entry.path)
    assert len(seen) == len(set(seen)) == 500
    assert os.listdir(top) == []


def test_renaming(top: Path) -> None:
    (top / "a").write_bytes(b"a")
    (top / "b").write_bytes(b"b")
    (top / "a").rename(top / "b")
    assert os.listdir(top) == ["b"]
    assert (top / "b").read_bytes() == b"a"
    (top / "d1").mkdir()
    (top / "d1/in").write_bytes(b"in")
    (top / "d2").mkdir()
    with refused(errno.ENOTEMPTY):
        (top / "d2").rename(top / "d1")
    (top / "d1").rename(top / "d2")
    assert (top / "d2/in").read_bytes() == b"in"
    with refused(errno.EISDIR):
        (top / "b").rename(top / "d2")
    with refused(errno.ENOTDIR):
        (top / "d2").rename(top / "b")
    with refused(errno.EINVAL):
        (top / "d2").rename(top / "d2/below")


def test_renaming_without_replacing_and_exchanging(top: Path) -> None:
    (top / "a").write_bytes(b"a")
    (top / "b").mkdir()
    (top / "b/x").write_bytes(b"x")
    rename(top / "a", top / "c", 1)
    with refused(errno.EEXIST):
        rename(top / "c", top / "b", 1)
    rename(top / "c", top / "b", 2)
    assert (top / "b").read_bytes() == b"a"
    assert (top / "c/x").read_bytes() == b"x"
    with refused(errno.EINVAL):
        rename(top / "b", top / "n", 4)


def test_a_file_that_lost_its_name_stays_open(top: Path) -> None:
    with (top / "gone").open("w+b", buffering=0) as file:
        file.write(b"before")
        (top / "gone").unlink()
        with refused(errno.ENOENT):
            (top / "gone").stat()
        (top / "gone").write_bytes(b"another")
        file.write(b" after")
        assert os.pread(file.fileno(), 100, 0) == b"before after"
        status = os.fstat(file.fileno())
        assert status.st_size == 12
        os.fchmod(file.fileno(), 0o600)
        os.ftruncate(file.fileno(), 3)
        os.fsync(file.fileno())
        assert os.pread(file.fileno(), 100, 0) == b"bef"
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
    assert (top / "gone").read_bytes() == b"another"


def test_a_file_that_was_replaced_stays_open(top: Path) -> None:
    (top / "config").write_bytes(b"old")
    with (top / "config").open("r+b", buffering=0) as file:
        (top / "new").write_bytes(b"new")
        (top / "new").rename(top / "config")
        assert file.read() == b"old"
        file.write(b"er")
        assert os.pread(file.fileno(), 10, 0) == b"older"
    assert (top / "config").read_bytes() == b"new"


def test_files_below_a_renamed_directory_stay_usable(top: Path) -> None:
    (top / "d/e").mkdir(parents=True)
    fd = os.open(top / "d/e", os.O_RDONLY)
    with (top / "d/e/f").open("w+b", buffering=0) as file:
        (top / "d").rename(top / "x")
        (top / "d").mkdir()
        (top / "d/e").mkdir()
        file.write(b"content")
        made = os.open("g", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        os.close(made)
        os.close(fd)
    assert (top / "x/e/f").read_bytes() == b"content"
    assert sorted(os.listdir(top / "x/e")) == ["f", "g"]
    assert os.listdir(top / "d/e") == []


def test_links(top: Path) -> None:
    (top / "a").write_bytes(b"one")
    (top / "d").mkdir()
    os.link(top / "a", top / "d/b")
    assert (top / "a").stat().st_nlink == 2
    assert (top / "a").stat().st_ino == (top / "d/b").stat().st_ino
    (top / "d/b").write_bytes(b"both")
    assert (top / "a").read_bytes() == b"both"
    (top / "a").unlink()
    assert (top / "d/b").stat().st_nlink == 1
    assert (top / "d/b").read_bytes() == b"both"
    with refused(errno.EPERM):
        os.link(top / "d", top / "e")


def test_symbolic_links(top: Path) -> None:
    for name, target in {"up": "../x", "dangling": "nowhere", "abs": "/etc", "long": "y" * 2000}.items():
        (top / name).symlink_to(target)
        assert os.readlink(top / name) == target
        assert (top / name).lstat().st_size == len(target)
    os.utime(top / "up", ns=(10**9, 2 * 10**9), follow_symlinks=False)
    assert (top / "up").lstat().st_mtime_ns == 2 * 10**9
    with refused(errno.ENOENT):
        (top / "dangling").read_bytes()
