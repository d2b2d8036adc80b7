"""Mirrors strongroom/host/tree.py."""

import hashlib
import os
import sys
from pathlib import Path

import pytest

from strongroom.errors import ConfigError, MachineError
from strongroom.host.run import run
from strongroom.host.tree import measure, named, walk
from strongroom.measure.tree import TreeEntry, tree_digest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "code"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "big").write_bytes(b"ab" * (1 << 20))
    (root / "a").write_bytes(b"")
    (root / "run.pyc").write_bytes(b"compiled")
    (root / "out").symlink_to("/etc/passwd")
    (root / "loop").symlink_to("deep")
    (root / "a").chmod(0o4711)
    for directory in (root, root / "deep", root / "deep" / "er"):
        directory.chmod(0o750)
    for file in (root / "deep" / "er" / "big", root / "run.pyc"):
        file.chmod(0o640)
    return root


def test_everything_is_found_and_no_link_followed(tree: Path) -> None:
    big = hashlib.sha256(b"ab" * (1 << 20)).digest()
    assert walk(tree, "code") == [
        TreeEntry(path="code", mode=0o750),
        TreeEntry(path="code/a", mode=0o4711, sha256=hashlib.sha256().digest()),
        TreeEntry(path="code/deep", mode=0o750),
        TreeEntry(path="code/deep/er", mode=0o750),
        TreeEntry(path="code/deep/er/big", mode=0o640, sha256=big),
        TreeEntry(path="code/loop", mode=0o777, target="deep"),
        TreeEntry(path="code/out", mode=0o777, target="/etc/passwd"),
        TreeEntry(path="code/run.pyc", mode=0o640, sha256=hashlib.sha256(b"compiled").digest()),
    ]


def test_several_trees_make_one_measurement_wherever_they_lie(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    both = measure([f"units={other}", str(tree)])
    assert both == tree_digest([*walk(tree, "code"), *walk(other, "units")])
    tree.rename(tmp_path / "moved")
    assert measure([f"code={tmp_path / 'moved'}", f"units={other}"]) == both


def test_times_do_not_count(tree: Path) -> None:
    before = measure([str(tree)])
    os.utime(tree / "a", (1, 1))
    assert measure([str(tree)]) == before


@pytest.mark.parametrize("change", ["content", "mode", "name", "added", "link"])
def test_any_change_in_a_tree_is_another_measurement(tree: Path, change: str) -> None:
    before = measure([str(tree)])
    match change:
        case "content":
            with (tree / "deep" / "er" / "big").open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"B")
        case "mode":
            (tree / "a").chmod(0o711)
        case "name":
            (tree / "a").rename(tree / "b")
        case "added":
            (tree / "deep" / "evil.pyc").touch()
        case "link":
            (tree / "loop").unlink()
            (tree / "loop").symlink_to("deep/er")
    assert measure([str(tree)]) != before


def test_names_come_from_the_argument_or_the_last_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named("code=/opt/x=y") == ("code", Path("/opt/x=y"))
    assert named("/opt/x/") == ("x", Path("/opt/x"))
    assert named(".") == (tmp_path.name, Path())


@pytest.mark.parametrize("argument", ["", "=", "=/opt", "a/b=/opt", "/", ".x=/opt"])
def test_a_name_that_will_not_do_is_refused(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path / "a b")
    with pytest.raises(ConfigError, match="tree name"):
        named(argument)


def test_two_trees_of_one_name_are_refused(tree: Path) -> None:
    with pytest.raises(ConfigError, match="tree code: is there twice"):
        measure([str(tree), f"code={tree}"])


def test_a_root_that_is_a_link_or_a_file_is_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tree)
    for root in (tmp_path / "link", tree / "a"):
        with pytest.raises(MachineError, match="not a directory"):
            walk(root, "x")


def test_a_missing_root_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="absent: no such file or directory"):
        walk(tmp_path / "absent", "x")


def test_what_is_neither_file_nor_directory_nor_link_is_refused(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(MachineError, match="pipe: neither file, directory nor link"):
        walk(tree, "x")


def test_a_tree_deeper_than_the_stack_is_measured(tmp_path: Path) -> None:
    depth = 1500  # over Python's default limit of 1000, under what a path can name
    limit = sys.getrecursionlimit()
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        sys.setrecursionlimit(1000)  # some libraries raise it for the whole process
        assert len(walk(tmp_path, "x")) == depth + 1
    finally:
        sys.setrecursionlimit(limit)
        run(["rm", "-r", tmp_path / "d"])  # pytest's own clean-up would not get to the bottom
