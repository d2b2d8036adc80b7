"""Mirrors strongroom/host/sealed/checking.py."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.errors import MachineError
from strongroom.host.sealed.blocks import Room
from strongroom.host.sealed.checking import Checking, Sampling
from strongroom.host.sealed.crew import Crew
from strongroom.host.sealed.tree import SealedStore, StoredObject
from tests.fakes.sealed import CHUNK, MODEL_KEY, SealedFixture, make_sealed


@pytest.fixture
def sealed(tmp_path: Path) -> SealedFixture:
    return make_sealed(tmp_path)


@pytest.fixture
def store(sealed: SealedFixture) -> Iterator[SealedStore]:
    with SealedStore.open(sealed.path, model_key=MODEL_KEY, epoch=1, root=sealed.root) as store:
        yield store


def damage(store: SealedStore, *, hashed: bool = True) -> list[str]:
    jobs = [Checking(one, store.stored, hashed=hashed) for one in store.objects]
    Crew(lambda: Room(16), workers=2).run(jobs)
    return [sentence for job in jobs for sentence in job.damage]


def flip(path: Path, *positions: int) -> None:
    data = bytearray(path.read_bytes())
    for position in positions:
        data[position] ^= 1
    path.write_bytes(data)


def test_a_genuine_tree(store: SealedStore) -> None:
    assert damage(store) == [] == damage(store, hashed=False)


@pytest.mark.guarantee("G4")
def test_each_damaged_chunk_is_named_in_order(store: SealedStore, sealed: SealedFixture) -> None:
    path = sealed.objects["model-1.safetensors"]
    flip(path, 5 * CHUNK + 99, 3 * CHUNK, 1)
    assert damage(store) == [f"object {path.name}: chunk {n}: tag does not verify" for n in (0, 3, 5)]


@pytest.mark.guarantee("G4")
def test_objects_that_are_gone_or_cut(store: SealedStore, sealed: SealedFixture) -> None:
    one, two = sealed.objects["exact.bin"], sealed.objects["model-1.safetensors"]
    one.unlink()
    os.truncate(two, CHUNK)
    assert damage(store) == [
        f"object {one.name}: missing, want {4 * CHUNK} bytes",
        f"object {two.name}: {CHUNK} bytes, want {5 * CHUNK + 100}",
    ]


@pytest.mark.guarantee("G4")
def test_an_object_cut_while_it_is_read(store: SealedStore, sealed: SealedFixture) -> None:
    path = sealed.objects["exact.bin"]
    (opened,) = [one for one in store.objects if one.file.path == "exact.bin"]
    job = Checking(opened, store.stored)
    job.start()
    os.truncate(path, CHUNK + 1)
    job.work(0, Room(16))
    job.finish()
    assert len(job.damage) == 3 and all(f"want {CHUNK}" in sentence for sentence in job.damage)


def test_a_sealer_that_lied_about_a_digest(sealed: SealedFixture, store: SealedStore) -> None:
    opened = store.objects[0]
    object.__setattr__(opened.file, "sha256", bytes(32))
    (sentence,) = damage(store)
    assert sentence.startswith(f"object {opened.file.object_name}: digest is ")
    assert damage(store, hashed=False) == []


def test_a_store_that_fails_for_a_while(store: SealedStore) -> None:
    class Failing(StoredObject):
        def load(self, first: int, slots: object) -> None:
            raise MachineError("object: input/output error")

    job = Checking(store.objects[0], lambda opened: Failing(opened, store._directory))
    Crew(lambda: Room(16), workers=1).run([job])
    assert job.damage == ["object: input/output error"] * store.objects[0].chunking.count


@pytest.mark.guarantee("G4")
def test_a_sample_reads_what_it_was_told(store: SealedStore, sealed: SealedFixture) -> None:
    flip(sealed.objects["exact.bin"], 2 * CHUNK)
    (opened,) = [one for one in store.objects if one.file.path == "exact.bin"]
    for chosen, count in (((0, 1, 3), 0), ((0, 2), 1), ((2,), 1)):
        job, done = Sampling(opened, store.stored, chosen), list[int]()
        Crew(lambda: Room(16), workers=2).run([job], done.append)
        assert len(job.damage) == count and done[-1] == len(chosen) * CHUNK
