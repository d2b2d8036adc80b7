"""Mirrors strongroom/host/sealed/source.py."""

import errno
import os
import stat
from collections.abc import Iterator

import pytest

from strongroom.errors import MachineError, ProtocolError, VerifyError
from strongroom.host.sealed.source import PAUSES, SealedReader, SealedSource
from strongroom.host.sealed.tree import SealedTree
from strongroom.host.stored import MAX_READ, Item
from tests.fakes.sealed import CHUNK, MODEL_KEY, SealedFixture, make_sealed

NAME = "model-1.safetensors"


@pytest.fixture
def sealed(tmp_path_factory: pytest.TempPathFactory) -> SealedFixture:
    return make_sealed(tmp_path_factory.mktemp("sealed"))


@pytest.fixture
def source(sealed: SealedFixture) -> Iterator[SealedSource]:
    with SealedSource.open(sealed.path, model_key=MODEL_KEY, epoch=1, root=sealed.root) as opened:
        yield opened


@pytest.fixture
def pauses() -> list[float]:
    """How long a reader would have waited."""
    return []


@pytest.fixture
def reader(sealed: SealedFixture, pauses: list[float]) -> Iterator[SealedReader]:
    with SealedTree.open(sealed.path, model_key=MODEL_KEY, epoch=1, root=sealed.root) as tree:
        yield SealedReader(tree, pause=pauses.append)


@pytest.fixture
def key(source: SealedSource) -> int:
    found = items(source)[NAME.encode()].key
    assert found is not None
    return found


def items(source: SealedSource) -> dict[bytes, Item]:
    return {item.path: item for item in source.items}


def test_items_are_what_was_sealed(sealed: SealedFixture, source: SealedSource) -> None:
    found = items(source)
    assert set(found) == {name.encode() for name in sealed.contents} | {
        b"tokenizer",
        b"latest",
        b"tokenizer/up.json",
    }
    for name, content in sealed.contents.items():
        item = found[name.encode()]
        assert (item.size, stat.S_IFMT(item.mode), item.mtime_ns) == (
            len(content),
            stat.S_IFREG,
            1_700_000_000 * 10**9,
        )
        if item.key is None:
            assert item.content == content
        else:
            assert bytes(source.reader().read(item.key, 0, item.size)) == content
    assert found[b"latest"].target == b"model-1.safetensors"
    assert stat.S_ISDIR(found[b"tokenizer"].mode)
    assert (source.name, source.unit) == ("tiny", CHUNK)
    assert sorted(found) == [item.path for item in source.items]  # so parents come first


@pytest.mark.parametrize("offset", [0, 1, 4096, CHUNK - 1, CHUNK, 3 * CHUNK + 5, 5 * CHUNK, 5 * CHUNK + 99])
def test_every_range_is_the_plaintext(
    sealed: SealedFixture, reader: SealedReader, key: int, offset: int
) -> None:
    content = sealed.contents[NAME]
    sizes = (1, 2, 4095, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1, len(content))
    for size in {min(size, len(content) - offset) for size in sizes}:
        assert reader.read(key, offset, size) == content[offset : offset + size]
        out = bytearray(size)
        reader.read_into(key, offset, memoryview(out))
        assert out == content[offset : offset + size]


def test_a_read_is_bounded(reader: SealedReader, key: int) -> None:
    for size in (0, -1, MAX_READ + 1):
        with pytest.raises(ProtocolError, match=f"read of {size} bytes"):
            reader.read(key, 0, size)


@pytest.mark.guarantee("G4")
def test_a_bad_chunk_is_named_and_leaves_nothing_behind(
    sealed: SealedFixture, reader: SealedReader, key: int, pauses: list[float]
) -> None:
    path = sealed.objects[NAME]
    data = bytearray(path.read_bytes())
    data[2 * CHUNK] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerifyError, match=f"^object {path.name}: chunk 2: tag does not verify$"):
        reader.read(key, CHUNK, 2 * CHUNK)
    assert not any(reader._plain)
    with pytest.raises(VerifyError, match="chunk 2"):
        reader.read_into(key, CHUNK, memoryview(bytearray(3 * CHUNK)))
    assert reader.read(key, CHUNK, CHUNK) == sealed.contents[NAME][CHUNK : 2 * CHUNK]
    assert pauses == []  # what does not verify is not tried again


