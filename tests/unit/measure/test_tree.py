"""Mirrors strongroom/measure/tree.py. The fixed digest is computed here a second way, from the written format."""

import hashlib
from random import Random

import pytest

from strongroom.errors import FormatError
from strongroom.measure.tree import TreeEntry, tree_digest, tree_name, words

FILE = TreeEntry(path="code/a.py", mode=0o644, sha256=hashlib.sha256(b"x").digest())
LINK = TreeEntry(path="code/b", mode=0o777, target="../a.py")
ROOT = TreeEntry(path="code", mode=0o755)
TREE = (ROOT, FILE, LINK)


def framed(*fields: bytes) -> bytes:
    return b"".join(len(field).to_bytes(8, "big") + field for field in fields)


def test_the_digest_is_what_the_format_says() -> None:
    written = framed(b"strongroom/tree/v1")
    written += framed(b"code", b"directory", b"\0\0\x01\xed", b"")
    written += framed(b"code/a.py", b"file", b"\0\0\x01\xa4", hashlib.sha256(b"x").digest())
    written += framed(b"code/b", b"link", b"\0\0\x01\xff", b"../a.py")
    assert tree_digest(TREE) == hashlib.sha384(written).digest()


def test_the_order_of_entries_does_not_count() -> None:
    shuffled = list(TREE)
    Random(7).shuffle(shuffled)
    assert tree_digest(shuffled) == tree_digest(TREE)


def test_paths_are_ordered_by_their_bytes() -> None:
    entries = [TreeEntry(path=path, mode=0o755) for path in ("a", "a-b", "a/b", "é", "\U0001f600", "\uffee")]
    written = framed(b"strongroom/tree/v1")
    for path in sorted(entry.path.encode() for entry in entries):
        written += framed(path, b"directory", b"\0\0\x01\xed", b"")
    assert tree_digest(entries) == hashlib.sha384(written).digest()


@pytest.mark.parametrize(
    "changed",
    [
        TreeEntry(path="code/a.pz", mode=0o644, sha256=FILE.sha256),
        TreeEntry(path="code/a.py", mode=0o645, sha256=FILE.sha256),
        TreeEntry(path="code/a.py", mode=0o644, sha256=hashlib.sha256(b"y").digest()),
        TreeEntry(path="code/a.py", mode=0o644),
        TreeEntry(path="code/a.py", mode=0o777, target="x"),
    ],
)
def test_every_part_of_an_entry_counts(changed: TreeEntry) -> None:
    assert tree_digest((ROOT, changed, LINK)) != tree_digest(TREE)


def test_an_entry_more_or_less_counts() -> None:
    assert len({tree_digest(TREE[:n]) for n in (1, 2, 3)}) == 3


def test_a_path_met_twice_is_refused() -> None:
    with pytest.raises(FormatError, match=r"'code/a.py' is there twice"):
        tree_digest((*TREE, TreeEntry(path="code/a.py", mode=0o755)))


def test_nothing_has_no_digest() -> None:
    with pytest.raises(FormatError, match="no entries"):
        tree_digest([])


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "a/", "a//b", ".", "a/./b", "..", "a/../b", "a\0b", "\udcff"]
)
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(FormatError, match="tree entry: path"):
        TreeEntry(path=path, mode=0o644)


@pytest.mark.parametrize(
    ("mode", "sha256", "target", "why"),
    [
        (-1, None, None, "mode"),
        (0o10000, None, None, "mode is 10000"),
        (0o644, bytes(31), None, "31 bytes, want 32"),
        (0o777, bytes(32), "x", "contents and a target"),
        (0o644, None, "x", "link mode is 644"),
        (0o777, None, "", "link target"),
        (0o777, None, "a\0", "link target"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(
    mode: int, sha256: bytes | None, target: str | None, why: str
) -> None:
    with pytest.raises(FormatError, match=why):
        TreeEntry(path="x", mode=mode, sha256=sha256, target=target)


def test_a_link_target_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(FormatError, match=r"link target .* is not UTF-8"):
        tree_digest([TreeEntry(path="x", mode=0o777, target="\udcff")])


@pytest.mark.parametrize(
    ("address", "spoken"),
    [("127.0.0.1", "lusab-babad"), ("63.84.220.193", "gutih-tugad"), ("140.98.193.141", "mudof-sakat")],
)
def test_words_are_proquints(address: str, spoken: str) -> None:
    """The examples of arXiv:0901.4016."""
    digest = bytes(map(int, address.split("."))) * 2
    assert words(digest) == f"{spoken}-{spoken}"


def test_words_need_eight_bytes_and_read_no_more() -> None:
    assert words(bytes(8)) == words(bytes(8) + b"more") == "babab-babab-babab-babab"
    with pytest.raises(FormatError, match="7 bytes"):
        words(bytes(7))


@pytest.mark.parametrize("name", ["", ".x", "a/b", "a b", "é", "x" * 65, "-x"])
def test_a_tree_name_is_one_plain_part(name: str) -> None:
    with pytest.raises(FormatError, match="tree name"):
        tree_name(name)
    assert tree_name("venv-3.11_x") == "venv-3.11_x"
