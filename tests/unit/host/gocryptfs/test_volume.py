"""Mirrors strongroom/host/gocryptfs/volume.py, walk.py, pinned.py, directory.py and creating.py."""

import os
import stat
from pathlib import Path

import pytest

from strongroom.errors import ConfigError, FormatError, MachineError, StrongroomError, VerifyError
from strongroom.host.gocryptfs import walk
from strongroom.host.gocryptfs.creating import create
from strongroom.host.gocryptfs.directory import read_settings
from strongroom.host.gocryptfs.pinning import pin_volume
from strongroom.host.gocryptfs.volume import GocryptfsVolume
from strongroom.host.stored import Source
from strongroom.sealed.gocryptfs.side import SideManifest
from tests.fakes.gocryptfs import (
    CONTENTS,
    KINDS,
    LINKS,
    LONG_NAMES,
    MASTER_KEY,
    TIME,
    Written,
    settings,
    write_volume,
)

SMALL = {"a": b"alpha", "d/b": b"beta", "d/" + "l" * 200: b"long"}


@pytest.fixture(name="written")
def _written(tmp_path: Path) -> Written:
    return write_volume(tmp_path / "cipher", contents=SMALL, links={"d/up": "../a"})


def listed(volume: GocryptfsVolume) -> dict[str, bytes]:
    reader = volume.reader()
    return {
        item.path.decode(): bytes(reader.read(item.key, 0, item.size))
        if item.key is not None
        else item.target
        for item in volume.items
        if not stat.S_ISDIR(item.mode)
    }


def opened(written: Written, side: SideManifest | None = None):  # type: ignore[no-untyped-def]
    return GocryptfsVolume.open(written.path, master_key=MASTER_KEY, side=side)


def pin(written: Written) -> SideManifest:
    return pin_volume(written.path, master_key=MASTER_KEY, epoch=1, name="m")