@pytest.mark.guarantee("G4")
def test_an_object_cut_short_while_open(sealed: SealedFixture, reader: SealedReader, key: int) -> None:
    assert reader.read(key, 0, 1)
    os.truncate(sealed.objects[NAME], 3 * CHUNK)
    with pytest.raises(VerifyError, match=f"{CHUNK} bytes at byte {2 * CHUNK}, want {2 * CHUNK}"):
        reader.read(key, 2 * CHUNK, 2 * CHUNK)


@pytest.mark.guarantee("G4")
def test_an_object_changed_before_it_was_opened(
    sealed: SealedFixture, reader: SealedReader, key: int
) -> None:
    """What was cut off is missed; what is left is read."""
    path = sealed.objects[NAME]
    size = path.stat().st_size
    os.truncate(path, 3 * CHUNK)
    assert reader.read(key, 0, 3 * CHUNK) == sealed.contents[NAME][: 3 * CHUNK]
    with pytest.raises(VerifyError, match=f"^object {path.name}: 0 bytes at byte {3 * CHUNK}, want {CHUNK}$"):
        reader.read(key, 3 * CHUNK, 1)
    reader._files.close()
    path.unlink()
    with pytest.raises(VerifyError, match=f"^object {path.name}: missing, want {size} bytes$"):
        reader.read(key, 0, 1)


def test_objects_are_opened_when_they_are_read(sealed: SealedFixture, source: SealedSource) -> None:
    """As many as may be stay open; the one read longest ago goes first."""
    before, reader = set(os.listdir("/proc/self/fd")), source.reader()
    reader._files._most = 2  # type: ignore[misc]
    assert set(os.listdir("/proc/self/fd")) == before
    keys = {item.path.decode(): item.key for item in source.items if item.key is not None}
    for name, key in [*keys.items(), *keys.items()]:
        assert reader.read(key, 0, 5) == sealed.contents[name][:5]
    assert len(keys) == 3
    assert len(set(os.listdir("/proc/self/fd")) - before) == 2
    reader._files.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_an_object_we_may_not_read_is_named_at_once(
    sealed: SealedFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.host.sealed.tree.os.access", lambda *_, **__: False)
    with (
        pytest.raises(MachineError, match=r"^object [0-9a-f]{32}: permission denied$"),
        SealedSource.open(sealed.path, model_key=MODEL_KEY, epoch=1, root=sealed.root),
    ):
        pass


def test_a_store_that_fails_is_tried_again(
    sealed: SealedFixture,
    reader: SealedReader,
    key: int,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures, preadv = [errno.EIO] * len(PAUSES), os.preadv

    def flaky(fd: int, buffers: list[memoryview], offset: int) -> int:
        if failures:
            raise OSError(failures.pop(), "Input/output error")
        return preadv(fd, buffers, offset)

    monkeypatch.setattr("strongroom.host.sealed.tree.os.preadv", flaky)
    assert reader.read(key, CHUNK, 5) == sealed.contents[NAME][CHUNK : CHUNK + 5]
    assert pauses == list(PAUSES)


def test_a_store_that_goes_on_failing(
    reader: SealedReader, key: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("strongroom.host.sealed.tree.os.preadv", fail)
    with pytest.raises(MachineError, match=r"^object [0-9a-f]{32}: input/output error at byte 65536$"):
        reader.read(key, CHUNK, 5)


def test_a_stale_handle_is_opened_once_more(
    sealed: SealedFixture, reader: SealedReader, key: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, preadv = [], os.preadv

    def stale(fd: int, buffers: list[memoryview], offset: int) -> int:
        calls.append(fd)
        if len(calls) == 1:
            raise OSError(errno.ESTALE, "Stale file handle")
        return preadv(fd, buffers, offset)

    monkeypatch.setattr("strongroom.host.sealed.tree.os.preadv", stale)
    assert reader.read(key, 0, 9) == sealed.contents[NAME][:9]
    assert len(calls) == 2
    assert calls[0] == calls[1]
