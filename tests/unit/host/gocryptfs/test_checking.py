"""Mirrors strongroom/host/gocryptfs/checking.py and scan.py."""

from pathlib import Path

import pytest

from strongroom.errors import FormatError
from strongroom.host.gocryptfs.checking import check_volume
from strongroom.host.gocryptfs.pinning import pin_volume
from tests.fakes.gocryptfs import CONTENTS, KINDS, LINKS, MASTER_KEY, MIB, Written, write_volume

SEALED = 4128


@pytest.fixture(name="written")
def _written(tmp_path: Path) -> Written:
    return write_volume(tmp_path / "cipher")


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_volume(tmp_path: Path, kind: str) -> None:
    written, seen = write_volume(tmp_path / "cipher", kind), list[int]()
    found = check_volume(written.path, master_key=MASTER_KEY, progress=seen.append)
    assert (found.files, found.links, found.directories) == (len(CONTENTS), len(LINKS), 2)
    assert found.bytes == sum(map(len, CONTENTS.values())) == seen[-1]
    assert found.blocks == sum(-(-len(content) // 4096) for content in CONTENTS.values())
    assert (found.problems, found.strays, found.holes) == ([], [], 0)
    side = pin_volume(written.path, master_key=MASTER_KEY, epoch=1, name="m")
    pinned = check_volume(written.path, master_key=MASTER_KEY, side=side)
    assert (pinned.files, pinned.links, pinned.blocks, pinned.bytes) == (
        found.files,
        found.links,
        found.blocks,
        found.bytes,
    )
    assert pinned.problems == []


def test_every_fault_is_named_and_the_look_goes_on(written: Written) -> None:
    more, mib = written.stored["d/e/more"], written.stored["d/e/mib"]
    data = bytearray(more.read_bytes())
    data[18 + 3 * SEALED + 50] ^= 1  # block 3
    data[18 + 300 * SEALED + 50] ^= 1  # block 300
    data[-1] ^= 1  # the short last one
    data[18 + 8 * SEALED : 18 + 9 * SEALED] = bytes(SEALED)  # a hole
    more.write_bytes(data)
    mib.write_bytes(mib.read_bytes()[:-3])
    written.stored["d/under"].write_bytes(b"short")
    (written.path / "gocryptfs.longname.abc.name").write_bytes(b"orphan")
    (written.path / "stray").touch()
    link = written.stored["latest"]
    link.unlink()
    link.symlink_to("AAAA")
    (written.path / written.ciphers.names.store(b"x", b"o" * 16).on_disk.decode()).touch()
    found = check_volume(written.path, master_key=MASTER_KEY)
    assert found.holes == 1
    sentences = sorted(sentence.partition(": ")[2] for sentence in found.problems)
    assert sentences == [
        "block 255: tag does not verify",
        "block 300: tag does not verify",
        "block 3: tag does not verify",
        "block 515: tag does not verify",
        "link: 3 bytes sealed, want more than 32",
        "object of 5 bytes: its last block is cut",
    ]
    assert len(found.strays) == 3
    assert "gocryptfs.longname.abc.name: the long name of nothing" in found.strays


def test_against_the_side_manifest(written: Written) -> None:
    side = pin_volume(written.path, master_key=MASTER_KEY, epoch=1, name="m")
    more = written.stored["d/e/more"]
    data = bytearray(more.read_bytes())
    data[18 + 300 * SEALED : 18 + 301 * SEALED] = bytes(SEALED)
    more.write_bytes(data)
    assert check_volume(written.path, master_key=MASTER_KEY).problems == []
    found = check_volume(written.path, master_key=MASTER_KEY, side=side).problems
    assert [sentence.partition(": ")[2] for sentence in found] == ["MiB 1 is not the one that was pinned"]


def test_only_siv_is_of_reverse_mode(written: Written) -> None:
    with pytest.raises(FormatError, match="cipher is AES-256-GCM, reverse mode has AES-SIV"):
        check_volume(written.path, master_key=MASTER_KEY, reverse=True)


def test_large_enough() -> None:
    assert len(CONTENTS["d/e/more"]) > 2 * MIB
