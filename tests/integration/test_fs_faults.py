"""A real mount of a store that is not what was sealed: what no reader gets to see."""

import errno
import mmap
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.mounts import PAGE, assert_only_refused, damage, forget_pages, mounted, read_pages, refused
from tests.fakes.sealed import CHUNK, SealedFixture, make_sealed

pytestmark = pytest.mark.usefixtures("fuse_device")


@pytest.mark.guarantee("G4")
def test_a_changed_byte_costs_its_chunk_and_no_other(sealed: SealedFixture, place: Path) -> None:
    touched = {"model-1.safetensors": {0, 3}, "model-2.safetensors": {5}, "exact.bin": {1, 3}}
    for name, chunks in touched.items():
        for chunk in chunks:
            size = len(sealed.contents[name])
            damage(
                sealed.objects[name], min(chunk * CHUNK + 12345 * (chunk + 1) % CHUNK, size - 1), 1 << chunk
            )
    with mounted(sealed, place) as daemon:
        for name, chunks in touched.items():
            assert_only_refused(daemon.mount / name, sealed.contents[name], chunks)
        assert (daemon.mount / "config.json").read_bytes() == sealed.contents["config.json"]
        code, stderr = daemon.stop()
    lines = stderr.splitlines()
    assert code == 0
    assert sorted(lines) == sorted(
        f"strongroom-fs: object {sealed.objects[name].name}: chunk {chunk}: tag does not verify; read refused"
        for name, chunks in touched.items()
        for chunk in chunks
    )


@pytest.mark.guarantee("G4")
def test_status_says_what_is_damaged(sealed: SealedFixture, place: Path) -> None:
    damage(sealed.objects["exact.bin"], 0)
    with mounted(sealed, place) as daemon:
        with pytest.raises(OSError, match="Input/output error"):
            (daemon.mount / "exact.bin").read_bytes()
        want = f"object {sealed.objects['exact.bin'].name}: chunk 0: tag does not verify; read refused"
        daemon.hear(lambda: want in daemon.statuses())


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("chunk", range(6))
def test_a_byte_of_any_chunk(sealed: SealedFixture, place: Path, chunk: int) -> None:
    content = sealed.contents["model-1.safetensors"]
    damage(sealed.objects["model-1.safetensors"], chunk * CHUNK + 17)
    with mounted(sealed, place) as daemon:
        assert_only_refused(daemon.mount / "model-1.safetensors", content, {chunk})


@pytest.mark.guarantee("G4")
def test_a_zeroed_chunk(sealed: SealedFixture, place: Path) -> None:
    with sealed.objects["exact.bin"].open("r+b") as file:
        file.seek(2 * CHUNK)
        file.write(bytes(CHUNK))
    with mounted(sealed, place) as daemon:
        assert_only_refused(daemon.mount / "exact.bin", sealed.contents["exact.bin"], {2})


@pytest.mark.guarantee("G4")
def test_swapped_chunks(sealed: SealedFixture, place: Path) -> None:
    path = sealed.objects["exact.bin"]
    data = path.read_bytes()
    path.write_bytes(data[CHUNK : 2 * CHUNK] + data[:CHUNK] + data[2 * CHUNK :])
    with mounted(sealed, place) as daemon:
        assert_only_refused(daemon.mount / "exact.bin", sealed.contents["exact.bin"], {0, 1})


@pytest.mark.guarantee("G4")
def test_swapped_objects(sealed: SealedFixture, place: Path) -> None:
    one, two = sealed.objects["model-1.safetensors"], sealed.objects["model-2.safetensors"]
    spare = one.with_name("spare")
    one.rename(spare)
    two.rename(one)
    spare.rename(two)
    with mounted(sealed, place) as daemon:
        for name in ("model-1.safetensors", "model-2.safetensors"):
            assert_only_refused(daemon.mount / name, sealed.contents[name], set(range(6)))
        assert_only_refused(daemon.mount / "exact.bin", sealed.contents["exact.bin"], set())


@pytest.mark.guarantee("G4")
def test_a_direct_read_over_a_bad_chunk_gives_nothing(sealed: SealedFixture, place: Path) -> None:
    damage(sealed.objects["exact.bin"], 3 * CHUNK + 5)
    with mounted(sealed, place) as daemon:
        fd = os.open(daemon.mount / "exact.bin", os.O_RDONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, 4 * CHUNK)
        with pytest.raises(OSError, match="Input/output error"):
            os.preadv(fd, [buffer], 0)
        assert buffer[:] == bytes(4 * CHUNK)
        os.close(fd)
        buffer.close()


