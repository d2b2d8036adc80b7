"""Mirrors sidecars/receive/arrival.py: bytes in, a sealed tree out, and nothing on the disk when it came to nothing."""

import os
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from sidecars.receive.arrival import Arrival
from strongroom.errors import ConfigError, MachineError, PolicyError, ProtocolError, VerifyError
from strongroom.host.pushing import PushTree, _Bytes
from strongroom.host.sealed.blocks import Room, count_blocks, open_block
from strongroom.host.sealed.destination import Destination
from strongroom.host.sealed.tree import SealedStore
from strongroom.push.content import Span
from strongroom.push.manifest import PlainFile, PushManifest
from strongroom.sealed.manifest import Directory, InlineFile, SealedFile, Symlink
from tests.fakes.sealed import CHUNK, counter, make_source, pattern

KEY = bytes(range(32))


@pytest.fixture
def tree(tmp_path: Path) -> PushTree:
    source = tmp_path / "source"
    source.mkdir()
    make_source(source)
    return PushTree.of(source, name="tiny", epoch=3)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "there"


entropy = counter(b"arrival")


def begin(place: Path, tree: PushTree | PushManifest, key: bytes = KEY) -> Arrival:
    manifest = tree.manifest if isinstance(tree, PushTree) else tree
    return Arrival.begin(place, manifest, model_key=key, entropy=entropy)


def everything(tree: PushTree) -> bytes:
    source = _Bytes(tree, tree.content)
    try:
        return source.read(Span(0, tree.content.size))
    finally:
        source.close()


def send(arrival: Arrival, tree: PushTree, cuts: random.Random | None = None) -> None:
    data = memoryview(everything(tree))
    while arrival.missing:
        span = arrival.missing[0]
        end = span.end if cuts is None else min(span.end, span.start + cuts.randint(1, 3 * CHUNK))
        arrival.take(data[span.start : end])
        assert arrival.next == end or end == span.end


