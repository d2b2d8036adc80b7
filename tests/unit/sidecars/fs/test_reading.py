"""Mirrors sidecars/fs/reading.py."""

import errno
import os
from collections.abc import Iterator

import pytest

from sidecars.fs.operations import Range
from sidecars.fs.reading import ChunkReader
from strongroom.errors import MachineError, ProtocolError, VerifyError
from strongroom.host.sealed_tree import SealedTree
from strongroom.sealed.manifest import SealedFile
from tests.fakes.sealed import CHUNK, MODEL_KEY, SealedFixture, make_sealed

NAME = "model-1.safetensors"


@pytest.fixture
def sealed(tmp_path_factory: pytest.TempPathFactory) -> SealedFixture:
    return make_sealed(tmp_path_factory.mktemp("sealed"))


@pytest.fixture
def tree(sealed: SealedFixture) -> Iterator[SealedTree]:
    with SealedTree.open(sealed.path, model_key=MODEL_KEY, epoch=1, root=sealed.root) as tree:
        yield tree


@pytest.fixture
def reader(tree: SealedTree) -> ChunkReader:
    return ChunkReader({one.file.object_id: one for one in tree.objects}, chunk_size=CHUNK)


def file(tree: SealedTree, name: str = NAME) -> SealedFile:
    return next(one.file for one in tree.objects if one.file.path == name)


@pytest.mark.parametrize("offset", [0, 1, 4096, CHUNK - 1, CHUNK, 3 * CHUNK + 5, 5 * CHUNK, 5 * CHUNK + 99])
def test_every_range_is_the_plaintext(
    sealed: SealedFixture, tree: SealedTree, reader: ChunkReader, offset: int
) -> None:
    content = sealed.contents[NAME]
    sizes = (1, 2, 4095, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1, len(content))
    for size in {min(size, len(content) - offset) for size in sizes}:
        assert reader.read(Range(file(tree), offset, size)) == content[offset : offset + size]


def test_a_read_is_bounded(tree: SealedTree, reader: ChunkReader) -> None:
    for size in (0, -1, (1 << 20) + 1):
        with pytest.raises(ProtocolError, match=f"read of {size} bytes"):
            reader.read(Range(file(tree), 0, size))


@pytest.mark.guarantee("G4")
def test_a_bad_chunk_is_named_and_leaves_nothing_behind(
    sealed: SealedFixture, tree: SealedTree, reader: ChunkReader
) -> None:
    path = sealed.objects[NAME]
    data = bytearray(path.read_bytes())
    data[2 * CHUNK] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerifyError, match=f"^object {path.name}: chunk 2: tag does not verify$"):
        reader.read(Range(file(tree), CHUNK, 2 * CHUNK))
    assert not any(reader._plain)
    assert reader.read(Range(file(tree), CHUNK, CHUNK)) == sealed.contents[NAME][CHUNK : 2 * CHUNK]


@pytest.mark.guarantee("G4")
def test_an_object_cut_short_while_open(sealed: SealedFixture, tree: SealedTree, reader: ChunkReader) -> None:
    os.truncate(sealed.objects[NAME], 3 * CHUNK)
    with pytest.raises(VerifyError, match=f"{CHUNK} bytes at byte {2 * CHUNK}, want {2 * CHUNK}"):
        reader.read(Range(file(tree), 2 * CHUNK, 2 * CHUNK))


def test_a_store_that_fails(tree: SealedTree, reader: ChunkReader, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("strongroom.host.sealed_tree.os.preadv", fail)
    with pytest.raises(MachineError, match=r"^object [0-9a-f]{32}: input/output error at byte 65536$"):
        reader.read(Range(file(tree), CHUNK, 5))


def test_a_stale_handle_is_opened_once_more(
    sealed: SealedFixture, tree: SealedTree, reader: ChunkReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, preadv = [], os.preadv

    def stale(fd: int, buffers: list[memoryview], offset: int) -> int:
        calls.append(fd)
        if len(calls) == 1:
            raise OSError(errno.ESTALE, "Stale file handle")
        return preadv(fd, buffers, offset)

    monkeypatch.setattr("strongroom.host.sealed_tree.os.preadv", stale)
    assert reader.read(Range(file(tree), 0, 9)) == sealed.contents[NAME][:9]
    assert len(calls) == 2
    assert calls[0] == calls[1]
