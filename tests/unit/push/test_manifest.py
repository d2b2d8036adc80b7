"""Mirrors strongroom/push/manifest.py: one encoding, the rules of a sealed tree, and one line for everything else."""

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest

from strongroom.errors import FormatError
from strongroom.push.manifest import VERSION, PlainFile, PushManifest
from strongroom.sealed.manifest import MAX_BODY, Directory, InlineFile, SealedFile, Symlink
from strongroom.wire.canonical import pack_json
from tests.fuzz.mutator import mutations


def entropy() -> Callable[[int], bytes]:
    numbers = itertools.count(1)
    return lambda length: next(numbers).to_bytes(length, "big")


def file(path: str, size: int = 3, **changes: Any) -> PlainFile:
    fields: dict[str, Any] = {"path": path, "mode": 0o644, "mtime": 1_700_000_000, "nanos": 5, "size": size}
    return PlainFile(**(fields | {"sha256": sha256(path.encode()).digest()} | changes))


def manifest(*entries: Any, **changes: Any) -> PushManifest:
    fields: dict[str, Any] = {"name": "tiny", "epoch": 3, "entries": entries or ENTRIES}
    return PushManifest(**(fields | changes))


ENTRIES = (
    file("config.json"),
    Symlink(path="latest", mtime=1, nanos=0, target="tokenizer/vocab.txt"),
    file("model.safetensors", 1 << 20),
    Directory(path="tokenizer", mode=0o755, mtime=1, nanos=0),
    file("tokenizer/vocab.txt", 0),
)


def test_packed_and_parsed_it_is_the_same() -> None:
    one = manifest()
    assert PushManifest.parse(one.packed) == one
    assert one.digest == sha256(one.packed).digest()
    assert [entry.path for entry in one.files] == ["config.json", "model.safetensors", "tokenizer/vocab.txt"]


def test_a_manifest_by_hand() -> None:
    """docs/formats/push.md, section 3."""
    one = manifest(file("a", 1, sha256=sha256(b"x").digest(), mtime=0, nanos=0), epoch=1)
    assert one.packed == (
        b'{"entries":[{"mode":420,"mtime":0,"nanos":0,"path":"a","sha256":'
        b'"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","size":1,"type":"file"}],'
        b'"epoch":1,"name":"tiny","version":"strongroom/push/v1"}'
    )


def test_sealed_it_has_fresh_keys_and_no_content_yet() -> None:
    sealed = manifest().sealed(entropy())
    kinds = [InlineFile, Symlink, SealedFile, Directory, InlineFile]
    assert [type(entry) for entry in sealed] == kinds
    large = sealed[2]
    assert isinstance(large, SealedFile)
    assert (large.size, large.sha256) == (1 << 20, sha256(b"model.safetensors").digest())
    assert large.key != large.object_id


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ((file("../x"),), "part '..'"),
        ((file("/x"),), "part ''"),
        ((file("a/b"),), "lies in no directory"),
        ((file("a"), file("a")), "out of order or there twice"),
        ((file("b"), file("a")), "out of order"),
        ((file("a\n"),), "control character"),
        ((file("x" * 256),), "longer than 255"),
        ((file("a", -1),), "size below 0"),
        ((file("a", 1 << 49),), "size is"),
        ((file("a", mode=0o4755),), "mode is"),
        ((file("a", mtime=-1),), "mtime is"),
        ((file("a", nanos=10**9),), "nanos is"),
        ((file("a", sha256=b"short"),), "digest that is not 32 bytes"),
        ((Symlink(path="l", mtime=0, nanos=0, target="/etc/passwd"),), "want a relative target"),
        ((Symlink(path="l", mtime=0, nanos=0, target="../x"),), "leaves the tree"),
        ((Symlink(path="l", mtime=0, nanos=0, target="x"),), "not in the tree"),
    ],
)
def test_what_cannot_be_served_is_refused(entries: Any, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        manifest(*entries)


def test_a_symlink_fooled_by_a_link_on_its_way_is_refused() -> None:
    with pytest.raises(FormatError, match="leaves the tree"):
        manifest(
            Directory(path="d", mode=0o755, mtime=0, nanos=0),
            Symlink(path="d/back", mtime=0, nanos=0, target=".."),
            Symlink(path="z", mtime=0, nanos=0, target="d/back/../x"),
        )


def test_too_many_small_files_are_refused_before_a_byte_came() -> None:
    many = tuple(file(f"{n:05}", 65_535) for n in range(MAX_BODY * 3 // 4 // 65_535 + 1))
    with pytest.raises(FormatError, match="small files and names take"):
        manifest(*many)


@pytest.mark.parametrize("changes", [{"name": ""}, {"name": "a b"}, {"epoch": 0}, {"epoch": 2**53}])
def test_names_and_epochs_have_bounds(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        manifest(**changes)


def raw(change: Callable[[Any], object]) -> bytes:
    value = json.loads(manifest().packed)
    change(value)
    return pack_json(value)


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(version="strongroom/push/v2"),
        lambda v: v.update(more=1),
        lambda v: v.pop("name"),
        lambda v: v.update(epoch=True),
        lambda v: v.update(entries={}),
        lambda v: v["entries"].append(1),
        lambda v: v["entries"][0].update(type="device"),
        lambda v: v["entries"][0].update(type=["file"]),
        lambda v: v["entries"][0].update(key="00"),
        lambda v: v["entries"][0].pop("nanos"),
        lambda v: v["entries"][0].update(size=True),
        lambda v: v["entries"][0].update(size="3"),
        lambda v: v["entries"][0].update(path=3),
        lambda v: v["entries"][0].update(sha256="AB" * 32),
        lambda v: v["entries"][0].update(sha256="ab" * 31),
        lambda v: v["entries"][1].update(target=None),
    ],
)
def test_other_members_are_refused(change: Callable[[Any], object]) -> None:
    with pytest.raises(FormatError, match=r"^push manifest: "):
        PushManifest.parse(raw(change))


@pytest.mark.guarantee("G16")
def test_other_bytes_are_refused() -> None:
    good = manifest().packed
    for length in range(len(good)):
        with pytest.raises(FormatError):
            PushManifest.parse(good[:length])
    for spaced in (good + b" ", good.replace(b":", b": ", 1), b" " + good):
        with pytest.raises(FormatError, match="canonical"):
            PushManifest.parse(spaced)


@pytest.mark.guarantee("G16")
def test_a_flipped_bit_is_another_manifest_or_none() -> None:
    good = manifest()
    for at in range(len(good.packed)):
        for bit in range(8):
            flipped = bytearray(good.packed)
            flipped[at] ^= 1 << bit
            try:
                other = PushManifest.parse(bytes(flipped))
            except FormatError:
                continue
            assert other.digest != good.digest


@pytest.mark.guarantee("G16")
def test_whatever_comes_is_refused_by_an_error_of_ours() -> None:
    for data in mutations([manifest().packed], 400, seed=4):
        with suppress(FormatError):
            assert PushManifest.parse(data).packed == data


def test_the_version_is_in_it() -> None:
    assert json.loads(manifest().packed)["version"] == VERSION
