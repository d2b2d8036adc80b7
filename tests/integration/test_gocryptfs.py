"""Volumes exchanged with the real gocryptfs, in both directions and of every kind; what its format lets pass."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from strongroom.errors import VerifyError
from strongroom.host.gocryptfs.checking import check_volume
from strongroom.host.gocryptfs.directory import read_settings
from strongroom.host.gocryptfs.pinning import pin_volume
from strongroom.host.gocryptfs.volume import GocryptfsVolume
from strongroom.host.stored import Item
from strongroom.sealed.gocryptfs.ciphers import Ciphers
from strongroom.sealed.gocryptfs.config import unlock
from strongroom.sealed.gocryptfs.content import BLOCK
from strongroom.sealed.gocryptfs.reverse import Purpose, block_nonce, derive
from strongroom.sealed.gocryptfs.side import SideManifest, side_root
from tests.fakes.gocryptfs import (
    CONTENTS,
    KINDS,
    LINKS,
    LONG_NAMES,
    MASTER_KEY,
    MIB,
    PASSWORD,
    fsck,
    init,
    mounted,
    program,
    write_volume,
)
from tests.fakes.sealed import pattern

pytestmark = pytest.mark.usefixtures("fuse_device", "real")
THEIRS = [kind for kind, (options, _, _) in KINDS.items() if options is not None]


@pytest.fixture(name="real")
def _real() -> None:
    program()


def fill(top: Path, *, long_names: bool = True) -> None:
    """What CONTENTS and LINKS say, and what only a file system can have."""
    for name, content in (CONTENTS | (LONG_NAMES if long_names else {})).items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    for name, target in LINKS.items():
        (top / name).symlink_to(target)
    os.link(top / "d/over", top / "again")
    with (top / "sparse").open("wb") as file:
        file.truncate(2 * MIB + 100)
        file.seek(3 * BLOCK + 10)
        file.write(b"in between")
    os.setxattr(top / "one", "user.note", b"value")
    os.setxattr(top / "one", "user.empty", b"")


@contextmanager
def opened(cipher: Path, side: SideManifest | None = None) -> Iterator[GocryptfsVolume]:
    master_key = unlock(read_settings(cipher), PASSWORD)
    with GocryptfsVolume.open(cipher, master_key=master_key, side=side) as volume:
        yield volume


def everything(volume: GocryptfsVolume) -> dict[str, bytes]:
    """Path to content, of files and links."""
    reader, found = volume.reader(), {}
    for item in volume.items:
        if stat.S_ISLNK(item.mode):
            found[os.fsdecode(item.path)] = item.target
        elif stat.S_ISREG(item.mode):
            content = bytearray(item.size)
            if item.key is not None:
                reader.read_into(item.key, 0, memoryview(content))
            found[os.fsdecode(item.path)] = bytes(content)
    return found


def plain(top: Path) -> dict[str, bytes]:
    found = {}
    for directory, _, names in os.walk(top):
        for name in names:
            path = Path(directory, name)
            at = str(path.relative_to(top))
            found[at] = os.readlink(os.fsencode(path)) if path.is_symlink() else path.read_bytes()
    for link in [path for path in top.rglob("*") if path.is_symlink() and path.is_dir()]:
        found[str(link.relative_to(top))] = os.readlink(os.fsencode(link))
    return found


def item(volume: GocryptfsVolume, path: str) -> Item:
    return next(one for one in volume.items if one.path == path.encode())


@pytest.mark.parametrize("kind", THEIRS)
def test_we_read_what_gocryptfs_wrote(tmp_path: Path, kind: str) -> None:
    cipher = tmp_path / "cipher"
    init(cipher, *(KINDS[kind][0] or ()))
    assert read_settings(cipher).flags == KINDS[kind][1]
    with mounted(cipher) as at:
        fill(at)
        wanted = plain(at)
    with opened(cipher) as volume:
        assert everything(volume) == wanted
        assert item(volume, "again").key == item(volume, "d/over").key
        assert item(volume, "again").nlink == 2
    findings = check_volume(cipher, master_key=unlock(read_settings(cipher), PASSWORD))
    assert findings.problems == []
    assert findings.strays == []
    assert (findings.files, findings.links, findings.directories) == (len(wanted) - 3, 3, 2)
    assert findings.holes > 0
    attributes = Ciphers.make(unlock(read_settings(cipher), PASSWORD), read_settings(cipher)).attributes
    noted = [path for path in cipher.rglob("*") if path.is_file() and len(os.listxattr(path)) == 2]
    for name, value in ((b"user.note", b"value"), (b"user.empty", b"")):
        assert attributes.open_value(os.getxattr(noted[0], attributes.seal_name(name))) == value


@pytest.mark.parametrize("kind", KINDS)
def test_gocryptfs_reads_what_we_wrote(tmp_path: Path, kind: str) -> None:
    contents = CONTENTS | (LONG_NAMES if kind != "without-long-names" else {})
    cipher = write_volume(tmp_path / "cipher", kind, contents=contents).path
    assert fsck(cipher).status == 0
    wanted = contents | {name: target.encode() for name, target in LINKS.items()}
    with mounted(cipher) as at:
        assert plain(at) == wanted
        os.setxattr(at / "one", "user.note", b"value")
        (at / "new").write_bytes(b"theirs")
    with opened(cipher) as volume:
        assert everything(volume) == wanted | {"new": b"theirs"}
    assert check_volume(cipher, master_key=unlock(read_settings(cipher), PASSWORD)).problems == []


@pytest.mark.parametrize("plain_names", [False, True])
def test_reverse_views_are_read_and_their_ivs_known(tmp_path: Path, plain_names: bool) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    fill(source)
    (source / "sparse").unlink()
    (source / "again").unlink()  # both names would have the file id of one
    names = ("-plaintextnames",) if plain_names else ()
    init(source, "-reverse", *names)
    with mounted(source, "-reverse") as view:
        shutil.copytree(view, copy, symlinks=True)
    wanted = plain(source)
    del wanted[".gocryptfs.reverse.conf"]
    with opened(copy) as volume:
        assert everything(volume) == wanted
    master_key = unlock(read_settings(copy), PASSWORD)
    assert check_volume(copy, master_key=master_key, reverse=True).problems == []
    if not plain_names:
        assert (copy / "gocryptfs.diriv").read_bytes() == derive(b"", Purpose.DIRIV)
    big = max((path for path in copy.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    at = os.fsencode(big.relative_to(copy))
    data = big.read_bytes()
    assert data[2:18] == derive(at, Purpose.FILE_ID)
    for block in (0, 1, 300):
        nonce = data[18 + block * 4128 :][:16]
        assert nonce == block_nonce(derive(at, Purpose.BLOCK_0), block)
    # A copy of a view tells which file was put where another was; a bare look at it does not.
    other = next(
        path for path in big.parent.iterdir() if path.is_file() and 18 < path.stat().st_size != len(data)
    )
    swap(big, other)
    assert check_volume(copy, master_key=master_key).problems == []
    found = check_volume(copy, master_key=master_key, reverse=True).problems
    assert len(found) == 2
    assert all("file id is that of another path" in sentence for sentence in found)


def swap(one: Path, other: Path) -> None:
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)


# What the bare format lets pass. Each edit needs no key, is accepted by gocryptfs and by our reader of the bare
# format, and is refused with the side manifest.

SEALED_BLOCK = 4128
HEADER = 18
MODEL, OTHER = pattern(3 * MIB + 700, 7), pattern(3 * MIB + 700, 8)


class Attacked:
    """A volume of two files of one size, a link and an older version of the first."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.cipher = top / "cipher"
        contents = {"d/model": MODEL, "d/other": OTHER, "d/config": b"{}"}
        written = write_volume(self.cipher, contents=contents, links={"d/a": "model", "d/b": "other"})
        self.model, self.other, self.config = (
            written.stored[f"d/{name}"] for name in ("model", "other", "config")
        )
        self.links = written.stored["d/a"], written.stored["d/b"]
        self.older = self.model.read_bytes()
        with mounted(self.cipher) as at, (at / "d/model").open("r+b") as file:
            file.seek(5 * BLOCK)
            file.write(b"newer" * 1000)
        self.wanted = MODEL[: 5 * BLOCK] + b"newer" * 1000 + MODEL[5 * BLOCK + 5000 :]
        side = pin_volume(self.cipher, master_key=MASTER_KEY, epoch=1, name="model")
        data = side.seal(master_key=MASTER_KEY, salt=b"s" * 32, volume_id=b"v" * 16)
        self.side = SideManifest.open(data, master_key=MASTER_KEY, epoch=1, root=side_root(data))

    def edit(self, path: Path, change: Callable[[bytearray], None]) -> None:
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)


