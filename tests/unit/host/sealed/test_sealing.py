"""Mirrors strongroom/host/sealed/sealing.py, sealing_object.py and destination.py."""

import errno
import fcntl
import os
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from strongroom.errors import ConfigError, FormatError, MachineError, VerifyError
from strongroom.host.sealed.blocks import BLOCK, Room, open_block
from strongroom.host.sealed.destination import JOURNAL, is_cut
from strongroom.host.sealed.objects import SealingObject
from strongroom.host.sealed.sealing import Manner, Plan, Release, Sealed, seal_tree
from strongroom.host.sealed.tree import SealedStore, SealedTree
from strongroom.sealed.index import INDEX, Index
from strongroom.sealed.manifest import SealedFile
from strongroom.sealed.volume import root_digest
from tests.fakes.sealed import CHUNK, MODEL_KEY, counter, make_source, pattern
from tests.unit.sealed.test_by_hand import read_tree

RELEASE = Release(model_key=MODEL_KEY, epoch=1, chunk_log2=16)
NEXT = Release(model_key=bytes(range(1, 33)), epoch=2, chunk_log2=16)


def nothing(_: object) -> None:
    pass


def seal(plan: Plan, dest: Path, release: Release = RELEASE, **options: Any) -> Sealed:
    defaults: dict[str, Any] = {"entropy": os.urandom, "keep": nothing, "manner": Manner(workers=2)}
    return seal_tree(plan, dest, release, **defaults | options)


def make_plan(source: Path) -> Plan:
    return Plan.make(source, name="tiny", dereference=False, entropy=os.urandom)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make_source(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def plan(source: Path) -> Plan:
    return make_plan(source)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "dest"


def contents(source: Path) -> dict[str, bytes]:
    files = [path for path in source.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(source)): path.read_bytes() for path in files}


def names(dest: Path) -> list[str]:
    return sorted(path.name for path in dest.iterdir())


# A new tree


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


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


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


# Cut and resumed


class Cut(Exception):  # noqa: N818 - no error: what a test does
    """What ends a seal in these tests."""


