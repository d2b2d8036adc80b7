"""A volume that never changes, as an operations class; where the daemon finds what it needs; sentences said once."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecars.fs.live.reports import MOST, once
from sidecars.fs.live.serving import intents_path, is_shared
from sidecars.fs.live.still import StillVolume
from strongroom.errors import MachineError
from strongroom.host.gocryptfs.volume import GocryptfsVolume
from tests.fakes.gocryptfs import CONTENTS, LINKS, MASTER_KEY, write_volume


def test_a_volume_that_never_changes(tmp_path: Path) -> None:
    write_volume(tmp_path / "store")
    said: list[str] = []
    with GocryptfsVolume.open(tmp_path / "store", master_key=MASTER_KEY) as source:
        volume = StillVolume(source, uid=1000, report=said.append)
        for path, content in CONTENTS.items():
            fh = volume.open(f"/{path}", os.O_RDONLY)
            assert volume.getattr(f"/{path}", fh)["st_size"] == len(content)
            assert volume.read("", len(content) + 10, 0, fh) == content
            assert volume.read("", 100, len(content) // 2, fh) == content[len(content) // 2 :][:100]
            volume.release("", fh)
        for path, target in LINKS.items():
            assert volume.readlink(f"/{path}") == target
        listed = [entry if isinstance(entry, str) else entry[0] for entry in volume.readdir("/d", 0)]
        assert sorted(listed) == sorted([".", "..", "under", "block", "over", "e", "up", "dir"])
        attrs = volume.getattr("/d")
        assert (stat.S_ISDIR(attrs["st_mode"]), attrs["st_uid"]) == (True, 1000)
        assert volume.statfs("/")["f_files"] == len(source.items)
        refusals: dict[int, Callable[[], object]] = {
            errno.ENOENT: lambda: volume.getattr("/missing"),
            errno.EROFS: lambda: volume.open("/one", os.O_RDWR),
            errno.EINVAL: lambda: volume.readlink("/one"),
            errno.ENOTDIR: lambda: volume.readdir("/one", 0),
        }
        for number, act in refusals.items():
            with pytest.raises(OSError, match=f"Errno {number}"):
                act()
        assert said == []


def test_what_does_not_verify_is_wiped_and_refused(tmp_path: Path) -> None:
    written = write_volume(tmp_path / "store", contents={"file": bytes(range(256)) * 40}, links={})
    with GocryptfsVolume.open(tmp_path / "store", master_key=MASTER_KEY) as source:
        said: list[str] = []
        volume = StillVolume(source, report=said.append)
        with written.stored["file"].open("r+b") as file:
            file.seek(18 + 4128 + 50)
            file.write(b"changed")
        out = memoryview(bytearray(b"x" * 10_000))
        with pytest.raises(OSError, match=f"Errno {errno.EIO}"):
            volume.read_into("", out, 0, volume.open("/file", os.O_RDONLY))
        assert not any(out)
        assert len(said) == 1
        assert "block 1" in said[0]


def test_sentences_are_said_once() -> None:
    said: list[str] = []
    say = once(said.append)
    for number in range(MOST + 10):
        say(f"{number}")
        say("0")
    assert said == [str(number) for number in range(MOST)]


def test_a_local_store_is_not_shared(tmp_path: Path) -> None:
    assert not is_shared(tmp_path)
    assert not is_shared(Path("/dev/shm"))


def test_where_writes_under_way_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    first = intents_path(tmp_path / "a")
    assert first.parent == tmp_path / "run"
    assert first != intents_path(tmp_path / "b")
    (tmp_path / "link").symlink_to("a")
    assert first == intents_path(tmp_path / "link")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "missing/run"))
    with pytest.raises(MachineError, match="no such file or directory"):
        intents_path(tmp_path / "a")