def block(number: int) -> slice:
    return slice(HEADER + number * SEALED_BLOCK, HEADER + (number + 1) * SEALED_BLOCK)


def zero_a_block(attacked: Attacked) -> None:
    def change(data: bytearray) -> None:
        data[block(300)] = bytes(SEALED_BLOCK)

    attacked.edit(attacked.model, change)
    attacked.wanted = attacked.wanted[: 300 * BLOCK] + bytes(BLOCK) + attacked.wanted[301 * BLOCK :]


def cut_at_a_block(attacked: Attacked) -> None:
    attacked.edit(attacked.model, lambda data: data.__delitem__(slice(block(400).start, None)))
    attacked.wanted = attacked.wanted[: 400 * BLOCK]


def swap_two_files(attacked: Attacked) -> None:
    swap(attacked.model, attacked.other)
    attacked.wanted = OTHER


def replay_a_block(attacked: Attacked) -> None:
    def change(data: bytearray) -> None:
        data[block(5)] = attacked.older[block(5)]

    attacked.edit(attacked.model, change)
    attacked.wanted = (
        attacked.wanted[: 5 * BLOCK] + MODEL[5 * BLOCK : 6 * BLOCK] + attacked.wanted[6 * BLOCK :]
    )


def replay_a_file(attacked: Attacked) -> None:
    attacked.model.write_bytes(attacked.older)
    attacked.wanted = MODEL


