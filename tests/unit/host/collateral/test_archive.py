"""Mirrors host/collateral/archive.py: what comes out of a file is examined like what comes off the network."""

import io
import tarfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from demo.silicon.mint import Silicon
from strongroom.errors import FormatError, VerifyError
from strongroom.host.collateral import archive
from strongroom.host.collateral.amd import AMDIssuers
from strongroom.host.collateral.archive import pack_archive, take_archive
from strongroom.host.collateral.entry import Entry
from strongroom.host.collateral.store import Store
from strongroom.verify.roots import PRODUCTION, Roots
from tests.unit.host.collateral.test_amd import issuers_parts

ITEM = AMDIssuers("Genoa", "vcek")


@pytest.fixture
def entry(silicon: Silicon, now: datetime) -> Entry:
    return Entry(ITEM, issuers_parts(silicon, now))


@pytest.fixture
def packed(store: Store, entry: Entry, roots: Roots, now: datetime) -> bytes:
    store.put(entry, roots=roots, now=now)
    return pack_archive(store)


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "other")


def test_a_store_is_carried_to_another(
    store: Store, packed: bytes, other: Store, entry: Entry, roots: Roots, now: datetime
) -> None:
    (taken,) = take_archive(packed, other, roots=roots, now=now)
    assert taken.error is None and taken.signed and taken.name == entry.name
    assert list(other.entries()) == list(store.entries())
    assert pack_archive(other) == packed


@pytest.mark.guarantee("G1")
def test_what_is_forged_expired_or_older_is_refused(
    packed: bytes, other: Store, silicon: Silicon, roots: Roots, now: datetime
) -> None:
    for which, at, why in (
        (PRODUCTION, now, "want the pinned Genoa root"),
        (roots, now + timedelta(days=31), "expired"),
    ):
        (taken,) = take_archive(packed, other, roots=which, now=at)
        assert taken.signed is None and why in str(taken.error) and isinstance(taken.error, VerifyError)
        assert other.names() == []
    newer = Entry(ITEM, issuers_parts(silicon, now, issued=now))
    other.put(newer, roots=roots, now=now)
    (taken,) = take_archive(packed, other, roots=roots, now=now)
    assert "older than what is kept" in str(taken.error) and other.find(ITEM) == newer


def tar(*members: tuple[str, bytes], change: Callable[[tarfile.TarInfo], object] = lambda _: None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.PAX_FORMAT) as file:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            change(member)
            file.addfile(member, io.BytesIO(content))
    return out.getvalue()


def test_other_archives_are_refused_whole(entry: Entry, other: Store, roots: Roots, now: datetime) -> None:
    good = (f"{entry.name}.json", entry.pack())

    def link(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0

    for data, why in (
        (b"", "not a tar file"),
        (b"hello" * 999, "not a tar file"),
        (tar(("../../x.json", entry.pack())), "answers another question"),
        (tar((f"/{good[0]}", entry.pack())), "answers another question"),
        (tar(good, good), "there twice"),
        (tar(good, ("x", b"{}")), "member 'x'"),
        (tar(good, ("empty", b"")), "is no file of"),
        (tar(good, change=link), "is no file of"),
        (tar((good[0] + "x" * 200, entry.pack())), "is no file of"),  # a long name takes a pax header
        (tar((good[0], b" " * ((1 << 20) + 1))), "is no file of"),
    ):
        with pytest.raises(FormatError, match=why):
            take_archive(data, other, roots=roots, now=now)
    assert other.names() == []


def test_an_archive_is_bounded(
    packed: bytes, other: Store, roots: Roots, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 0)
    with pytest.raises(FormatError, match="more than 0 entries"):
        take_archive(packed, other, roots=roots, now=now)
    monkeypatch.setattr(archive, "MAX_ARCHIVE", len(packed) - 1)
    with pytest.raises(FormatError, match="longer than"):
        take_archive(packed, other, roots=roots, now=now)


def test_every_cut_of_an_archive_is_ours(
    packed: bytes, entry: Entry, other: Store, roots: Roots, now: datetime
) -> None:
    whole = 512 + len(entry.pack())  # behind it there is only padding
    for cut in range(0, len(packed), 211):
        try:
            taken = take_archive(packed[:cut], other, roots=roots, now=now)
        except FormatError:
            continue
        assert cut >= whole and [one.error for one in taken] == [None]
