"""Mirrors strongroom/host/sealed/opening.py."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.errors import ConfigError, MachineError, VerifyError
from strongroom.host.removal import clear
from strongroom.host.sealed.opening import open_tree
from strongroom.host.sealed.tree import SealedStore
from tests.fakes.sealed import CHUNK, MODEL_KEY, SealedFixture, make_sealed, seal


@pytest.fixture
def sealed(tmp_path: Path) -> SealedFixture:
    return make_sealed(tmp_path)


@pytest.fixture
def store(sealed: SealedFixture) -> Iterator[SealedStore]:
    with SealedStore.open(sealed.path, model_key=MODEL_KEY, epoch=1, root=sealed.root) as store:
        yield store


def look(tree: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a directory: type and mode, time, content or target."""
    found: dict[str, tuple[object, ...]] = {}
    for path in tree.rglob("*"):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(tree))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def test_what_went_in_comes_out(sealed: SealedFixture, store: SealedStore, tmp_path: Path) -> None:
    done: list[int] = []
    open_tree(store, tmp_path / "new" / "plain", workers=2, progress=done.append)
    assert look(tmp_path / "new" / "plain") == look(tmp_path / "source-1")
    assert stat.S_IMODE((tmp_path / "new" / "plain").stat().st_mode) == 0o700
    assert done[-1] == sum(one.file.size for one in store.objects)


def test_modes_times_and_holes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "locked").mkdir(parents=True)
    (source / "locked" / "file").write_bytes(b"x")
    (source / "locked" / "link").symlink_to("file")
    with (source / "sparse").open("wb") as file:
        file.truncate(4 << 20)
        file.seek(1 << 20)
        file.write(b"x" * CHUNK)
    (source / "sparse").chmod(0o640)
    os.utime(source / "sparse", ns=(0, 1_234_567_890_123_456_789))
    (source / "locked").chmod(0o555)
    os.utime(source / "locked", ns=(0, 5_000_000_001))
    root = seal(source, tmp_path / "sealed")
    with SealedStore.open(tmp_path / "sealed", model_key=MODEL_KEY, epoch=1, root=root) as store:
        open_tree(store, tmp_path / "plain")
    assert look(tmp_path / "plain") == look(source)
    assert (tmp_path / "plain" / "sparse").stat().st_blocks * 512 < 1 << 20


def test_a_destination_is_new_or_empty(store: SealedStore, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    with pytest.raises(ConfigError, match="taken: not empty"):
        open_tree(store, tmp_path / "taken")
    assert os.listdir(tmp_path / "taken") == ["mine"]
    with pytest.raises(MachineError, match=r"/dev/null: (file exists|not a directory)"):
        open_tree(store, Path("/dev/null"))


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("existed", [True, False])
def test_nothing_stays_of_a_damaged_tree(
    sealed: SealedFixture, store: SealedStore, tmp_path: Path, existed: bool
) -> None:
    path = sealed.objects["model-2.safetensors"]
    data = bytearray(path.read_bytes())
    data[5 * CHUNK] ^= 1
    path.write_bytes(data)
    dest = tmp_path / "plain"
    if existed:
        dest.mkdir()
    with pytest.raises(VerifyError, match=f"object {path.name}: chunk 5: tag does not verify"):
        open_tree(store, dest)
    assert dest.exists() == existed and (not existed or not os.listdir(dest))


def test_a_sealer_that_lied_about_a_digest(store: SealedStore, tmp_path: Path) -> None:
    object.__setattr__(store.objects[0].file, "sha256", bytes(32))
    with pytest.raises(VerifyError, match="digest is"):
        open_tree(store, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def left(dest: Path) -> list[str]:
    return os.listdir(dest) if dest.exists() else []


@pytest.mark.parametrize("existed", [True, False])
def test_nothing_stays_behind_a_directory_of_any_depth_and_mode(tmp_path: Path, existed: bool) -> None:
    source, dest = tmp_path / "source", tmp_path / "plain"
    deep = source.joinpath(*["d"] * 1200)
    at = os.open(tmp_path, os.O_RDONLY)
    for name in ("source", *deep.parts[len(source.parts) :]):
        os.mkdir(name, dir_fd=at)
        at, outer = os.open(name, os.O_RDONLY, dir_fd=at), at
        os.close(outer)
    os.close(at)
    (source / "secret").write_bytes(b"weights")
    (source / "z.bin").write_bytes(bytes(CHUNK))
    root = seal(source, tmp_path / "sealed")
    victim = next((tmp_path / "sealed" / "objects").iterdir())
    victim.write_bytes(bytes(CHUNK))
    if existed:
        dest.mkdir()
    with (
        SealedStore.open(tmp_path / "sealed", model_key=MODEL_KEY, epoch=1, root=root) as store,
        pytest.raises(VerifyError, match="chunk 0: tag does not verify"),
    ):
        open_tree(store, dest)
    assert dest.exists() == existed and not left(dest)
    clear_deep(source)


def clear_deep(source: Path) -> None:
    """What pytest's own removal could not walk."""
    fd = os.open(source, os.O_RDONLY)
    clear(fd)
    os.close(fd)


def test_a_disk_that_fails_when_modes_are_set(
    store: SealedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "latest")

    monkeypatch.setattr(Path, "symlink_to", fail)
    with pytest.raises(MachineError, match=r"^latest: no space left on device$"):
        open_tree(store, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_plaintext_that_cannot_be_removed_is_said(
    store: SealedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    object.__setattr__(store.objects[0].file, "sha256", bytes(32))
    monkeypatch.setattr("strongroom.host.sealed.opening.clear", fail)
    words = "digest is .*; what was written to .*plain could not be removed: read-only file system"
    with pytest.raises(VerifyError, match=words):
        open_tree(store, tmp_path / "plain")