def cut_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `count` objects come to an end."""
    left, finish = [count], SealingObject.finish

    def cutting(job: SealingObject) -> None:
        if not left[0]:
            raise Cut
        left[0] -= 1
        finish(job)

    monkeypatch.setattr(SealingObject, "finish", cutting)


def test_a_failed_seal_leaves_nothing_when_nothing_was_finished(
    plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_after(0, monkeypatch)
    with pytest.raises(Cut):
        seal(plan, dest)
    assert not dest.exists()
    dest.mkdir()
    with pytest.raises(Cut):
        seal(plan, dest)
    assert names(dest) == []


def test_a_cut_seal_goes_on(plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_after(2, monkeypatch)
    with pytest.raises(Cut):
        seal(plan, dest, manner=Manner(workers=1))
    monkeypatch.undo()
    assert is_cut(dest) and len(os.listdir(dest / "objects")) == 2
    before = {path.name: path.stat().st_mtime_ns for path in (dest / "objects").iterdir()}
    with pytest.raises(ConfigError, match="a seal into it was cut: --resume goes on"):
        seal(make_plan(plan.source), dest)
    again = seal(make_plan(plan.source), dest, manner=Manner(workers=2, resume=True))
    after = {path.name: path.stat().st_mtime_ns for path in (dest / "objects").iterdir()}
    assert before.items() < after.items() and len(after) == 3
    assert again.sealed == 3 and not is_cut(dest)
    assert read_tree(dest, MODEL_KEY) == contents(plan.source)


def test_what_changed_since_the_cut_is_sealed_again(
    plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_after(2, monkeypatch)
    with pytest.raises(Cut):
        seal(plan, dest, manner=Manner(workers=1))
    monkeypatch.undo()
    grow(plan.source / "exact.bin")
    seal(make_plan(plan.source), dest, manner=Manner(resume=True))
    assert read_tree(dest, MODEL_KEY) == contents(plan.source)
    assert len(os.listdir(dest / "objects")) == 3  # what was sealed in vain is gone


def test_a_store_that_lost_objects_since_the_cut(
    plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_after(2, monkeypatch)
    with pytest.raises(Cut):
        seal(plan, dest, manner=Manner(workers=1))
    monkeypatch.undo()
    one, other = (dest / "objects").iterdir()
    one.unlink()
    data = bytearray(other.read_bytes())
    data[5] ^= 1
    other.write_bytes(data)
    with pytest.raises(MachineError, match=f"object {other.name}: chunk 0: tag does not verify: it does not"):
        seal(make_plan(plan.source), dest, manner=Manner(resume=True))
    assert not other.exists()
    seal(make_plan(plan.source), dest, manner=Manner(resume=True))
    assert read_tree(dest, MODEL_KEY) == contents(plan.source)


def test_a_cut_right_before_the_commit(plan: Plan, dest: Path) -> None:
    def cut(_: bytes) -> None:
        raise Cut

    with pytest.raises(Cut):
        seal(plan, dest, keep=cut)
    assert not (dest / "MANIFEST").exists()
    with pytest.raises(VerifyError, match="journal: key commitment does not match"):
        seal(make_plan(plan.source), dest, NEXT, manner=Manner(resume=True))
    with pytest.raises(ConfigError, match="its chunks are 65536 bytes"):
        seal(make_plan(plan.source), dest, replace(RELEASE, chunk_log2=17), manner=Manner(resume=True))
    seal(make_plan(plan.source), dest, manner=Manner(resume=True))
    assert read_tree(dest, MODEL_KEY) == contents(plan.source)
    assert names(dest) == ["INDEX", "MANIFEST", "objects", "tags"]


def test_to_resume_what_was_never_begun(plan: Plan, dest: Path) -> None:
    seal(plan, dest, manner=Manner(resume=True))
    assert read_tree(dest, MODEL_KEY) == contents(plan.source)


@pytest.mark.guarantee("G11")
def test_a_journal_tells_a_thief_nothing(plan: Plan, dest: Path) -> None:
    def cut(_: bytes) -> None:
        raise Cut

    with pytest.raises(Cut):
        seal(plan, dest, keep=cut)
    journal = (dest / JOURNAL).read_bytes()
    assert b"model-1" not in journal
    assert not any(file.key in journal for file in plan.due)


# The next release


@pytest.fixture
def first(plan: Plan, dest: Path) -> bytes:
    return seal(plan, dest).root


def update(source: Path, dest: Path, first: bytes, release: Release = NEXT, **options: Any) -> Sealed:
    with SealedStore.open(dest, model_key=MODEL_KEY, epoch=1, root=first) as before:
        return seal(make_plan(source), dest, release, before=before, **options)


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


# A store that lays traps


def precious(tmp_path: Path) -> Path:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "id_rsa").write_bytes(b"precious")
    return victim


@pytest.mark.parametrize("trap", ["tags", "objects"])
def test_a_link_instead_of_a_folder_is_refused(plan: Plan, dest: Path, tmp_path: Path, trap: str) -> None:
    victim = precious(tmp_path)
    dest.mkdir()
    (dest / JOURNAL).touch()
    (dest / trap).symlink_to(victim)
    with pytest.raises(MachineError, match=f"dest/{trap}: not a directory"):
        seal(plan, dest, manner=Manner(resume=True))
    assert os.listdir(victim) == ["id_rsa"]


def test_a_link_put_in_place_of_the_tags_meanwhile(dest: Path, tmp_path: Path) -> None:
    victim = precious(tmp_path)

    def fail(_: bytes) -> None:
        (dest / "tags").rename(dest / "tags.aside")
        (dest / "tags").symlink_to(victim)
        raise Cut

    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_bytes(b"{}")  # no object: its end is a giving up
    with pytest.raises(Cut):
        seal(make_plan(tmp_path / "small"), dest, keep=fail)
    assert os.listdir(victim) == ["id_rsa"]
    assert os.listdir(dest / "tags.aside") == []  # what this run wrote, and where it did


def test_what_others_put_there_stays(plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (dest / "tags").mkdir(parents=True)
    (dest / "tags" / "mine").touch()
    (dest / JOURNAL).touch()
    cut_after(0, monkeypatch)
    with pytest.raises(Cut):
        seal(plan, dest, manner=Manner(resume=True))
    assert [str(path.relative_to(dest)) for path in sorted(dest.rglob("*"))] == ["tags", "tags/mine"]


def test_what_failed_is_what_is_said(plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("strongroom.host.sealed.destination.Destination.give_up", fail)
    cut_after(0, monkeypatch)
    with pytest.raises(Cut):
        seal(plan, dest)


def test_an_object_left_by_a_journal_that_was_lost(
    plan: Plan, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dest / "objects").mkdir(parents=True)
    (dest / "objects" / ("a" * 32)).write_bytes(b"x")
    (dest / JOURNAL).touch()
    monkeypatch.setattr("strongroom.host.sealed.sealing._SPARE", 1 << 60)
    with pytest.raises(MachineError, match="bytes are free, want"):
        seal(plan, dest, manner=Manner(resume=True))


def test_a_journal_is_not_read_whole(plan: Plan, dest: Path) -> None:
    dest.mkdir()
    with (dest / JOURNAL).open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    with pytest.raises(FormatError, match="journal: magic is 0000000000000000"):
        seal(plan, dest, manner=Manner(resume=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    with (dest / JOURNAL).open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(VerifyError, match="journal: 1073741825 bytes, want at most 1073741824"):
        seal(plan, dest, manner=Manner(resume=True))


def test_a_commit_that_fails_once_its_key_is_kept(
    source: Path, dest: Path, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an update in which nothing had to be sealed: it goes on all the same."""

    def fail(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("strongroom.host.sealed.destination.Destination.recommit", fail)
    with pytest.raises(MachineError, match="input/output error"):
        update(source, dest, first)
    monkeypatch.undo()
    assert is_cut(dest)
    update(source, dest, first, manner=Manner(resume=True))
    assert read_tree(dest, bytes(NEXT.model_key)) == contents(source)
