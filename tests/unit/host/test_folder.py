"""Mirrors strongroom/host/folder.py."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from strongroom.host.folder import APPEND, Folder


def write(folder: Folder, name: str, content: bytes, flags: int | None = None) -> None:
    fd = folder.open_file(name) if flags is None else folder.open_file(name, flags)
    os.write(fd, content)
    os.close(fd)


def test_names_come_and_go(tmp_path: Path) -> None:
    with closing(Folder.open(tmp_path)) as top:
        assert top.make("inner") and not top.make("inner")
        with closing(top.within("inner")) as inner:
            write(inner, "a", b"one")
            write(inner, "a", b"two", APPEND)
            inner.rename("a", "b")
            assert (inner.names(), inner.size("b"), inner.size("a"), inner.has("b")) == (["b"], 6, None, True)
            inner.remove("b")
            inner.remove("b")  # gone already
        top.remove_empty("inner")
        assert top.names() == []


def test_links_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_bytes(b"mine")
    top = tmp_path / "top"
    top.mkdir()
    (top / "folder").symlink_to("../victim")
    (top / "file").symlink_to("../victim/file")
    with closing(Folder.open(top)) as folder:
        assert not folder.make("folder")
        for refused in (lambda: folder.within("folder"), lambda: folder.open_file("file", APPEND)):
            with pytest.raises(OSError, match=str(top)):
                refused()
        with pytest.raises(FileExistsError):
            folder.open_file("file")
        with pytest.raises(NotADirectoryError):
            folder.remove_empty("folder")
        folder.remove("file")
    assert (tmp_path / "victim" / "file").read_bytes() == b"mine"


def test_what_takes_its_place_later_is_not_looked_at(tmp_path: Path) -> None:
    for name in ("ours", "victim"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(name.encode())
    with closing(Folder.open(tmp_path / "ours")) as folder:
        (tmp_path / "ours").rename(tmp_path / "aside")
        (tmp_path / "ours").symlink_to("victim")
        folder.remove("file")
        write(folder, "new", b"x")
    assert os.listdir(tmp_path / "victim") == ["file"] and os.listdir(tmp_path / "aside") == ["new"]


def test_errors_name_the_whole_path(tmp_path: Path) -> None:
    with closing(Folder.open(tmp_path)) as folder, pytest.raises(FileNotFoundError) as caught:
        folder.within("none")
    assert caught.value.filename == str(tmp_path / "none")
