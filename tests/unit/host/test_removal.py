"""Mirrors strongroom/host/removal.py."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.errors import VerifyError
from strongroom.host.removal import clear, remove, undone


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "top").mkdir()
    fd = os.open(tmp_path / "top", os.O_RDONLY)
    yield fd
    os.close(fd)


def dig(top: int, depth: int) -> None:
    """A chain of directories, with a file in each."""
    fd = os.dup(top)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=(fd := inner)))
    os.close(fd)


def test_no_depth_is_too_deep(top: int) -> None:
    dig(top, 3000)
    clear(top)
    assert os.listdir(top) == []
    dig(top, 1500)
    remove("d", top)
    assert os.listdir(top) == []


def test_names_like_ours_are_no_hindrance(top: int, tmp_path: Path) -> None:
    for name in (".removed-0/x/y", ".removed-1", "a/.removed-0/x", "a/b/c"):
        (tmp_path / "top" / name).mkdir(parents=True)
    (tmp_path / "top" / ".removed-2").touch()
    clear(top)
    assert os.listdir(top) == []


def test_links_are_removed_and_not_followed(top: int, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").touch()
    (tmp_path / "top" / "a").mkdir()
    for name in ("link", "a/link"):
        (tmp_path / "top" / name).symlink_to(tmp_path / "victim")
    clear(top)
    assert os.listdir(top) == [] and os.listdir(tmp_path / "victim") == ["file"]


def test_modes_that_deny_us_are_changed(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o777)
    if (child := os.fork()) == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.chmod(tmp_path.parent, 0o711)
                fd = os.open(tmp_path, os.O_RDONLY)
                os.fchdir(fd)
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            else:
                os.chdir(tmp_path)
            os.makedirs("top/a/b/c")
            Path("top/a/b/c/file").touch()
            for name, mode in (("top/a/b/c", 0o555), ("top/a/b", 0o000), ("top/a", 0o555), ("top", 0)):
                os.chmod(name, mode)
            remove("top")
            status = int(os.path.lexists("top"))
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_can_be_removed_is(top: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1", "a/stuck", "a/2", "b/c/3"):
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / name).touch()
    unlink = os.unlink

    def fail(name: str, *, dir_fd: int) -> None:
        if name == "stuck":
            raise OSError(5, "Input/output error")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr("strongroom.host.removal.os.unlink", fail)
    with pytest.raises(OSError, match="Input/output error"):
        clear(top)
    monkeypatch.undo()
    files = [path.name for path in (tmp_path / "top").rglob("*") if path.is_file()]
    assert files == ["stuck"]


def test_an_error_stays_what_it_was() -> None:
    def fail() -> None:
        raise OSError(30, "Read-only file system")

    with pytest.raises(VerifyError, match=r"^the cause$"), undone(lambda: None, "x"):
        raise VerifyError("the cause")
    words = "^the cause; what was written could not be removed: read-only file system$"
    with pytest.raises(VerifyError, match=words), undone(fail, "what was written"):
        raise VerifyError("the cause")
    with pytest.raises(KeyboardInterrupt), undone(fail, "what was written"):
        raise KeyboardInterrupt
