"""Mirrors strongroom/host/sealed/keyfile.py."""

import io
import json
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from strongroom.broker.resource import VolumeKey
from strongroom.errors import ConfigError, FormatError, MachineError
from strongroom.host.sealed.keyfile import STDIN, NewKeyFile, read_volume_key
from tests.fakes.sealed import counter

VOLUME = VolumeKey(key=bytes(range(32)), root=b"r" * 32, epoch=7)
SHOWN = "AAECAwQF"  # how its key begins in base64url


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "m.key"
    path.touch(mode=0o600)
    path.write_bytes(VOLUME.pack())
    return path


def made(path: Path) -> NewKeyFile:
    return NewKeyFile.create(path, epoch=7, entropy=counter())


def reopened(path: Path, epoch: int = 7) -> NewKeyFile:
    return NewKeyFile.reopen(path, epoch=epoch, entropy=counter())


def test_a_key_is_read_from_a_private_file(path: Path) -> None:
    assert read_volume_key(path) == VOLUME
    for mode in (0o644, 0o640, 0o604, 0o601, 0o660):
        path.chmod(mode)
        with pytest.raises(ConfigError, match=f"m.key: mode is {mode:04o}, want 0600"):
            read_volume_key(path)
    path.chmod(0o400)
    assert read_volume_key(path) == VOLUME


def test_or_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(VOLUME.pack())))
    assert read_volume_key(STDIN) == VOLUME


def test_or_from_a_pipe() -> None:
    reader, writer = os.pipe()
    os.write(writer, VOLUME.pack())
    os.close(writer)
    assert read_volume_key(Path(f"/dev/fd/{reader}")) == VOLUME
    os.close(reader)


@pytest.mark.guarantee("G11")
def test_no_error_shows_a_byte_of_it(path: Path) -> None:
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(FormatError) as caught:
            read_volume_key(path)
        assert SHOWN not in str(caught.value) and str(path) in str(caught.value)
    for position in range(len(good)):
        data = bytearray(good)
        data[position] ^= 1
        path.write_bytes(data)
        said = ""
        try:
            read_volume_key(path)
        except FormatError as error:
            said = str(error)
        assert SHOWN not in said


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"none.key: no such file or directory"):
        read_volume_key(tmp_path / "none.key")


def test_a_key_is_on_disk_before_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "new.key"
    key = made(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key.fresh and key.root is None
    with pytest.raises(
        FormatError, match=r"new.key: the key of a seal that was cut, want one that was finished"
    ):
        read_volume_key(path)
    again = reopened(path)
    assert again.key == key.key and not again.fresh and again.root is None


def test_it_becomes_a_volume_key(tmp_path: Path) -> None:
    path = tmp_path / "new.key"
    key = made(path)
    key.finish(b"r" * 32)
    assert read_volume_key(path) == VolumeKey(key=key.key.reveal(), root=b"r" * 32, epoch=7)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["new.key"]
    again = reopened(path)
    assert (again.key, again.root) == (key.key, b"r" * 32)
    again.finish(b"s" * 32)
    assert read_volume_key(path).root == b"s" * 32


def test_a_half_made_step_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "new.key"
    path.touch(0o600)  # cut between making the file and writing it
    key = reopened(path)
    assert key.fresh
    (tmp_path / "new.key.partial").write_bytes(b"half")
    key.finish(b"r" * 32)
    assert os.listdir(tmp_path) == ["new.key"]


def test_what_exists_is_never_touched(path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"m.key: exists, want a new file: a key written over is a model lost"
    ):
        made(path)
    assert path.read_bytes() == VOLUME.pack()
    link = path.with_name("link")
    link.symlink_to("elsewhere")
    with pytest.raises(ConfigError, match="exists"):
        made(link)


def test_only_the_key_of_the_same_release_goes_on(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"m.key: epoch is 7, want 8"):
        reopened(path, epoch=8)
    path.write_bytes(b"something else")
    with pytest.raises(FormatError, match=r"m.key: volume key: "):
        reopened(path)
    path.unlink()
    assert reopened(path).fresh


def test_an_unfinished_key_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "new.key"
    made(path)
    value = json.loads(path.read_text())
    for change in ({"more": 1}, {"version": "v2"}, {"key": value["key"][:-1]}, {"epoch": "7"}):
        path.write_text(json.dumps(value | change))
        with pytest.raises(FormatError, match=r"new.key: volume key: "):
            reopened(path)


@pytest.mark.guarantee("G11")
def test_no_key_in_repr(tmp_path: Path) -> None:
    key = made(tmp_path / "new.key")
    assert key.key.reveal().hex() not in repr(key) + repr(vars(key))


def test_a_disk_that_takes_a_little_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr("strongroom.host.sealed.keyfile.os.write", lambda fd, data: write(fd, data[:7]))
    key = made(tmp_path / "new.key")
    assert reopened(tmp_path / "new.key").key == key.key
    key.finish(b"r" * 32)
    assert read_volume_key(tmp_path / "new.key").key == key.key.reveal()


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_disk_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"strongroom.host.sealed.keyfile.os.{call}", fail)
    with pytest.raises(MachineError, match="no space left on device"):
        made(tmp_path / "new.key")
    assert os.listdir(tmp_path) == []  # nothing that blocks the next attempt
