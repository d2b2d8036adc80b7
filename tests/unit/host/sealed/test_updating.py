"""Mirrors strongroom/host/sealed/sealing.py: the next release seals what changed."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.errors import ConfigError, MachineError
from strongroom.host.sealed.destination import is_cut
from strongroom.host.sealed.sealing import Manner
from strongroom.host.sealed.tree import SealedStore
from strongroom.sealed.manifest import SealedFile
from tests.fakes.sealed import CHUNK, MODEL_KEY, pattern
from tests.fakes.sealing import NEXT, Cut, contents, cut_after, grow, make_plan, seal, update
from tests.unit.sealed.test_by_hand import read_tree


def test_an_update_seals_what_changed(source: Path, dest: Path, first: bytes) -> None:
    objects = {path.name: path.read_bytes() for path in (dest / "objects").iterdir()}
    grow(source / "exact.bin")
    (source / "config.json").write_bytes(b"{}")
    (source / "new.bin").write_bytes(pattern(2 * CHUNK, 9))
    (source / "model-2.safetensors").unlink()
    second = update(source, dest, first)
    assert (second.sealed, second.kept) == (2, 1)
    assert read_tree(dest, NEXT.model_key) == contents(source)  # type: ignore[arg-type]
    after = {path.name: path.read_bytes() for path in (dest / "objects").iterdir()}
    assert objects.items() < after.items()  # those of the first release are all there, as they were
    assert len(os.listdir(dest / "tags")) == 2


def test_an_older_reader_is_not_disturbed(source: Path, dest: Path, first: bytes) -> None:
    was = contents(source)
    with SealedStore.open(dest, model_key=MODEL_KEY, epoch=1, root=first) as store:
        grow(source / "exact.bin")
        update(source, dest, first)
        for opened in store.objects:
            stored = store.stored(opened)
            content = bytearray(opened.file.size)
            for index in range(opened.chunking.count):
                at, length = index << 16, opened.chunking.length(index)
                slot = memoryview(bytearray(length + 16))
                stored.load(index, [slot[:-16]])
                stored.open(index, slot, memoryview(content)[at : at + length])
            assert content == was[opened.file.path]
            stored.close()


def test_an_update_of_nothing_but_dates(source: Path, dest: Path, first: bytes) -> None:
    os.utime(source / "exact.bin")

    def same(old: SealedFile, new: SealedFile) -> bool:
        return old.path == new.path

    second = update(source, dest, first, manner=Manner(same=same))
    assert (second.sealed, second.kept) == (0, 3)
    assert len(os.listdir(dest / "tags")) == 1
    with SealedStore.open(dest, model_key=NEXT.model_key, epoch=2, root=second.root) as store:
        (file,) = [one.file for one in store.objects if one.file.path == "exact.bin"]
        assert file.mtime_ns == (source / "exact.bin").stat().st_mtime_ns and file.sha256 is not None


def test_an_update_seals_what_the_store_lost(source: Path, dest: Path, first: bytes) -> None:
    for path in (dest / "objects").iterdir():
        path.unlink()
    assert update(source, dest, first).kept == 0
    assert read_tree(dest, NEXT.model_key) == contents(source)  # type: ignore[arg-type]


def test_updates_that_are_refused(source: Path, dest: Path, first: bytes) -> None:
    with pytest.raises(ConfigError, match="epoch is 1, want it to grow: got 1"):
        update(source, dest, first, replace(NEXT, epoch=1))
    with pytest.raises(ConfigError, match="its chunks are 65536 bytes"):
        update(source, dest, first, replace(NEXT, chunk_log2=17))
    with SealedStore.open(dest, model_key=MODEL_KEY, epoch=1, root=first) as before:
        (dest / "MANIFEST").write_bytes((dest / "MANIFEST").read_bytes() + b"x")
        with pytest.raises(MachineError, match="changed while it was updated"):
            seal(make_plan(source), dest, NEXT, before=before)


def test_a_cut_update_leaves_the_tree_and_goes_on(
    source: Path, dest: Path, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    was, manifest = contents(source), (dest / "MANIFEST").read_bytes()
    grow(source / "exact.bin")
    grow(source / "model-2.safetensors")
    cut_after(1, monkeypatch)
    with pytest.raises(Cut):
        update(source, dest, first, manner=Manner(workers=1))
    monkeypatch.undo()
    assert is_cut(dest) and (dest / "MANIFEST").read_bytes() == manifest
    assert read_tree(dest, MODEL_KEY) == was
    with pytest.raises(ConfigError, match="a seal into it was cut"):
        update(source, dest, first)
    second = update(source, dest, first, manner=Manner(resume=True))
    assert (second.sealed, second.kept) == (2, 1)
    assert read_tree(dest, NEXT.model_key) == contents(source)  # type: ignore[arg-type]


def test_a_failed_update_of_which_nothing_is_left(
    source: Path, dest: Path, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in dest.rglob("*") if path.is_file()}
    grow(source / "exact.bin")
    cut_after(0, monkeypatch)
    with pytest.raises(Cut):
        update(source, dest, first)
    assert {path: path.read_bytes() for path in dest.rglob("*") if path.is_file()} == before
