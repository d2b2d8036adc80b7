"""The vectors of tests/vectors/sealed: two readers agree on the tree, and on what must be rejected."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from strongroom import errors
from strongroom.errors import StrongroomError
from strongroom.host.sealed.tree import SealedTree
from strongroom.sealed.chunks import TAG_SIZE
from strongroom.sealed.manifest import InlineFile, Symlink
from tests.unit.sealed.test_by_hand import read_tree
from tests.vectors.sealed_cases import FOLDER, Case, Vector, make_cases, make_tree

VECTOR = Vector.load()
TREE = FOLDER / "tree"


@contextmanager
def opened(tree: Path, root: bytes, *, key: bytes, epoch: int) -> Iterator[SealedTree]:
    with SealedTree.open(tree, model_key=key, epoch=epoch, root=root) as sealed:
        yield sealed


def read(sealed: SealedTree, path: str) -> bytes:
    """A whole file as it lies in the tree."""
    for entry in sealed.manifest.entries:
        if entry.path == path and isinstance(entry, InlineFile):
            return entry.content
    (stored,) = [sealed.stored(one) for one in sealed.objects if one.file.path == path]
    content = bytearray(stored.file.size)
    for index in range(stored.chunking.count):
        at, length = index << stored.chunking.chunk_log2, stored.chunking.length(index)
        slot = memoryview(bytearray(length + TAG_SIZE))
        stored.load(index, [slot[:-TAG_SIZE]])
        stored.open(index, slot, memoryview(content)[at : at + length])
    return bytes(content)


def test_the_tree_holds_what_it_says() -> None:
    by_hand = read_tree(TREE, VECTOR.model_key)
    assert {path: sha256(content).hexdigest() for path, content in by_hand.items()} == VECTOR.contents
    with opened(TREE, VECTOR.root, key=VECTOR.model_key, epoch=VECTOR.epoch) as sealed:
        assert {path: read(sealed, path) for path in by_hand} == by_hand
        links = {one.path: one.target for one in sealed.manifest.entries if isinstance(one, Symlink)}
        assert links == VECTOR.links
        assert {one.mtime_ns for one in sealed.manifest.entries} == {1_700_000_000_123_456_789}


def test_the_format_has_not_drifted(tmp_path: Path) -> None:
    made = make_tree(tmp_path)
    files = {path.relative_to(made): path.read_bytes() for path in made.rglob("*") if path.is_file()}
    assert files == {path.relative_to(TREE): path.read_bytes() for path in TREE.rglob("*") if path.is_file()}
    assert tuple(make_cases(made)) == VECTOR.cases


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("case", VECTOR.cases, ids=lambda case: case.name)
def test_every_change_is_rejected(case: Case, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(TREE, tree)
    root = case.apply(tree)
    wanted: Any = {"key": bytes.fromhex(case.key), "epoch": case.epoch}
    error: type[StrongroomError] = getattr(errors, case.error)
    if not case.reading:
        with pytest.raises(error) as caught, opened(tree, root, **wanted):
            pass
        assert str(caught.value).startswith(case.says)
        return
    with opened(tree, root, **wanted) as sealed:
        for path, digest in VECTOR.contents.items():
            if path in case.reading:
                with pytest.raises(error) as caught:
                    read(sealed, path)
                assert str(caught.value).startswith(case.says)
            else:
                assert sha256(read(sealed, path)).hexdigest() == digest


def test_there_are_enough_of_them() -> None:
    assert len(VECTOR.cases) > 100
    assert len({case.name for case in VECTOR.cases}) == len(VECTOR.cases)