def left(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*")) if place.exists() else []


def contents(tree: PushTree) -> dict[str, bytes]:
    return {file.path: (tree.source / file.path).read_bytes() for file in tree.manifest.files}


def plaintexts(store: SealedStore) -> Iterator[tuple[str, bytes]]:
    for entry in store.manifest.entries:
        if isinstance(entry, InlineFile):
            yield entry.path, entry.content
    for one in store.objects:
        with closing(store.stored(one)) as stored:
            room = Room(store.header.chunk_log2)
            blocks = range(count_blocks(one.file.size))
            yield one.file.path, b"".join(bytes(open_block(stored, block, room)) for block in blocks)


def opened(place: Path, root: bytes, tree: PushTree) -> None:
    """The sealed tree has every entry of the source, byte for byte."""
    with SealedStore.open(place, model_key=KEY, epoch=tree.manifest.epoch, root=root) as store:
        assert store.manifest.name == tree.manifest.name
        for sealed, plain in zip(store.manifest.entries, tree.manifest.entries, strict=True):
            assert (sealed.path, sealed.mtime_ns) == (plain.path, plain.mtime * 10**9 + plain.nanos)
            match sealed, plain:
                case (InlineFile() | SealedFile(), PlainFile()):
                    assert (sealed.size, sealed.mode) == (plain.size, plain.mode)
                case _:
                    assert sealed == plain
                    assert isinstance(plain, Directory | Symlink)
        digests = {file.path: file.sha256 for file in tree.manifest.files}
        assert all(one.file.sha256 == digests[one.file.path] for one in store.objects)
        assert dict(plaintexts(store)) == contents(tree)


def test_whole_files_make_a_tree(place: Path, tree: PushTree) -> None:
    arrival = begin(place, tree)
    assert arrival.missing == (Span(0, tree.content.size),)
    send(arrival, tree)
    assert not arrival.missing
    assert arrival.arrived == arrival.size
    opened(place, arrival.finish(), tree)
    assert not {"JOURNAL", "MANIFEST.partial"} & set(left(place))


@pytest.mark.parametrize("seed", range(5))
def test_bytes_may_come_in_any_pieces(place: Path, tree: PushTree, seed: int) -> None:
    arrival = begin(place, tree)
    send(arrival, tree, random.Random(seed))
    opened(place, arrival.finish(), tree)


@pytest.mark.guarantee("G11")
def test_no_byte_is_on_the_disk_in_the_clear(place: Path, tree: PushTree) -> None:
    arrival = begin(place, tree)
    send(arrival, tree)
    arrival.finish()
    stored = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    for content in contents(tree).values():
        for at in range(0, len(content) - 16, CHUNK // 2):
            assert content[at : at + 16] not in stored
    assert KEY not in stored


def test_a_killed_process_keeps_the_files_that_were_whole(place: Path, tree: PushTree) -> None:
    data = memoryview(everything(tree))
    arrival = begin(place, tree)
    third = arrival._content.start(3) + CHUNK + 7  # in the middle of the second object
    arrival.take(data[:third])
    before = {path: path.stat().st_ino for path in (place / "objects").iterdir()}
    assert len(before) == 2
    arrival.close()  # as the kernel does; nothing is told to the disk
    again = begin(place, tree)
    files = [file.path for file in tree.manifest.files]
    wanted = [n for n, path in enumerate(files) if path != "exact.bin"]
    assert again.missing == again._content.spans(wanted)
    assert len(list((place / "objects").iterdir())) == 1  # the half one is gone: its key is used once
    send(again, tree)
    opened(place, again.finish(), tree)
    assert sum(path.exists() and path.stat().st_ino == inode for path, inode in before.items()) == 1


def test_a_kill_between_commit_and_answer_is_made_up_for(place: Path, tree: PushTree) -> None:
    arrival = begin(place, tree)
    send(arrival, tree)
    root = arrival.finish()
    again = begin(place, tree)
    assert (again.missing, again.finish()) == ((), root)
    again.drop()  # too late to take anything back
    opened(place, root, tree)


def test_a_failure_behind_the_commit_takes_nothing_back(
    place: Path, tree: PushTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    arrival = begin(place, tree)
    send(arrival, tree)
    with monkeypatch.context() as patch:
        patch.setattr(Destination, "settle", fail)
        with pytest.raises(MachineError, match="no space left"):
            arrival.finish()
    arrival.drop()
    again = begin(place, tree)
    opened(place, again.finish(), tree)
    assert "INDEX" in left(place) and "JOURNAL" not in left(place)


def test_a_failure_before_the_commit_leaves_nothing(
    place: Path, tree: PushTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    arrival = begin(place, tree)
    send(arrival, tree)
    with monkeypatch.context() as patch:
        patch.setattr(Destination, "commit", fail)
        with pytest.raises(MachineError, match="no space left"):
            arrival.finish()
    arrival.drop()
    assert left(place) == []


@pytest.mark.guarantee("G4")
def test_a_wrong_byte_anywhere_is_refused_and_nothing_stays(place: Path, tree: PushTree) -> None:
    data = bytearray(everything(tree))
    for at in range(0, len(data), len(data) // 40):
        data[at] ^= 1
        arrival = begin(place, tree)
        with pytest.raises(VerifyError, match=r": sha256 is [0-9a-f]{64}, want [0-9a-f]{64}$"):
            arrival.take(memoryview(data))
        for again in (lambda: arrival.take(memoryview(b"x")), arrival.finish):  # noqa: B023
            with pytest.raises(VerifyError):
                again()
        arrival.drop()
        assert left(place) == []
        data[at] ^= 1


def test_an_empty_file_that_claims_a_digest_is_refused(place: Path, tree: PushTree) -> None:
    entries = tuple(
        replace(e, sha256=bytes(32)) if isinstance(e, PlainFile) and not e.size else e
        for e in tree.manifest.entries
    )
    arrival = begin(place, replace(tree.manifest, entries=entries))
    with pytest.raises(VerifyError, match="empty: sha256 is"):
        arrival.take(memoryview(everything(tree)))
    arrival.drop()
    assert left(place) == []


def test_a_tree_of_nothing_but_empty_files_is_whole_at_once(place: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a").touch()
    nothing = PushTree.of(tmp_path / "none", name="tiny", epoch=1)
    arrival = begin(place, nothing)
    assert arrival.missing == ()
    opened(place, arrival.finish(), nothing)


def test_more_bytes_than_there_are_is_refused(place: Path, tree: PushTree) -> None:
    arrival = begin(place, tree)
    with pytest.raises(ProtocolError, match="more bytes than are missing"):
        arrival.take(memoryview(everything(tree) + b"x"))


def test_it_is_not_finished_before_all_bytes_came(place: Path, tree: PushTree) -> None:
    arrival = begin(place, tree)
    with pytest.raises(ProtocolError, match=f"{tree.content.size} bytes are missing"):
        arrival.finish()
    arrival.take(memoryview(everything(tree))[:-1])
    with pytest.raises(ProtocolError, match="1 bytes are missing"):
        arrival.finish()
    assert not (place / "MANIFEST").exists()


def test_dropped_in_the_middle_nothing_stays(place: Path, tree: PushTree) -> None:
    for cut in (0, 1, CHUNK, tree.content.size - 1, tree.content.size):
        arrival = begin(place, tree)
        arrival.take(memoryview(everything(tree))[:cut])
        arrival.drop()
        assert left(place) == []


def test_another_key_finds_nothing_it_can_use(place: Path, tree: PushTree) -> None:
    arrival = begin(place, tree)
    send(arrival, tree)
    arrival.finish()
    other = begin(place, tree, key=bytes(32))
    assert other.missing == (Span(0, tree.content.size),)
    assert not (place / "MANIFEST").exists()
    other.drop()
    assert left(place) == []


def next_release(tree: PushTree, epoch: int = 4) -> PushTree:
    """One object is changed, one renamed, the third stays."""
    (tree.source / "model-2.safetensors").write_bytes(pattern(6 * CHUNK, 9))
    (tree.source / "exact.bin").rename(tree.source / "weights.bin")
    return PushTree.of(tree.source, name="tiny", epoch=epoch)


def test_the_next_release_takes_over_what_stayed(place: Path, tree: PushTree) -> None:
    arrival = begin(place, tree)
    send(arrival, tree)
    first = arrival.finish()
    with SealedStore.open(place, model_key=KEY, epoch=3, root=first) as store:
        volume, old = store.header.volume_id, {one.file.object_id for one in store.objects}
    second = next_release(tree)
    arrival = begin(place, second)
    large = [n for n, file in enumerate(second.manifest.files) if file.path == "model-2.safetensors"]
    small = [n for n, file in enumerate(second.manifest.files) if file.size < CHUNK]
    assert arrival.missing == arrival._content.spans([*large, *small])
    send(arrival, second)
    root = arrival.finish()
    opened(place, root, second)
    with SealedStore.open(place, model_key=KEY, epoch=4, root=root) as store:
        assert store.header.volume_id == volume
        assert len(old & {one.file.object_id for one in store.objects}) == 2
    assert len(list((place / "objects").iterdir())) == 3
    assert len(list((place / "tags").iterdir())) == 1


def test_a_release_that_is_dropped_leaves_the_one_before(place: Path, tree: PushTree) -> None:
    arrival = begin(place, tree)
    send(arrival, tree)
    root, before = arrival.finish(), left(place)
    second = next_release(tree)
    arrival = begin(place, second)
    arrival.take(memoryview(everything(second))[: arrival.missing[0].end])
    arrival.drop()
    assert left(place) == before
    with SealedStore.open(place, model_key=KEY, epoch=3, root=root):
        pass


@pytest.mark.guarantee("G5")
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_epochs_grow(place: Path, tree: PushTree, epoch: int) -> None:
    arrival = begin(place, tree)
    send(arrival, tree)
    arrival.finish()
    with pytest.raises(PolicyError, match=f"epoch is {epoch}, and 3 is here: want it to grow"):
        begin(place, next_release(tree, epoch))


def test_a_place_with_files_of_others_is_left_alone(place: Path, tree: PushTree) -> None:
    place.mkdir()
    (place / "precious").touch()
    with pytest.raises(ConfigError, match="holds 'precious', want nothing but a sealed tree"):
        begin(place, tree)
    assert left(place) == ["precious"]


@pytest.mark.parametrize("name", ["MANIFEST", "JOURNAL", "INDEX"])
def test_rubbish_in_the_place_is_no_tree(place: Path, tree: PushTree, name: str) -> None:
    place.mkdir()
    (place / name).write_bytes(b"x" * 200)
    arrival = begin(place, tree)
    send(arrival, tree)
    opened(place, arrival.finish(), tree)


def test_a_stored_object_that_was_cut_is_asked_for_again(place: Path, tree: PushTree) -> None:
    arrival = begin(place, tree)
    send(arrival, tree)
    arrival.close()
    for path in (place / "objects").iterdir():
        os.truncate(path, CHUNK)
    again = begin(place, tree)
    assert again.missing == (Span(0, tree.content.size),)


def test_a_full_disk_is_said_before_a_byte_came(
    place: Path, tree: PushTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.statvfs("/")
    full = os.statvfs_result((*status[:4], 3, *status[5:]))
    monkeypatch.setattr("strongroom.host.sealed.destination.os.fstatvfs", lambda _: full)
    with pytest.raises(MachineError, match=r"\d+ bytes are free, want \d+"):
        begin(place, tree)
    assert left(place) == []


def test_a_disk_that_fills_up_meanwhile(place: Path, tree: PushTree, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    arrival = begin(place, tree)
    monkeypatch.setattr("strongroom.host.sealed.writer.os.pwritev", fail)
    with pytest.raises(MachineError, match="no space left on device"):
        arrival.take(memoryview(everything(tree)))
    arrival.drop()
    assert left(place) == []


def test_two_do_not_write_to_one_place(place: Path, tree: PushTree) -> None:
    arrival = begin(place, tree)
    with pytest.raises(ConfigError, match="another process is writing to it"):
        begin(place, tree)
    arrival.drop()
    begin(place, tree).drop()
    assert not place.exists()


def test_refused_again_and_again_nothing_is_held(place: Path, tree: PushTree) -> None:
    open_before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        arrival = begin(place, tree)
        with pytest.raises(VerifyError):
            arrival.take(memoryview(bytes(tree.content.size)))
        arrival.drop()
    assert len(os.listdir("/proc/self/fd")) <= open_before  # other tests' may be collected meanwhile