WANTED = SMALL | {"d/up": b"../a"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_volume_of_every_kind_pinned_and_bare(tmp_path: Path, kind: str) -> None:
    contents = {name: content[:5000] for name, content in CONTENTS.items()}
    contents |= LONG_NAMES if kind != "without-long-names" else {}
    written = write_volume(tmp_path / "cipher", kind, contents=contents)
    wanted = contents | {name: target.encode() for name, target in LINKS.items()}
    for side in (None, pin(written)):
        with opened(written, side) as volume:
            source: Source = volume
            assert source.unit == (4096 if side is None else 1 << 20)
            assert listed(volume) == wanted
            one = next(item for item in volume.items if item.path == b"one")
            assert (one.mode, one.mtime_ns, one.size) == (stat.S_IFREG | 0o644, TIME * 10**9, 1)
            paths = [item.path for item in volume.items]
            assert all(path.rpartition(b"/")[0] in (b"", *paths[:at]) for at, path in enumerate(paths))


def test_foreign_names_are_passed_over(written: Written) -> None:
    for name in ("lost+found", ".nfs000000000001", "notes.txt", "strongroom.side"):
        (written.path / name).write_bytes(b"x")
    os.mkfifo(
        written.stored["d"] / written.stored["a"].name
    )  # noise, or no file: either way nothing to serve
    with opened(written) as volume:
        assert listed(volume) == WANTED


@pytest.mark.guarantee("G4")
def test_links_on_disk_are_never_followed(written: Written, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"of the host")
    side = pin(written)
    for name in ("a", "d"):
        place = written.stored[name]
        kept = place.rename(tmp_path / f"kept-{name}")
        place.symlink_to(secret if name == "a" else kept)
        with pytest.raises(StrongroomError), opened(written) as volume:
            listed(volume)
        with (
            pytest.raises(VerifyError, match="of another kind than in the side manifest"),
            opened(written, side),
        ):
            pass
        place.unlink()
        kept.rename(place)
    for name in ("gocryptfs.conf", "gocryptfs.diriv"):
        kept = (written.path / name).rename(tmp_path / name)
        (written.path / name).symlink_to(kept)
        with pytest.raises(VerifyError, match=f"^{name}: missing, or not what it was$"), opened(written):
            pass
        (written.path / name).unlink()
        kept.rename(written.path / name)
    with opened(written) as volume:
        assert listed(volume) == WANTED


@pytest.mark.parametrize("content", [b"", b"i" * 15, b"i" * 17, bytes(16)])
def test_an_iv_that_cannot_be_one_is_refused(written: Written, content: bytes) -> None:
    at = written.stored["d"] / "gocryptfs.diriv"
    at.unlink()
    with pytest.raises(VerifyError, match=r"gocryptfs\.diriv: missing"), opened(written):
        pass
    at.write_bytes(content)
    with pytest.raises((FormatError, VerifyError), match=r"gocryptfs\.diriv"), opened(written):
        pass


def test_a_long_name_without_its_file_is_refused(written: Written) -> None:
    name = Path(f"{written.stored['d/' + 'l' * 200]}.name")
    good = name.read_bytes()
    name.unlink()
    with pytest.raises(VerifyError, match=r"\.name: missing"), opened(written):
        pass
    name.write_bytes(good + b"A" * 400)
    with pytest.raises(VerifyError, match="more than 344 bytes"), opened(written):
        pass
    name.write_bytes(good[:-1] + b"A")  # of another hash: as foreign as any other name that does not open
    with opened(written) as volume:
        assert set(listed(volume)) == set(WANTED) - {"d/" + "l" * 200}


def test_two_names_for_one_are_refused(written: Written) -> None:
    """A short name kept as if it were a long one."""
    names = written.ciphers.names
    short = written.stored["a"].name.encode()
    hashed = names._hashed(short).decode()
    (written.path / hashed).write_bytes(b"")
    (written.path / f"{hashed}.name").write_bytes(short)
    with pytest.raises(FormatError, match="directory at the top: two names on disk for a"), opened(written):
        pass


def test_an_object_that_cannot_be_one_is_refused(written: Written) -> None:
    place = written.stored["a"]
    good = place.read_bytes()
    for length in range(1, len(good)):
        place.write_bytes(good[:length])
        if length > 18 + 32:
            with opened(written) as volume, pytest.raises(VerifyError, match=r"^object \S+: block 0: tag"):
                listed(volume)
        elif length != 18:
            with (
                pytest.raises(FormatError, match=r"^object \S+: object of \d+ bytes: its last block"),
                opened(written),
            ):
                pass
    place.write_bytes(bytes(18) + good[18:])
    with pytest.raises(FormatError, match=r"^object \S+: file header: version is 0"), opened(written):
        pass


def test_a_tree_without_end_is_refused(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_NAMES", 7)
    with pytest.raises(FormatError, match="the volume has more than 7 names"), opened(written):
        pass
    monkeypatch.setattr(walk, "MAX_NAMES", 100)
    monkeypatch.setattr(walk, "MAX_DEPTH", 0)
    with pytest.raises(FormatError, match="more than 0 above it"), opened(written):
        pass


@pytest.mark.guarantee("G4")
def test_a_pinned_volume_has_no_name_more_or_less(written: Written) -> None:
    side = pin(written)
    extra = written.stored["d"] / "extra"
    extra.write_bytes(b"")
    with (
        pytest.raises(VerifyError, match=r"^object \S+/extra: not in the side manifest$"),
        opened(written, side),
    ):
        pass
    extra.unlink()
    for name in ("gocryptfs.conf", ".nfs0001", "gocryptfs.longname.x.name"):  # but at the top, for the first
        (written.stored["d" if name[0] == "." else ""] / name).touch()
    (written.path / "strongroom.side").touch()
    with opened(written, side) as volume:
        assert listed(volume) == WANTED
    for name in ("a", "d/b", "d/up"):
        kept = written.stored[name].rename(written.path.parent / "kept")
        with pytest.raises(VerifyError, match=r"^object \S+: missing$"), opened(written, side):
            pass
        kept.rename(written.stored[name])
    (written.stored["d"] / "gocryptfs.diriv").unlink()  # not needed: names come from the manifest
    with opened(written, side) as volume:
        assert listed(volume) == WANTED


@pytest.mark.guarantee("G4")
def test_a_pinned_volume_has_its_sizes_ids_and_settings(written: Written) -> None:
    side, place = pin(written), written.stored["a"]
    good = place.read_bytes()
    place.write_bytes(good + b"x")
    with pytest.raises(VerifyError, match="6 bytes of plaintext, want 5"), opened(written, side):
        pass
    place.write_bytes(good[:2] + b"j" * 16 + good[18:])
    with pytest.raises(VerifyError, match="file id is 6a6a6a"), opened(written, side):
        pass
    place.write_bytes(good)
    conf = written.path / "gocryptfs.conf"
    conf.unlink()
    conf.write_bytes(settings("aes-siv").pack())
    with (
        pytest.raises(VerifyError, match="flag AESSIV is not as the side manifest has it"),
        opened(written, side),
    ):
        pass


def test_pinned_attributes_are_those_of_then(written: Written) -> None:
    side = pin(written)
    written.stored["a"].chmod(0o4777)
    os.utime(written.stored["a"], (1, 1))
    with opened(written, side) as volume:
        item = next(item for item in volume.items if item.path == b"a")
        assert (item.mode, item.mtime_ns) == (stat.S_IFREG | 0o644, TIME * 10**9)


def test_names_of_one_file(written: Written) -> None:
    extra = written.ciphers.names.store(b"z", (written.path / "gocryptfs.diriv").read_bytes())
    os.link(written.stored["d/b"], written.path / os.fsdecode(extra.on_disk))
    for side in (None, pin(written)):
        with opened(written, side) as volume:
            two = [item for item in volume.items if item.path in (b"d/b", b"z")]
            assert [item.nlink for item in two] == [2, 2]
            assert two[0].key == two[1].key
            assert listed(volume) == WANTED | {"z": b"beta"}


def test_objects_are_opened_when_they_are_read(written: Written) -> None:
    for side in (None, pin(written)):
        with opened(written, side) as volume:
            reader = volume.reader()
            before = set(os.listdir("/proc/self/fd"))
            reader._open_files._most = 2
            files = {item.path.decode(): item.key for item in volume.items if item.key is not None}
            assert files.keys() == SMALL.keys()
            for name, key in [*files.items(), *files.items()]:
                assert reader.read(key, 0, 2) == SMALL[name][:2]
            assert len(set(os.listdir("/proc/self/fd")) - before) == 2
            reader._open_files.close()
            written.stored["d/b"].rename(written.path / "kept")
            with pytest.raises(VerifyError, match=r"^object \S+: missing, or not what it was$"):
                reader.read(files["d/b"], 0, 1)
            (written.path / "kept").rename(written.stored["d/b"])


def test_what_cannot_be_pinned(written: Written) -> None:
    stray = written.path / "stray"
    stray.touch()
    with pytest.raises(ConfigError, match=r"^object stray: name: .*; remove what is not of the volume$"):
        pin(written)
    stray.unlink()
    diriv = (written.path / "gocryptfs.diriv").read_bytes()
    odd = written.path / os.fsdecode(written.ciphers.names.store(b"\xff", diriv).on_disk)
    odd.touch()
    with pytest.raises(ConfigError, match="not UTF-8"):
        pin(written)
    odd.unlink()
    data = bytearray(written.stored["a"].read_bytes())
    data[-1] ^= 1
    written.stored["a"].write_bytes(data)
    with pytest.raises(VerifyError, match="block 0: tag does not verify"):
        pin(written)


def test_no_volume_at_all(tmp_path: Path) -> None:
    with (
        pytest.raises(MachineError, match="no such file"),
        GocryptfsVolume.open(tmp_path / "x", master_key=MASTER_KEY),
    ):
        pass
    with pytest.raises(VerifyError, match=r"^gocryptfs\.conf: missing"):
        read_settings(tmp_path)


def test_a_new_volume_needs_an_empty_place(tmp_path: Path) -> None:
    create(tmp_path / "new", settings(), diriv=b"i" * 16)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["gocryptfs.conf", "gocryptfs.diriv"]
    assert stat.S_IMODE((tmp_path / "new" / "gocryptfs.conf").stat().st_mode) == 0o400
    with pytest.raises(ConfigError, match="not empty"):
        create(tmp_path / "new", settings(), diriv=b"i" * 16)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="no directory"):
        create(tmp_path / "file", settings(), diriv=b"i" * 16)
    with pytest.raises(FormatError):
        create(tmp_path / "other", settings(), diriv=bytes(16))