@pytest.mark.guarantee("G4")
def test_a_mapped_bad_chunk_kills_its_reader(sealed: SealedFixture, place: Path) -> None:
    damage(sealed.objects["exact.bin"], CHUNK)
    program = (
        "import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ);"
        f"print(len(m[:{PAGE}]), flush=True); m[{CHUNK}]"
    )
    with mounted(sealed, place) as daemon:
        path = daemon.mount / "exact.bin"
        reader = subprocess.run(
            [sys.executable, "-c", program, path], capture_output=True, text=True, check=False
        )
    assert reader.stdout == f"{PAGE}\n"
    assert reader.returncode == -signal.SIGBUS


@pytest.mark.guarantee("G4")
def test_damage_done_while_mounted(sealed: SealedFixture, place: Path) -> None:
    name, content = "model-1.safetensors", sealed.contents["model-1.safetensors"]
    with mounted(sealed, place) as daemon:
        assert (daemon.mount / name).read_bytes() == content
        damage(sealed.objects[name], 2 * CHUNK + 9)
        os.truncate(sealed.objects[name], 4 * CHUNK)
        forget_pages(daemon.mount / name)
        assert_only_refused(daemon.mount / name, content, {2, 4, 5})


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("name", ["model-1.safetensors", "model-2.safetensors", "exact.bin"])
def test_objects_of_another_length(sealed: SealedFixture, place: Path, name: str) -> None:
    path, size = sealed.objects[name], len(sealed.contents[name])
    for length in (size - 1, size - size % CHUNK - CHUNK, 0, size + 1, size + CHUNK):
        os.truncate(path, length)
        want = f"strongroom-fs: object {path.name}: {length} bytes, want {size}"
        assert refused(sealed, place) == (5, want)
    path.unlink()
    assert refused(sealed, place) == (5, f"strongroom-fs: object {path.name}: missing, want {size} bytes")
    path.symlink_to("/dev/zero")
    assert refused(sealed, place)[0] == 8
    path.unlink()
    os.mkfifo(path)
    assert refused(sealed, place) == (5, f"strongroom-fs: object {path.name}: not a regular file")


@pytest.mark.guarantee("G4")
def test_changed_tags_and_manifest(sealed: SealedFixture, place: Path) -> None:
    (tags,) = (sealed.path / "tags").iterdir()
    for subject, name, step in (("tags", f"tags/{tags.name}", 61), ("manifest", "MANIFEST", 397)):
        good = (sealed.path / name).read_bytes()
        for position in range(0, len(good), step):
            damage(sealed.path / name, position, 1 << position % 8)
            code, line = refused(sealed, place)
            assert code in (4, 5, 6), line
            assert line.startswith(f"strongroom-fs: {subject}: "), line
            (sealed.path / name).write_bytes(good)
        for cut in (good[:-1], good + b"\0", b""):
            (sealed.path / name).write_bytes(cut)
            assert refused(sealed, place)[0] in (4, 5)
        (sealed.path / name).unlink()
        assert refused(sealed, place) == (5, f"strongroom-fs: {subject}: missing")
        (sealed.path / name).write_bytes(good)


@pytest.mark.guarantee("G4")
def test_an_object_of_an_older_seal(sealed: SealedFixture, place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    older = make_sealed(other, epoch=1)
    older.objects["exact.bin"].replace(sealed.objects["exact.bin"])
    # The same plaintext, key and even file id, but another salt: in life the file id differs as well.
    damage(sealed.objects["exact.bin"], 0)
    with mounted(sealed, place) as daemon:
        pages = read_pages(daemon.mount / "exact.bin", CHUNK)
        assert set(pages.values()) == {errno.EIO}


@pytest.mark.guarantee("G5")
def test_an_older_tree_put_back_whole(sealed: SealedFixture, place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    older = make_sealed(other, epoch=1)
    shutil.rmtree(sealed.path)
    shutil.copytree(older.path, sealed.path)
    assert refused(sealed, place) == (6, "strongroom-fs: manifest: epoch is 1, want 2")


@pytest.mark.guarantee("G4")
def test_another_tree_of_the_same_epoch(sealed: SealedFixture, place: Path) -> None:
    wanted = "ab" * 32
    assert refused(sealed, place, root=wanted) == (
        5,
        f"strongroom-fs: manifest: root digest is {sealed.root.hex()}, want {wanted}",
    )


def test_another_key(sealed: SealedFixture, place: Path) -> None:
    code, line = refused(sealed, place, key=bytes(32))
    assert code == 5
    assert line.startswith("strongroom-fs: manifest: key commitment does not match")
