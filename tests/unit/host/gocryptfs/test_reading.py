"""Mirrors strongroom/host/gocryptfs/reading.py and stored.py."""

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.errors import MachineError, ProtocolError, VerifyError
from strongroom.host.gocryptfs import reading
from strongroom.host.gocryptfs.pinning import pin_volume
from strongroom.host.gocryptfs.reading import GocryptfsReader
from strongroom.host.gocryptfs.volume import GocryptfsVolume
from strongroom.host.stored import MAX_READ
from strongroom.sealed.gocryptfs.content import BLOCK
from strongroom.sealed.gocryptfs.side import SideManifest
from tests.fakes.gocryptfs import MASTER_KEY, MIB, write_volume
from tests.fakes.sealed import pattern

PLAIN = pattern(3 * MIB + BLOCK + 9, 1)
SEALED = 4128


@pytest.fixture(params=["aes-gcm bare", "aes-gcm pinned", "aes-siv pinned", "xchacha pinned"], name="volume")
def _volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GocryptfsVolume]:
    kind, _, how = request.param.partition(" ")
    with opened(tmp_path, kind, pinned=how == "pinned") as volume:
        yield volume


def opened(at: Path, kind: str = "aes-gcm", *, pinned: bool = True):  # type: ignore[no-untyped-def]
    write_volume(at / "cipher", kind, contents={"model": PLAIN}, links={})
    return again(at, side=pinned_now(at) if pinned else None)


def pinned_now(at: Path) -> SideManifest:
    return pin_volume(at / "cipher", master_key=MASTER_KEY, epoch=1, name="m", holes=True)


def again(at: Path, *, side: SideManifest | None = None):  # type: ignore[no-untyped-def]
    return GocryptfsVolume.open(at / "cipher", master_key=MASTER_KEY, side=side)


def object_of(at: Path) -> Path:
    return next(path for path in (at / "cipher").iterdir() if path.stat().st_size > 1000)


def test_any_range_reads_as_it_was_written(volume: GocryptfsVolume) -> None:
    numbers, reader = random.Random(1), volume.reader()
    key = volume.items[-1].key
    assert key is not None
    edges = [0, 1, BLOCK - 1, BLOCK, MIB - 1, MIB, MIB + 1, 3 * MIB, 3 * MIB + BLOCK, len(PLAIN) - 1]
    for number in range(150):
        offset = numbers.choice(edges) if number % 2 else numbers.randrange(len(PLAIN))
        size = min(numbers.choice([1, 10, BLOCK, BLOCK + 1, 128 << 10, MAX_READ]), len(PLAIN) - offset)
        assert reader.read(key, offset, size) == PLAIN[offset : offset + size]
        size = numbers.randrange(len(PLAIN) - offset) + 1
        out = bytearray(size)
        reader.read_into(key, offset, memoryview(out))
        assert out == PLAIN[offset : offset + size]


def test_ranges_outside_are_refused(volume: GocryptfsVolume) -> None:
    reader = volume.reader()
    for offset, size in ((0, 0), (0, MAX_READ + 1), (4 * MIB, 1)):
        with pytest.raises(ProtocolError):
            reader.read(0, offset, size)


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("pinned", [False, True])
def test_a_flipped_bit_fails_its_own_range_alone(tmp_path: Path, pinned: bool) -> None:
    with opened(tmp_path, pinned=pinned) as volume:
        flip(object_of(tmp_path), 18 + 300 * SEALED + 100)
        reader, out = volume.reader(), memoryview(bytearray(len(PLAIN)))
        assert reader.read(0, 0, MIB) == PLAIN[:MIB]
        assert reader.read(0, 2 * MIB, MIB) == PLAIN[2 * MIB : 3 * MIB]
        for _ in range(2):  # nothing of it is kept
            with pytest.raises(VerifyError, match="block 300: tag does not verify"):
                reader.read(0, 300 * BLOCK, 1)
            with pytest.raises(VerifyError, match="block 300"):
                reader.read_into(0, 0, out)
        assert reader.read(0, 299 * BLOCK, BLOCK) == PLAIN[299 * BLOCK : 300 * BLOCK]


