"""A volume without a mount: names on disk, what a crash or a stranger leaves there, several handles of one file."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecars.fs.live.directories import MOST, Directories
from sidecars.fs.live.volume import Volume, open_volume
from strongroom.errors import MachineError, VerifyError
from strongroom.sealed.gocryptfs.ciphers import Ciphers
from tests.fakes.gocryptfs import CONTENTS, KINDS, LINKS, MASTER_KEY, settings, write_volume
from tests.fakes.sealed import pattern

LONG = "l" * 200


@contextmanager
def opened(store: Path, *, shared: bool = False) -> Iterator[tuple[Volume, list[str]]]:
    said: list[str] = []
    intents = store.parent / "intents"
    with open_volume(
        store, master_key=MASTER_KEY, intents=intents, report=said.append, shared=shared, workspaces=2
    ) as volume:
        yield volume, said


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_volume(tmp_path / "store", contents={}, links={})
    return tmp_path / "store"


@pytest.fixture
def volume(store: Path) -> Iterator[Volume]:
    with opened(store) as (made, _):
        yield made


def put(volume: Volume, path: str, content: bytes) -> None:
    fh = volume.create(path, 0o644)
    assert volume.write(path, content, 0, fh) == len(content)
    volume.release(path, fh)


def get(volume: Volume, path: str) -> bytes:
    fh = volume.open(path, os.O_RDONLY)
    try:
        return volume.read(path, 1 << 22, 0, fh)
    finally:
        volume.release(path, fh)


def names(volume: Volume, path: str = "/") -> list[str]:
    return sorted(entry if isinstance(entry, str) else entry[0] for entry in volume.readdir(path, 0))[2:]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_volume(tmp_path: Path, kind: str) -> None:
    """What another writer of the format left is read, and what is written is read again by a second daemon."""
    write_volume(tmp_path / "store", kind)
    for turn in range(2):
        with opened(tmp_path / "store") as (volume, said):
            for path, content in CONTENTS.items():
                assert get(volume, f"/{path}") == content
            for path, target in LINKS.items():
                assert volume.readlink(f"/{path}") == target
                assert volume.getattr(f"/{path}")["st_size"] == len(target)
            if not turn:
                volume.mkdir("/new", 0o750)
                put(volume, "/new/file", pattern(10_000, 1))
                volume.symlink("/new/link", "file")
                put(volume, "/" + "n" * 140, b"rather long")
            assert get(volume, "/new/file") == pattern(10_000, 1)
            assert volume.readlink("/new/link") == "file"
            assert names(volume, "/new") == ["file", "link"]
            assert get(volume, "/" + "n" * 140) == b"rather long"
            assert said == []


def test_another_key_is_refused(store: Path) -> None:
    with opened(store) as (volume, _):
        put(volume, "/file", b"x")
    with (
        pytest.raises(VerifyError, match="no name opens under this key"),
        open_volume(store, master_key=bytes(32), intents=store.parent / "i", report=print),
    ):
        pass


def test_one_daemon_has_the_volume(store: Path, volume: Volume, tmp_path: Path) -> None:
    with (
        pytest.raises(MachineError, match="held by another daemon, want one writer"),
        open_volume(store, master_key=MASTER_KEY, intents=tmp_path / "other", report=print),
    ):
        pass


def test_handles_of_one_file_share_what_is_written(volume: Volume) -> None:
    first = volume.create("/file", 0o644)
    second = volume.open("/file", os.O_RDONLY)
    volume.write("", b"one", 0, first)
    assert volume.read("", 10, 0, second) == b"one"
    volume.release("", first)
    assert volume.read("", 10, 0, second) == b"one"
    volume.release("", second)
    volume.release("", second)
    with pytest.raises(OSError, match=f"Errno {errno.EBADF}"):
        volume.read("", 10, 0, second)


def test_a_transfer_of_any_size(volume: Volume) -> None:
    fh = volume.create("/file", 0o644)
    content = pattern((3 << 20) + 77, 1)
    assert volume.write("", content, 5, fh) == len(content)
    out = memoryview(bytearray(4 << 20))
    assert volume.read_into("", out, 0, fh) == len(content) + 5
    assert bytes(out[5 : len(content) + 5]) == content
    volume.release("", fh)


def test_creating_what_is_there_opens_it(volume: Volume) -> None:
    put(volume, "/file", b"content")
    fh = volume.create("/file", 0o600, os.O_RDWR)
    assert volume.read("", 10, 0, fh) == b"content"
    volume.release("", fh)
    with pytest.raises(FileExistsError):
        volume.create("/file", 0o600, os.O_RDWR | os.O_EXCL)
    volume.release("", volume.create("/file", 0o600, os.O_RDWR | os.O_TRUNC))
    assert get(volume, "/file") == b""


@pytest.mark.parametrize("name", ["x" * 256, "ü" * 128, "", "a\0b"])
def test_names_no_directory_can_hold(volume: Volume, name: str) -> None:
    with pytest.raises(OSError, match="Errno"):
        volume.create(f"/{name}", 0o644)


def test_bookkeeping_is_not_part_of_a_volume_with_plain_names(tmp_path: Path) -> None:
    write_volume(tmp_path / "store", "plaintext-names", contents={"d/x": b""}, links={})
    with opened(tmp_path / "store") as (volume, _):
        assert names(volume) == ["d"]
        with pytest.raises(PermissionError):
            volume.unlink("/gocryptfs.conf")
        put(volume, "/d/gocryptfs.conf", b"a name as any other, but at the top")


# What a crash leaves


def hidden(store: Path) -> set[str]:
    return {path.name for path in store.rglob("*") if path.name not in ("gocryptfs.conf", "gocryptfs.diriv")}


def test_a_directory_without_its_iv_gets_one(store: Path) -> None:
    with opened(store) as (volume, _):
        volume.mkdir("/d", 0o755)
    (at,) = (path for path in store.iterdir() if path.is_dir())
    for content in (None, b"", b"cut"):
        (at / "gocryptfs.diriv").unlink()
        if content is not None:
            (at / "gocryptfs.diriv").write_bytes(content)
        with opened(store) as (volume, _):
            put(volume, "/d/x", b"x")
            assert names(volume, "/d") == ["x"]
            volume.unlink("/d/x")


def test_a_directory_without_its_iv_that_is_not_empty_is_refused(store: Path) -> None:
    with opened(store) as (volume, _):
        volume.mkdir("/d", 0o755)
        put(volume, "/d/x", b"x")
    (at,) = (path for path in store.iterdir() if path.is_dir())
    (at / "gocryptfs.diriv").unlink()
    with opened(store) as (volume, _), pytest.raises(MachineError, match="directory without its IV"):
        names(volume, "/d")
    assert not (at / "gocryptfs.diriv").exists()


def test_another_machine_may_be_about_to_furnish_it(store: Path) -> None:
    with opened(store) as (volume, _):
        volume.mkdir("/d", 0o755)
    (at,) = (path for path in store.iterdir() if path.is_dir())
    (at / "gocryptfs.diriv").unlink()
    with opened(store, shared=True) as (volume, _), pytest.raises(MachineError, match="without its IV"):
        names(volume, "/d")


def test_a_removal_that_fails_leaves_the_directory_as_it_was(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(store) as (volume, _):
        volume.mkdir("/d", 0o755)
        put(volume, "/keep", b"")
        rmdir = os.rmdir

        def failing(*_: object, **__: object) -> None:
            raise OSError(errno.EIO, "failed")

        monkeypatch.setattr(os, "rmdir", failing)
        with pytest.raises(OSError, match="failed"):
            volume.rmdir("/d")
        monkeypatch.setattr(os, "rmdir", rmdir)
        put(volume, "/d/x", b"x")
        with pytest.raises(OSError, match=f"Errno {errno.ENOTEMPTY}"):
            volume.rmdir("/d")
        assert names(volume, "/d") == ["x"]


def test_what_long_names_need_comes_first_and_goes_last(store: Path) -> None:
    with opened(store) as (volume, _):
        put(volume, f"/{LONG}", b"x")
        volume.rename(f"/{LONG}", "/short")
        assert len(hidden(store)) == 1
        volume.rename("/short", f"/{LONG}")
        assert len(hidden(store)) == 2
        with pytest.raises(FileExistsError):
            volume.mkdir(f"/{LONG}", 0o755)
        assert len(hidden(store)) == 2
        with pytest.raises(FileNotFoundError):
            volume.rename("/missing", "/" + "m" * 200)
        assert len(hidden(store)) == 2
        volume.unlink(f"/{LONG}")
        assert hidden(store) == set()


@pytest.mark.parametrize("left", [b"", b"cut", None])
def test_what_a_crash_left_of_a_long_name_is_not_in_the_way(store: Path, left: bytes | None) -> None:
    with opened(store) as (volume, _):
        put(volume, f"/{LONG}", b"x")
        (beside,) = (path for path in store.iterdir() if path.suffix == ".name")
        whole = beside.read_bytes()
        volume.unlink(f"/{LONG}")
    beside.write_bytes(whole if left is None else left)
    with opened(store) as (volume, _):
        put(volume, f"/{LONG}", b"y")
        assert names(volume) == [LONG]
        assert beside.read_bytes() == whole


def test_strange_names_are_passed_over(store: Path) -> None:
    with opened(store) as (volume, _):
        put(volume, "/file", b"x")
        put(volume, f"/{LONG}", b"x")
    (store / "not-a-name").touch()
    (store / ".nfs0123").touch()
    (store / "strongroom.side").touch()
    for path in store.glob("*.name"):
        path.write_bytes(b"another")
    with opened(store) as (volume, _):
        assert names(volume) == ["file"]


# What hangs on files


def test_whose_a_new_file_is(volume: Volume, store: Path) -> None:
    volume.caller = lambda: (1000, 1001)
    put(volume, "/file", b"x")
    volume.mkdir("/d", 0o750)
    volume.symlink("/link", "x")
    volume.mknod("/pipe", stat.S_IFIFO | 0o620, 0)
    for path, mode in {"/file": 0o644, "/d": 0o750, "/link": 0o777, "/pipe": 0o620}.items():
        attrs = volume.getattr(path)
        assert (attrs["st_uid"], attrs["st_gid"], stat.S_IMODE(attrs["st_mode"])) == (1000, 1001, mode)


@pytest.mark.parametrize("mode", [0o644, 0o400, 0o7777, 0])
@pytest.mark.parametrize("umask", [0, 0o077])
@pytest.mark.parametrize("caller", [(-1, -1), (1234, 1235)], ids=["ours", "theirs"])
def test_what_a_new_file_is_told_to_be(
    volume: Volume, mode: int, umask: int, caller: tuple[int, int]
) -> None:
    """It has its owner and mode, and its attributes are those that are found when it is asked again."""
    ours = os.geteuid(), os.getegid()
    owner = ours if caller[0] < 0 else caller
    volume.caller = lambda: owner
    before = os.umask(umask)
    try:
        fh, attrs = volume.created("/file", stat.S_IFREG | mode, os.O_RDWR)
    finally:
        os.umask(before)
    assert attrs == volume.getattr("/file", fh) == volume.getattr("/file")
    assert (attrs["st_mode"], attrs["st_uid"], attrs["st_gid"]) == (stat.S_IFREG | mode, *owner)
    volume.release("/file", fh)
    fh, again = volume.created("/file", 0o600, os.O_RDWR)
    assert again == attrs
    volume.release("/file", fh)


def test_a_file_of_our_own_is_made_by_one_call_and_looked_at_once(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each further one is a way to a store on another machine and back."""
    looked, fstat = list[int](), os.fstat

    def look(fd: int) -> os.stat_result:
        looked.append(fd)
        return fstat(fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", look)
        patched.delattr(os, "fchmod")
        fh, _ = volume.created("/file", 0o640, os.O_RDWR)
    assert len(looked) == 1
    volume.release("/file", fh)


def test_a_file_that_cannot_be_given_away_is_not_left_open(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    volume.caller = lambda: (os.geteuid() + 1, os.getegid())
    monkeypatch.setattr(os, "fchown", refused)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(PermissionError):
        volume.created("/file", 0o640, os.O_RDWR)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_attributes(volume: Volume, store: Path) -> None:
    put(volume, "/file", b"x")
    volume.setxattr("/file", "user.note", b"value", 0)
    assert volume.getxattr("/file", "user.note") == b"value"
    assert volume.listxattr("/file") == ["user.note"]
    (at,) = (path for path in store.iterdir() if not path.name.startswith("gocryptfs"))
    (stored,) = os.listxattr(at)
    assert stored.startswith("user.gocryptfs.")
    assert b"value" not in os.getxattr(at, stored)
    os.setxattr(at, "user.other", b"not ours")
    assert volume.listxattr("/file") == ["user.note"]
    os.setxattr(at, stored, os.getxattr(at, stored)[:-1] + b"!")
    with pytest.raises(VerifyError, match="attribute: tag does not verify"):
        volume.getxattr("/file", "user.note")
    for name in ("security.capability", "system.posix_acl_access", "trusted.x"):
        with pytest.raises(OSError, match=f"Errno {errno.EOPNOTSUPP}"):
            volume.setxattr("/file", name, b"", 0)


def test_times_and_modes_of_the_top(volume: Volume, store: Path) -> None:
    volume.utimens("/", (5, 6))
    volume.chmod("/", 0o711)
    volume.chown("/", -1, -1)
    attrs = volume.getattr("/")
    assert (attrs["st_mtime"], stat.S_IMODE(attrs["st_mode"])) == (6, 0o711)
    volume.utimens("/", None)
    assert store.stat().st_mtime_ns != 6


def test_bookkeeping_is_made_safe_with_what_it_is_for(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.mkdir("/d", 0o755)
    fh = volume.create(f"/d/{LONG}", 0o644)
    synced: list[str] = []
    fsync = os.fsync

    def noting(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}").rpartition("/")[2])
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noting)
    volume.fsync(f"/d/{LONG}", 0, fh)
    assert any(name.endswith(".name") for name in synced)
    assert "gocryptfs.diriv" in synced
    synced.clear()
    volume.fsync(f"/d/{LONG}", 0, fh)
    assert len(synced) == 1
    volume.fsyncdir("/d", 0, 0)
    volume.release("", fh)


def test_directories_are_held_open_and_not_too_many(store: Path) -> None:
    others = len(os.listdir("/proc/self/fd"))
    with opened(store) as (volume, _):
        for number in range(MOST + 20):
            volume.mkdir(f"/d{number}", 0o755)
            put(volume, f"/d{number}/x", b"x")
        before = len(os.listdir("/proc/self/fd"))
        assert get(volume, "/d0/x") == b"x"
        assert len(os.listdir("/proc/self/fd")) - before <= 1
        assert before - others < MOST + 100


def test_a_directory_in_use_stays_open_when_it_is_forgotten(store: Path) -> None:
    directories = Directories(os.open(store, os.O_RDONLY), Ciphers.make(MASTER_KEY, settings()))
    with opened(store) as (volume, _):
        volume.mkdir("/d", 0o755)
    held = directories.find("/d")
    directories.drop("/d")
    os.fstat(held.fd)
    assert directories.find("/d") is not held
