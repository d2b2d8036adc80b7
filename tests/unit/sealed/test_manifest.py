"""Mirrors strongroom/sealed/manifest.py."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from strongroom.errors import FormatError
from strongroom.sealed.manifest import (
    INLINE_BELOW,
    MAX_BODY,
    Directory,
    Entry,
    InlineFile,
    Manifest,
    SealedFile,
    Symlink,
    check_name,
    pack_entry,
)
from strongroom.wire.canonical import pack_json

FOLDER = Directory(path="d", mode=0o755, mtime=5)
SMALL = InlineFile(path="d/small", mode=0o644, mtime=5, content=b"hello")
LARGE = SealedFile(
    path="large",
    mode=0o600,
    mtime=5,
    nanos=123_456_789,
    size=INLINE_BELOW,
    object_id=b"o" * 16,
    key=b"secret-key" + b"k" * 22,
    sha256=b"s" * 32,
)
LINK = Symlink(path="link", mtime=5, target="d/small")
MANIFEST = Manifest(name="org/model-7b", entries=(FOLDER, SMALL, LARGE, LINK), tags_sha256=b"t" * 32)


def test_round_trip() -> None:
    assert Manifest.parse(MANIFEST.pack()) == MANIFEST
    assert MANIFEST.objects == (LARGE,)
    assert LARGE.object_name == "6f" * 16
    assert LARGE.mtime_ns == 5_123_456_789 and FOLDER.mtime_ns == 5_000_000_000


def test_a_digest_may_be_left_out() -> None:
    without = with_entries(second(sha256=None))
    assert b"sha256" not in without.pack().replace(b"tags_sha256", b"")
    assert Manifest.parse(without.pack()) == without


def test_an_empty_tree_is_a_tree() -> None:
    empty = Manifest(name="m", entries=(), tags_sha256=bytes(32))
    assert Manifest.parse(empty.pack()) == empty


def test_its_size_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which leaves room for a hundred thousand small files, and for more objects than that."""
    path = "folder-000/" + "x" * 40
    small = InlineFile(path=path, mode=0o644, mtime=1_700_000_000, nanos=999_999_999, content=bytes(1000))
    object_ = replace(LARGE, path=path, mtime=1_700_000_000)
    for entry in (small, object_):
        assert 100_000 * len(pack_json(pack_entry(entry))) < MAX_BODY
    data = MANIFEST.pack()
    monkeypatch.setattr("strongroom.sealed.manifest.MAX_BODY", len(data))
    assert Manifest.parse(data) == MANIFEST
    monkeypatch.setattr("strongroom.sealed.manifest.MAX_BODY", len(data) - 1)
    with pytest.raises(FormatError, match=f"^manifest: {len(data)} bytes, want at most {len(data) - 1}"):
        Manifest.parse(data)
    with pytest.raises(FormatError, match="too many small files"):
        MANIFEST.pack()


def changed(change: Callable[[Any], None]) -> bytes:
    raw = json.loads(MANIFEST.pack())
    change(raw)
    return json.dumps(raw).encode()


def entry(number: int, **members: Any) -> Callable[[Any], None]:
    return lambda raw: raw["entries"][number].update(members)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda raw: raw.update(extra=1), "unknown member 'extra'"),
        (lambda raw: raw.pop("name"), "name is NoneType, want text"),
        (lambda raw: raw.update(name="a b"), "name is 'a b'"),
        (lambda raw: raw.update(entries={}), "entries is dict, want a list"),
        (lambda raw: raw.update(tags_sha256="00"), "tags_sha256 is not 64 lowercase hex digits"),
        (lambda raw: raw.update(tags_sha256="AA" * 32), "not 64 lowercase hex digits"),
        (lambda raw: raw["entries"].append(7), "got int, want an object"),
        (lambda raw: raw["entries"].reverse(), "out of order|lies in no directory"),
        (lambda raw: raw["entries"].append(raw["entries"][-1]), "there twice"),
        (lambda raw: raw["entries"].pop(0), "lies in no directory"),
        (entry(0, type="fifo"), "type is 'fifo'"),
        (entry(0, type=None), "type is NoneType"),
        (entry(0, size=4), "unknown member 'size'"),
        (entry(0, mode=0o4755), "mode is 2541, want 0..511"),
        (entry(0, mode=True), "mode is bool, want a whole number"),
        (entry(0, mtime=-1), "mtime is -1"),
        (entry(0, nanos=-1), "nanos is -1"),
        (entry(3, nanos=10**9), "nanos is 1000000000"),
        (lambda raw: raw["entries"][1].pop("nanos"), "nanos is NoneType, want a whole number"),
        (entry(0, path=".."), "has a part '..'"),
        (entry(1, content="aGVsbG8="), "base64url"),
        (entry(1, content="A" * 4 * INLINE_BELOW), "inline size is 196608"),
        (entry(2, size=INLINE_BELOW - 1), "size is 65535"),
        (entry(2, size=(1 << 48) + 1), "size is"),
        (entry(2, object_id="../" + "0" * 29), "object_id is not 32 lowercase hex digits"),
        (entry(2, sha256=None), "sha256 is NoneType"),
        (entry(2, sha256="00"), "sha256 is not 64 lowercase hex digits"),
        (entry(2, key="00" * 31), "key is not 64 lowercase hex digits"),
        (entry(2, key="AA" * 32), "key is not 64 lowercase hex digits"),
        (lambda raw: raw["entries"][2].pop("key"), "key is NoneType, want text"),
        (entry(2, file_id="00" * 16), "unknown member 'file_id'"),
        (entry(1, key="00" * 32), "unknown member 'key'"),
        (entry(3, target="../out"), "leaves the tree"),
        (entry(3, target="x" * 4096), "target of 4096 bytes"),
    ],
)
def test_rejects_and_says_why(change: Callable[[Any], None], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        Manifest.parse(changed(change))


def with_entries(*entries: Entry) -> Manifest:
    return Manifest(name="m", entries=entries, tags_sha256=bytes(32))


def second(**members: Any) -> SealedFile:
    return replace(LARGE, **{"path": "large-2", "object_id": b"O" * 16, "key": b"K" * 32} | members)


@pytest.mark.guarantee("G4")
def test_no_two_files_share_an_object_or_a_key() -> None:
    with_entries(LARGE, second())
    with pytest.raises(FormatError, match=r"^manifest: object id is there twice$"):
        with_entries(LARGE, second(object_id=LARGE.object_id))
    with pytest.raises(FormatError, match=r"^manifest: key of an object is there twice$"):
        with_entries(LARGE, second(key=LARGE.key))


def test_a_file_is_no_parent() -> None:
    inside = InlineFile(path="large/x", mode=0, mtime=0, content=b"")
    with pytest.raises(FormatError, match="lies in no directory"):
        with_entries(LARGE, inside)


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a\n", "ü", "a;b"])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(FormatError, match="name is"):
        check_name(name)


@pytest.mark.guarantee("G11")
def test_content_and_keys_stay_out_of_repr() -> None:
    assert "hello" not in repr(MANIFEST)
    assert "secret-key" not in repr(MANIFEST) and "key" not in repr(LARGE)


@pytest.mark.guarantee("G11")
@pytest.mark.parametrize("member", [{"key": LARGE.key.hex() + "0"}, {"key": LARGE.key.hex().upper()}])
def test_no_error_shows_a_key(member: dict[str, str]) -> None:
    with pytest.raises(FormatError) as caught:
        Manifest.parse(changed(entry(2, **member)))
    assert LARGE.key.hex()[:8] not in str(caught.value).lower()