def delete_a_file(attacked: Attacked) -> None:
    attacked.config.unlink()


def empty_a_file(attacked: Attacked) -> None:
    attacked.model.write_bytes(b"")
    attacked.wanted = b""


def turn_a_file_into_a_hole(attacked: Attacked) -> None:
    attacked.edit(
        attacked.model,
        lambda data: data.__setitem__(slice(HEADER, block(768).start), bytes(768 * SEALED_BLOCK)),
    )
    attacked.wanted = bytes(768 * BLOCK) + attacked.wanted[768 * BLOCK :]


def link_another_file(attacked: Attacked) -> None:
    attacked.model.unlink()
    os.link(attacked.other, attacked.model)
    attacked.wanted = OTHER


ATTACKS = [
    zero_a_block,
    cut_at_a_block,
    swap_two_files,
    replay_a_block,
    replay_a_file,
    delete_a_file,
    empty_a_file,
    turn_a_file_into_a_hole,
    link_another_file,
]


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_the_bare_format_takes_it_and_the_side_manifest_does_not(
    tmp_path: Path, attack: Callable[[Attacked], None]
) -> None:
    attacked = Attacked(tmp_path)
    with opened(attacked.cipher, attacked.side) as volume:
        assert everything(volume)["d/model"] == attacked.wanted
    attack(attacked)
    with mounted(attacked.cipher) as at:  # the real program
        assert (at / "d/model").read_bytes() == attacked.wanted
        assert (at / "d/config").exists() is (attack is not delete_a_file)
    assert fsck(attacked.cipher).status == 0
    with opened(attacked.cipher) as volume:  # ours, without the manifest
        assert everything(volume)["d/model"] == attacked.wanted
    with pytest.raises(VerifyError), opened(attacked.cipher, attacked.side) as volume:
        everything(volume)


@pytest.mark.guarantee("G4")
def test_a_pinned_volume_serves_all_but_the_block_that_was_exchanged(tmp_path: Path) -> None:
    attacked = Attacked(tmp_path)
    replay_a_block(attacked)
    with opened(attacked.cipher, attacked.side) as volume:
        reader, model = volume.reader(), item(volume, "d/model").key
        assert model is not None
        with pytest.raises(VerifyError, match="MiB 0 is not the one that was pinned"):
            reader.read(model, 5 * BLOCK, 1)
        assert reader.read(model, MIB, MIB) == MODEL[MIB : 2 * MIB]
        findings = check_volume(attacked.cipher, master_key=MASTER_KEY, side=attacked.side)
        assert [sentence.partition(": ")[2] for sentence in findings.problems] == [
            "MiB 0 is not the one that was pinned"
        ]


@pytest.mark.guarantee("G4")
def test_links_of_a_pinned_volume_lead_where_they_did(tmp_path: Path) -> None:
    attacked = Attacked(tmp_path)
    one, other = attacked.links
    targets = os.readlink(one), os.readlink(other)
    for path, target in zip(attacked.links, reversed(targets), strict=True):
        path.unlink()
        path.symlink_to(target)
    with mounted(attacked.cipher) as at:
        assert os.readlink(at / "d/a") == "other"
    with opened(attacked.cipher) as volume:
        assert item(volume, "d/a").target == b"other"
    with opened(attacked.cipher, attacked.side) as volume:
        assert item(volume, "d/a").target == b"model"


def reorder_blocks(attacked: Attacked) -> None:
    def change(data: bytearray) -> None:
        data[block(1)], data[block(2)] = data[block(2)], data[block(1)]

    attacked.edit(attacked.model, change)


def take_a_block_of_another(attacked: Attacked) -> None:
    theirs = attacked.other.read_bytes()
    attacked.edit(attacked.model, lambda data: data.__setitem__(block(1), theirs[block(1)]))


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("attack", [reorder_blocks, take_a_block_of_another])
def test_what_the_bare_format_refuses_we_refuse(tmp_path: Path, attack: Callable[[Attacked], None]) -> None:
    attacked = Attacked(tmp_path)
    attack(attacked)
    with mounted(attacked.cipher) as at, pytest.raises(OSError, match="Input/output error"):
        (at / "d/model").read_bytes()
    assert fsck(attacked.cipher).status != 0
    for side in (None, attacked.side):
        with pytest.raises(VerifyError), opened(attacked.cipher, side) as volume:
            everything(volume)
