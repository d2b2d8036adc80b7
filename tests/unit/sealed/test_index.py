"""Mirrors sealed/index.py."""

import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest

from strongroom.errors import FormatError
from strongroom.sealed.index import MAX_INDEX, Index, is_name

INDEX = Index(
    root=b"r" * 32,
    manifest_size=1000,
    tags_sha256=b"t" * 32,
    tags_size=48,
    objects={"0" * 32: 300_000, "a" * 32: 70_000},
)


def test_there_and_back() -> None:
    assert Index.parse(INDEX.pack()) == INDEX
    assert INDEX.total == 371_048 and INDEX.tags_name == f"tags/{b't'.hex() * 32}"


def test_every_cut_and_every_flip_is_refused_or_another_index() -> None:
    data = INDEX.pack()
    for end in range(len(data)):
        with pytest.raises(FormatError):
            Index.parse(data[:end])
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with suppress(FormatError):
            assert Index.parse(bytes(changed)).pack() == bytes(changed) != data


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("version", "strongroom/sealed-index/v2"),
        ("manifest", None),
        ("manifest", {"sha256": "0" * 63, "size": 1}),
        ("manifest", {"sha256": "0" * 64, "size": True}),
        ("manifest", {"sha256": "0" * 64, "size": -1}),
        ("manifest", {"sha256": "0" * 64, "size": 1 << 40}),
        ("manifest", {"sha256": "0" * 64, "size": 1, "more": 1}),
        ("tags", {"sha256": 1, "size": 1}),
        ("objects", []),
        ("objects", {"../../etc/passwd": 1}),
        ("objects", {"0" * 31 + "G": 1}),
        ("objects", {"0" * 32: (1 << 48) + 1}),
        ("objects", {"0" * 32: "1"}),
        ("more", 1),
    ],
)
def test_what_is_not_an_index(member: str, value: Any) -> None:
    raw = json.loads(INDEX.pack()) | {member: value}
    with pytest.raises(FormatError, match="index: "):
        Index.parse(json.dumps(raw, separators=(",", ":"), sort_keys=True).encode())


def test_another_spelling_is_refused() -> None:
    with pytest.raises(FormatError, match="not in canonical form"):
        Index.parse(INDEX.pack() + b"\n")


def test_names_lead_nowhere_else() -> None:
    for name in ("MANIFEST", "INDEX", f"tags/{'0' * 64}", f"objects/{'f' * 32}"):
        assert is_name(name)
    for name in (
        "",
        "TAGS",
        "objects",
        "objects/",
        f"objects/{'F' * 32}",
        f"/objects/{'0' * 32}",
        "../MANIFEST",
    ):
        assert not is_name(name) and not is_name(f"{name}\n")
    assert not is_name("MANIFEST\n") and not is_name(f"objects/{'0' * 32}\n")


def test_the_largest_there_can_be_fits() -> None:
    most = {f"{number:032x}": 1 << 48 for number in range(1000)}
    one = Index(root=b"r" * 32, manifest_size=1, tags_sha256=b"t" * 32, tags_size=1, objects=most)
    assert Index.parse(one.pack()) == one
    assert len(one.pack()) < 51 * len(most) + 512  # as MAX_INDEX has it
    none = Index(root=b"r" * 32, manifest_size=1, tags_sha256=b"t" * 32, tags_size=1, objects={})
    assert Index.parse(none.pack()) == none


def test_objects_stand_in_order_and_once() -> None:
    data = INDEX.pack()
    first, second = b'"' + b"0" * 32 + b'":300000', b'"' + b"a" * 32 + b'":70000'
    together = first + b"," + second
    assert together in data
    for other in (second + b"," + first, first + b"," + first, together + b",", first + second, b"," + first):
        with pytest.raises(FormatError, match="index: "):
            Index.parse(data.replace(together, other))


def test_what_a_store_makes_up_costs_nothing() -> None:
    """It is not parsed as JSON: a list of lists would take thirty times its length."""
    tracemalloc.start()
    for data in (b"[" + b"[]," * 1_000_000 + b"0]", INDEX.pack()[:90] + b"[" * 3_000_000):
        with pytest.raises(FormatError, match="not in canonical form"):
            Index.parse(data)
    with pytest.raises(FormatError, match=f"want at most {MAX_INDEX}"):
        Index.parse(bytes(MAX_INDEX + 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * MAX_INDEX  # the made-up bytes themselves
