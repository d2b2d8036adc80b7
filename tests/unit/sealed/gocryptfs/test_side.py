"""Mirrors strongroom/sealed/gocryptfs/side.py and side_entries.py."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from strongroom.errors import FormatError, PolicyError, StrongroomError, VerifyError
from strongroom.sealed.gocryptfs.config import DEFAULT_FLAGS, Flag
from strongroom.sealed.gocryptfs.side import SideManifest, side_root
from strongroom.sealed.gocryptfs.side_entries import Directory, File, HardLink, Symlink, parse_entry
from tests.fakes.gocryptfs import MASTER_KEY, settings

MIB = 1 << 20
ID = b"i" * 16
STAMP: dict[str, Any] = {"mtime": 1_700_000_000, "nanos": 5}
ENTRIES = (
    Directory(path="d", stored="D", mode=0o755, **STAMP),
    File(
        path="d/model", stored="M", mode=0o644, size=2 * MIB + 1, file_id=ID, holes=((3, 2), (6, 1)), **STAMP
    ),
    Symlink(path="d/up", stored="U", target="../empty", **STAMP),
    File(path="empty", stored="E", mode=0o600, size=0, file_id=None, **STAMP),
    HardLink(path="same", stored="S", same="d/model"),
)
DIGESTS = b"1" * 32 + b"2" * 32 + b"3" * 32


def made(**changes: Any) -> SideManifest:
    members: dict[str, Any] = {
        "epoch": 3,
        "name": "m",
        "flags": DEFAULT_FLAGS,
        "entries": ENTRIES,
        "digests": DIGESTS,
    }
    return SideManifest(**members | changes)


def seal(side: SideManifest) -> bytes:
    return side.seal(master_key=MASTER_KEY, salt=b"s" * 32, volume_id=b"v" * 16)


def opened(data: bytes, **changes: Any) -> SideManifest:
    members: dict[str, Any] = {"master_key": MASTER_KEY, "epoch": 3, "root": side_root(data)}
    return SideManifest.open(data, **members | changes)


def test_what_is_sealed_comes_back() -> None:
    data = seal(made())
    found = opened(data)
    assert found == replace(made(), root=side_root(data))
    assert [bytes(found.digests_of(entry)) for entry in found.entries if isinstance(entry, File)] == [
        DIGESTS,
        b"",
    ]
    assert found.hole_count == 3
    plain = (b"model", b"1" * 32, b"../empty")
    assert not any(word in data for word in plain)


def test_the_digests_are_not_shown() -> None:
    assert "digests" not in repr(made())


@pytest.mark.guarantee("G5")
def test_another_epoch_is_named_first() -> None:
    data = seal(made())
    with pytest.raises(PolicyError, match=r"^side manifest: epoch is 3, want 4$"):
        opened(data, epoch=4, root=b"x" * 32, master_key=b"x" * 32)


@pytest.mark.guarantee("G4")
def test_another_root_and_another_key_are_refused() -> None:
    data = seal(made())
    with pytest.raises(VerifyError, match="root digest is"):
        opened(data, root=b"x" * 32)
    with pytest.raises(VerifyError, match="key commitment does not match"):
        opened(data, master_key=b"x" * 32)
    with pytest.raises(FormatError, match="master key: got 31 bytes"):
        opened(data, master_key=b"x" * 31)


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("pinned", [True, False])
def test_every_cut_and_every_flipped_bit_is_refused(pinned: bool) -> None:
    """Also by a reader who was given the root of what was changed: the tag holds where the root does not."""
    data = seal(made())
    root = side_root(data)
    for length in range(len(data)):
        with pytest.raises(StrongroomError):
            opened(data[:length], root=root if pinned else side_root(data[:length]))
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        with pytest.raises(StrongroomError):
            opened(bytes(changed), root=root if pinned else side_root(bytes(changed)))
    with pytest.raises(StrongroomError):
        opened(data + b"\0")


def test_the_settings_have_to_be_those_of_then() -> None:
    side = made()
    side.check_settings(settings())
    with pytest.raises(VerifyError, match=r"flag PlaintextNames|flag DirIV|flag EMENames"):
        side.check_settings(settings("plaintext-names"))
    with pytest.raises(VerifyError, match="flag AESSIV is not as the side manifest has it"):
        side.check_settings(settings("aes-siv"))
    longer = made(flags=DEFAULT_FLAGS | {Flag.LONG_NAME_MAX}, long_name_max=99)
    with pytest.raises(VerifyError, match="LongNameMax is 100, want 99"):
        longer.check_settings(settings("long-name-max"))


def with_entry(index: int, **changes: Any) -> Callable[[], SideManifest]:
    entries = list(ENTRIES)
    entries[index] = replace(entries[index], **changes)
    return lambda: made(entries=tuple(entries))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: made(epoch=0), r"epoch is 0, want 1\.\."),
        (lambda: made(name=""), "name is ''"),
        (lambda: made(flags=frozenset()), "AES needs GCMIV128"),
        (lambda: made(digests=DIGESTS[1:]), "95 bytes of digests, want 96"),
        (lambda: made(entries=(*ENTRIES, ENTRIES[-1])), "'same' is out of order or there twice"),
        (lambda: made(entries=ENTRIES[1:]), "'d/model' lies in no directory"),
        (lambda: made(entries=(ENTRIES[3], ENTRIES[0])), "out of order"),
        (with_entry(0, path="../d"), "has a part '..'"),
        (with_entry(0, stored="a/b"), "is stored as 'a/b', want a name"),
        (with_entry(0, stored=".."), "is stored as '..', want a name"),
        (with_entry(0, stored="n" * 256), "want a name"),
        (with_entry(3, stored="D"), "'empty' lies where another entry does"),
        (with_entry(0, mode=0o1000), r"mode is 512, want 0\.\.511"),
        (with_entry(0, mtime=-1), "mtime is -1"),
        (with_entry(0, nanos=10**9), "nanos is 1000000000"),
        (with_entry(1, size=1 << 49), "size is 562949953421312"),
        (with_entry(1, size=0), "want a file_id for every file that is not empty"),
        (with_entry(3, file_id=ID), "want a file_id for every file that is not empty"),
        (with_entry(1, file_id=bytes(16)), "file_id is zero or not 16 bytes"),
        (with_entry(1, holes=((3, 2), (5, 1))), "a hole of 1 blocks at block 5 overlaps"),
        (with_entry(1, holes=((3, 0),)), "a hole of 0 blocks"),
        (with_entry(1, holes=((512, 1),)), "a hole of 1 blocks at block 512 overlaps or leaves the file"),
        (with_entry(2, target="/etc/passwd"), "want a relative target"),
        (with_entry(2, target="../../x"), "leaves the tree"),
        (with_entry(2, target="nothing"), "is not in the tree"),
        (with_entry(4, same="d"), "which is no file before it"),
        (with_entry(4, same="zebra"), "which is no file before it"),
    ],
)
def test_what_breaks_a_rule_is_neither_made_nor_read(make: Callable[[], SideManifest], sentence: str) -> None:
    with pytest.raises(FormatError, match=sentence):
        make()


ROW = {
    "type": "file",
    "path": "p",
    "stored": "s",
    "mode": 1,
    "mtime": 1,
    "nanos": 1,
    "size": 1,
    "file_id": ID.hex(),
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"type": "device"}, "type is 'device', want one of"),
        ({"type": 3}, "type is '3'"),
        ({"path": 3}, "path is int, want text"),
        ({"size": True}, "size is bool, want a whole number"),
        ({"size": ...}, "size is NoneType"),
        ({"more": 1}, "unknown member 'more' of a file"),
        ({"target": "x"}, "unknown member 'target' of a file"),
        ({"file_id": "AB" * 16}, "want 32 lowercase hex digits"),
        ({"file_id": "00"}, "want 32 lowercase hex digits"),
        ({"holes": []}, "holes want a list of runs"),
        ({"holes": [[1]]}, "a run of holes wants two whole numbers"),
        ({"holes": [[1, True]]}, "a run of holes wants two whole numbers"),
    ],
)
def test_entries_of_another_shape_are_refused(change: dict[str, Any], sentence: str) -> None:
    row = {key: value for key, value in (ROW | change).items() if value is not ...}
    with pytest.raises(FormatError, match=sentence):
        parse_entry(json.loads(json.dumps(row)))
    with pytest.raises(FormatError, match="entry is list, want an object"):
        parse_entry([])


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"\0", "table is longer than the body"),
        (b"\0\0\0\5{}", "table is longer than the body"),
        (b"\xff\xff\xff\xff" + bytes(9), "table is longer than the body"),
        (b"\0\0\0\2{}", "want exactly the members"),
        (b"\0\0\0\2[]", "want exactly the members"),
        (b"\0\0\0\1{", "not JSON"),
    ],
)
def test_a_body_of_another_shape_is_refused(
    body: bytes, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SideManifest, "_pack_body", lambda _: body)
    with pytest.raises(FormatError, match=sentence):
        opened(seal(made()))


@pytest.mark.parametrize(
    ("member", "value", "sentence"),
    [
        ("flags", ["HKDF", "GCMIV128"], "flags want a sorted list"),
        ("flags", "HKDF", "flags want a sorted list"),
        ("flags", ["Quantum"], "flags want a sorted list"),
        ("name", 3, "name wants text"),
        ("long_name_max", True, "long_name_max a whole number"),
        ("entries", {}, "entries a list"),
    ],
)
def test_members_of_another_kind_are_refused(
    member: str, value: object, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = made()._pack_body()
    length = int.from_bytes(body[:4], "big")
    table = json.dumps(json.loads(body[4 : 4 + length]) | {member: value}).encode()
    changed = len(table).to_bytes(4, "big") + table + body[4 + length :]
    monkeypatch.setattr(SideManifest, "_pack_body", lambda _: changed)
    with pytest.raises(FormatError, match=sentence):
        opened(seal(made()))


def test_seal_wants_fresh_bytes() -> None:
    with pytest.raises(FormatError, match="want a salt of 32 bytes"):
        made().seal(master_key=MASTER_KEY, salt=b"s" * 31, volume_id=b"v" * 16)
