"""Mirrors strongroom/host/sealed/sealing.py, objects.py and destination.py: a new tree, and what is refused."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.errors import ConfigError, MachineError
from strongroom.host.sealed.blocks import BLOCK, Room, open_block
from strongroom.host.sealed.sealing import Manner, Plan
from strongroom.host.sealed.tree import SealedStore, SealedTree
from strongroom.sealed.index import INDEX, Index
from strongroom.sealed.volume import root_digest
from tests.fakes.sealed import CHUNK, MODEL_KEY, counter, pattern
from tests.fakes.sealing import RELEASE, contents, grow, make_plan, names, seal
from tests.unit.sealed.test_by_hand import read_tree


def test_a_sealed_tree(plan: Plan, tmp_path: Path) -> None:
    dest = tmp_path / "new" / "dest"
    done: list[int] = []
    announced: list[tuple[str, int]] = []

    def announce(what: str, total: int) -> Callable[[int], None]:
        announced.append((what, total))
        return done.append

    sealed = seal(plan, dest, announce=announce)
    assert sealed.root == root_digest((dest / "MANIFEST").read_bytes())
    assert names(dest) == ["INDEX", "MANIFEST", "objects", "tags"]
    large = sum(file.size for file in plan.due)
    assert announced == [("sealing", large), ("verifying", large)]
    assert done[-1] == large
    assert (sealed.sealed, sealed.sealed_bytes, sealed.kept) == (3, large, 0)
    assert plan.total == sum(map(len, contents(plan.source).values()))
    with SealedTree.open(dest, model_key=MODEL_KEY, epoch=1, root=sealed.root) as tree:
        assert [one.file.path for one in tree.objects] == [
            "exact.bin",
            "model-1.safetensors",
            "model-2.safetensors",
        ]
    assert read_tree(dest, MODEL_KEY) == contents(plan.source)
    ciphertext = b"".join(path.read_bytes() for path in (dest / "objects").iterdir())
    assert pattern(CHUNK, 1)[:64] not in ciphertext
    index = Index.parse((dest / INDEX).read_bytes())
    assert index.root == sealed.root and set(index.objects) == set(os.listdir(dest / "objects"))


def test_what_is_sealed_depends_on_nothing_but_what_goes_in(source: Path, tmp_path: Path) -> None:
    roots = set()
    for workers in (1, 2, 5):
        plan = Plan.make(source, name="m", dereference=False, entropy=counter())
        dest, manner = tmp_path / f"dest-{workers}", Manner(workers=workers)
        roots.add(seal(plan, dest, entropy=counter(), manner=manner).root)
    assert len(roots) == 1


def test_nothing_of_a_seal_comes_twice(source: Path) -> None:
    def ids(plan: Plan) -> set[bytes]:
        return {file.object_id for file in plan.due} | {file.key for file in plan.due}

    entropy = counter()
    first = Plan.make(source, name="m", dereference=False, entropy=entropy)
    again = Plan.make(source, name="m", dereference=False, entropy=entropy)
    assert len(ids(first) | ids(again)) == 12


def test_digests_are_noted_or_not(plan: Plan, dest: Path) -> None:
    sealed = seal(plan, dest, manner=Manner(workers=2, hashed=False))
    with SealedStore.open(dest, model_key=MODEL_KEY, epoch=1, root=sealed.root) as store:
        assert {one.file.sha256 for one in store.objects} == {None}
    assert read_tree(dest, MODEL_KEY) == contents(plan.source)


def test_the_manifest_comes_last(plan: Plan, dest: Path) -> None:
    seen: list[list[str]] = []
    seal(plan, dest, keep=lambda _: seen.append(names(dest)))
    assert seen == [["JOURNAL", "MANIFEST.partial", "objects", "tags"]]


def test_a_model_without_objects(tmp_path: Path, dest: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "a").write_bytes(b"x")
    sealed = seal(replace(make_plan(tmp_path / "small"), name="other"), dest)
    with SealedTree.open(dest, model_key=MODEL_KEY, epoch=1, root=sealed.root) as tree:
        assert (tree.manifest.name, tree.objects) == ("other", ())
    assert read_tree(dest, MODEL_KEY) == {"a": b"x"}


@pytest.mark.parametrize("chunk_log2", [16, 17, 20])
def test_sizes_around_chunks_and_blocks(tmp_path: Path, dest: Path, chunk_log2: int) -> None:
    source = tmp_path / "sizes"
    source.mkdir()
    for size in (CHUNK, CHUNK + 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (2 << 20) + CHUNK, (3 << 20) + 5):
        (source / f"{size}").write_bytes(pattern(size, size))
    seal(make_plan(source), dest, replace(RELEASE, chunk_log2=chunk_log2))
    assert read_tree(dest, MODEL_KEY) == contents(source)


def test_holes_are_zeros(tmp_path: Path, dest: Path) -> None:
    source = tmp_path / "sparse"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.seek((3 << 20) + 7)
        file.write(b"in the middle")
        file.truncate(6 << 20)
    seal(make_plan(source), dest)
    assert read_tree(dest, MODEL_KEY) == contents(source)


@pytest.mark.slow
def test_offsets_beyond_4_gib(tmp_path: Path, dest: Path) -> None:
    source, size = tmp_path / "large", (4 << 30) + 3 * CHUNK + 5
    source.mkdir()
    tail = pattern(2 * CHUNK + 5)
    with (source / "sparse").open("wb") as file:
        file.truncate(size)
        file.seek(size - len(tail))
        file.write(tail)
    root = seal(make_plan(source), dest, manner=Manner(hashed=False)).root
    with SealedStore.open(dest, model_key=MODEL_KEY, epoch=1, root=root) as store:
        (opened,) = store.objects
        stored, room = store.stored(opened), Room(16)
        assert open_block(stored, 4095, room) == bytes(BLOCK)  # ends at 2**32
        assert open_block(stored, 4096, room) == bytes(CHUNK) + tail
        stored.close()
    shutil.rmtree(dest)  # four gigabytes


# What is refused


def test_a_destination_is_new_or_empty(plan: Plan, dest: Path) -> None:
    dest.mkdir()
    (dest / "keep").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="dest: not empty"):
        seal(plan, dest)
    assert names(dest) == ["keep"]
    (dest / "keep").unlink()
    seal(plan, dest)
    with pytest.raises(ConfigError, match="dest: holds a sealed tree, want --update"):
        seal(plan, dest)
    for inside in (plan.source, plan.source / "deep" / "er"):
        with pytest.raises(ConfigError, match="lies inside"):
            seal(plan, inside)
    with pytest.raises(MachineError, match=r"file exists|not a directory"):
        seal(plan, Path("/dev/null"))


def test_there_is_one_writer(plan: Plan, dest: Path) -> None:
    dest.mkdir()
    other = os.open(dest, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(ConfigError, match="dest: another process is writing to it"):
        seal(plan, dest)
    os.close(other)
    seal(plan, dest)


def test_a_plan_refuses_what_could_not_be_served(source: Path) -> None:
    (source / "new\nline").write_bytes(b"")
    with pytest.raises(ConfigError, match="control character"):
        make_plan(source)
    (source / "new\nline").unlink()
    (source / "dangling").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="which is not in the tree"):
        make_plan(source)


@pytest.mark.parametrize(
    "change",
    [
        grow,
        lambda path: os.truncate(path, CHUNK),
        os.utime,
        lambda path: path.unlink(),
        lambda path: os.truncate(path, 0),
    ],
)
def test_a_source_that_changes(plan: Plan, dest: Path, change: Callable[[Path], None]) -> None:
    change(plan.source / "exact.bin")  # the first
    with pytest.raises(MachineError, match=r"changed while it was sealed|no such file"):
        seal(plan, dest, manner=Manner(workers=1))
    assert not dest.exists()


def test_no_room(plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.statvfs("/")
    full = os.statvfs_result((*status[:4], 3, *status[5:]))
    monkeypatch.setattr("strongroom.host.sealed.destination.os.fstatvfs", lambda _: full)
    with pytest.raises(MachineError, match=r"dest: \d+ bytes are free, want \d+"):
        seal(plan, dest)
    assert not dest.exists()


@pytest.mark.parametrize("call", ["fsync", "pwritev"])
def test_the_disk_is_full(plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"strongroom.host.sealed.writer.os.{call}", fail)
    with pytest.raises(MachineError, match="dest: no space left on device"):
        seal(plan, dest)
    assert not dest.exists()


def test_a_disk_that_takes_a_little_at_a_time(
    plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite

    def stingy(fd: int, pieces: list[memoryview], offset: int) -> int:
        return pwrite(fd, pieces[0][:50_000], offset)

    monkeypatch.setattr("strongroom.host.sealed.writer.os.pwritev", stingy)
    seal(plan, dest)
    assert read_tree(dest, MODEL_KEY) == contents(plan.source)


def test_a_disk_that_forgets(plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lossy(fd: int, pieces: list[memoryview], offset: int) -> int:
        return os.pwrite(fd, bytes(total := sum(map(len, pieces))), offset) if offset == 0 else total

    monkeypatch.setattr("strongroom.host.sealed.writer.os.pwritev", lossy)
    with pytest.raises(
        MachineError, match=r"object [0-9a-f]{32}: .*: it does not read back as it was written"
    ):
        seal(plan, dest)
    assert not (dest / "MANIFEST").exists()