@pytest.mark.guarantee("G4")
def test_what_is_exchanged_between_two_reads_is_found(tmp_path: Path) -> None:
    with opened(tmp_path) as volume:
        older, at = object_of(tmp_path).read_bytes(), slice(18 + 5 * SEALED, 18 + 6 * SEALED)
        reader = volume.reader()
        assert reader.read(0, 0, 1) == PLAIN[:1]
        assert reader.read(0, MIB, 1) == PLAIN[MIB : MIB + 1]  # the first MiB is in the buffer no more
        changed = bytearray(older)
        changed[at] = bytes(SEALED)
        object_of(tmp_path).write_bytes(changed)
        with pytest.raises(VerifyError, match=r"blocks 5\.\.5 are not those that were pinned"):
            reader.read(0, 5 * BLOCK, 1)
        assert reader.read(0, 4 * BLOCK, BLOCK) == PLAIN[4 * BLOCK : 5 * BLOCK]


@pytest.mark.guarantee("G4")
def test_holes_are_served_only_where_they_are_listed(tmp_path: Path) -> None:
    write_volume(tmp_path / "cipher", contents={"model": PLAIN}, links={})
    data = bytearray(object_of(tmp_path).read_bytes())
    data[18 + 7 * SEALED : 18 + 9 * SEALED] = bytes(2 * SEALED)
    object_of(tmp_path).write_bytes(data)
    with pytest.raises(VerifyError, match="block 7 is a hole: zeros that nothing vouches for"):
        pin_volume(tmp_path / "cipher", master_key=MASTER_KEY, epoch=1, name="m")
    side = pinned_now(tmp_path)
    assert side.hole_count == 2
    with again(tmp_path, side=side) as volume:
        assert volume.reader().read(0, 7 * BLOCK, 2 * BLOCK) == bytes(2 * BLOCK)
        assert volume.reader().read(0, 9 * BLOCK, BLOCK) == PLAIN[9 * BLOCK : 10 * BLOCK]
        data[18 + 9 * SEALED : 18 + 10 * SEALED] = bytes(SEALED)
        object_of(tmp_path).write_bytes(data)
        with pytest.raises(VerifyError, match="MiB 0 is not the one that was pinned"):
            volume.reader().read(0, 0, 1)


@pytest.mark.guarantee("G4")
def test_an_object_that_shrinks_is_never_filled_with_zeros(tmp_path: Path) -> None:
    with opened(tmp_path, pinned=False) as volume:
        os.truncate(object_of(tmp_path), 18 + 260 * SEALED)
        assert volume.reader().read(0, 0, MIB) == PLAIN[:MIB]
        with pytest.raises(VerifyError, match=r"^object \S+: 16512 bytes at byte 1056786, want 1056768$"):
            volume.reader().read(0, MIB, MIB)


def test_a_store_that_fails_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures, pauses = [errno.EIO, errno.EIO], list[float]()
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if failures:
            raise OSError(failures.pop(), "Input/output error")
        return real(fd, buffers, offset)

    with opened(tmp_path) as volume:
        reader = GocryptfsReader(volume._files, volume._top, volume._ciphers.content, pause=pauses.append)
        monkeypatch.setattr(os, "preadv", preadv)
        assert reader.read(0, 0, 5) == PLAIN[:5]
        assert pauses == list(reading.PAUSES[:2])
        failures += [errno.EIO] * 9
        with pytest.raises(MachineError, match=r"^object \S+: input/output error at byte"):
            reader.read(0, MIB, 5)


def test_a_stale_handle_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = [errno.ESTALE]
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if stale:
            raise OSError(stale.pop(), "Stale file handle")
        return real(fd, buffers, offset)

    with opened(tmp_path) as volume:
        monkeypatch.setattr(os, "preadv", preadv)
        assert volume.reader().read(0, 0, 5) == PLAIN[:5]
        stale.append(errno.ESTALE)
        object_of(tmp_path).unlink()
        with pytest.raises(VerifyError, match="missing, or not what it was"):
            volume.reader().read(0, 0, 5)


def test_few_pins_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "KEPT", 2)
    with opened(tmp_path) as volume:
        reader = volume.reader()
        for mib in (0, 1, 2, 3, 0):
            assert reader.read(0, mib * MIB, 9) == PLAIN[mib * MIB : mib * MIB + 9]
        assert list(reader._known) == [(0, 3), (0, 0)]


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
