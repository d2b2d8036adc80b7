"""Mirrors host/collateral/store.py and entry.py: a directory that is believed nothing."""

import contextlib
import os
import stat
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from demo.silicon.mint import CURRENT_TCB, Silicon
from strongroom.errors import FormatError, MachineError, VerifyError
from strongroom.host.collateral.amd import AMDChip, AMDIssuers
from strongroom.host.collateral.entry import MAX_BYTES, VERSION, Entry
from strongroom.host.collateral.store import Store
from strongroom.verify.roots import PRODUCTION, Roots
from strongroom.wire.canonical import pack_json, parse_json
from tests.fakes.vendors import revocation_list


@pytest.fixture
def chip(silicon: Silicon) -> Entry:
    pki = silicon.pki
    vcek, ask, ark = (one.public_bytes(Encoding.DER) for one in (pki.vcek(CURRENT_TCB), pki.ask, pki.ark))
    return Entry(AMDChip("Genoa", pki.chip_id, CURRENT_TCB), {"vcek": vcek, "ask": ask, "ark": ark})


@pytest.fixture
def issuers(silicon: Silicon, chip: Entry, now: datetime) -> Entry:
    crl = revocation_list(silicon.pki.ark.subject, silicon.pki.ark_key, issued=now - timedelta(hours=1))
    return Entry(
        AMDIssuers("Genoa", "vcek"), {"ask": chip.parts["ask"], "ark": chip.parts["ark"], "crl": crl}
    )


def file(store: Store, entry: Entry) -> Path:
    return store.directory / f"{entry.name}.json"


def test_what_is_put_is_taken(store: Store, chip: Entry, roots: Roots, now: datetime) -> None:
    signed = store.put(chip, roots=roots, now=now)
    assert store.take(chip.item, roots=roots, now=now) == chip.parts
    assert store.examine(chip.item, roots=roots, now=now) == signed
    assert store.names() == [chip.name] and list(store.entries()) == [chip]
    assert stat.S_IMODE(file(store, chip).stat().st_mode) == 0o600
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    assert os.listdir(store.directory) == [f"{chip.name}.json"]


def test_the_same_question_has_the_same_name_and_bytes(chip: Entry) -> None:
    again = Entry.parse(chip.pack())
    assert (again, again.name, again.pack()) == (chip, chip.name, chip.pack())
    assert chip.parts["vcek"].hex() not in repr(chip)


def test_what_is_absent_is_said_with_its_remedy(
    store: Store, chip: Entry, roots: Roots, now: datetime
) -> None:
    assert store.find(chip.item) is None and store.examine(chip.item, roots=roots, now=now) is None
    with pytest.raises(VerifyError, match="not among the collateral kept, want `strongroom collateral fill`"):
        store.take(chip.item, roots=roots, now=now)
    with pytest.raises(MachineError, match="no entry"):
        store.read(chip.name)


@pytest.mark.guarantee("G1")
def test_what_is_taken_is_examined_again(
    store: Store, chip: Entry, issuers: Entry, roots: Roots, now: datetime
) -> None:
    store.put(chip, roots=roots, now=now)
    store.put(issuers, roots=roots, now=now)
    with pytest.raises(VerifyError, match=r"AMD Genoa chip .*want the pinned Genoa root"):
        store.take(chip.item, roots=PRODUCTION, now=now)
    with pytest.raises(VerifyError, match=r"AMD Genoa issuers .*crl: expired"):
        store.take(issuers.item, roots=roots, now=now + timedelta(days=31))
    forged = Entry(
        issuers.item,
        {**issuers.parts, "crl": issuers.parts["crl"][:-1] + bytes((issuers.parts["crl"][-1] ^ 1,))},
    )
    file(store, issuers).write_bytes(forged.pack())
    with pytest.raises(VerifyError, match="signature is not"):
        store.take(issuers.item, roots=roots, now=now)


@pytest.mark.guarantee("G1")
def test_the_answer_to_another_question_is_not_taken(
    store: Store, chip: Entry, issuers: Entry, roots: Roots, now: datetime
) -> None:
    store.put(chip, roots=roots, now=now)
    file(store, issuers).write_bytes(file(store, chip).read_bytes())
    with pytest.raises(FormatError, match="answers another question"):
        store.take(issuers.item, roots=roots, now=now)


def test_a_file_that_is_none(store: Store, chip: Entry, roots: Roots, now: datetime, tmp_path: Path) -> None:
    path = file(store, chip)
    path.mkdir()
    with pytest.raises(FormatError, match="not a file"):
        store.find(chip.item)
    path.rmdir()
    (tmp_path / "elsewhere").write_bytes(chip.pack())
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError):
        store.find(chip.item)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FormatError, match="not a file"):
        store.find(chip.item)
    path.unlink()
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(FormatError, match="want at most"):
        store.find(chip.item)
    store.put(chip, roots=roots, now=now)
    assert store.find(chip.item) == chip  # replaced


def test_a_directory_that_is_none(tmp_path: Path, chip: Entry, roots: Roots, now: datetime) -> None:
    with pytest.raises(MachineError, match="no such file or directory"):
        Store(tmp_path / "none").names()
    with pytest.raises(MachineError, match="no such file or directory"):
        Store(tmp_path / "none").put(chip, roots=roots, now=now)
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="file exists"):
        Store.create(tmp_path / "file")


def test_a_failed_write_leaves_what_was_there(
    store: Store, chip: Entry, roots: Roots, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(chip, roots=roots, now=now)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MachineError, match="no space left on device"):
        store.put(chip, roots=roots, now=now)
    assert os.listdir(store.directory) == [f"{chip.name}.json"]


def test_other_files_in_the_directory_are_passed_over(
    store: Store, chip: Entry, roots: Roots, now: datetime
) -> None:
    store.put(chip, roots=roots, now=now)
    (store.directory / "README").touch()
    (store.directory / f".{chip.name}.json.0.new").touch()
    assert store.names() == [chip.name]


def test_every_cut_and_flip_of_an_entry_is_ours(chip: Entry, roots: Roots, now: datetime) -> None:
    good = chip.pack()
    for cut in range(0, len(good), 97):
        with pytest.raises(FormatError):
            Entry.parse(good[:cut])
    for at in range(0, len(good), 53):
        flipped = bytearray(good)
        flipped[at] ^= 1 << at % 8
        with contextlib.suppress(FormatError, VerifyError):
            entry = Entry.parse(bytes(flipped))
            if entry.name == chip.name:  # another question has another file
                entry.item.examine(entry.parts, roots=roots, now=now)
                pytest.fail(f"taken with a flipped bit in byte {at}")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": "strongroom/collateral/v2"}, f"want {VERSION}"),
        ({"kind": "amd-else"}, "want one of amd-chip"),
        ({"kind": []}, "want one of amd-chip"),
        ({"kind": "amd-issuers"}, "want leaf, product"),
        ({"subject": []}, "are not objects"),
        ({"parts": {"ask": 5}}, "part 'ask' is not text"),
        ({"parts": {"ask": "!"}}, "part 'ask': not padded base64"),
        ({"more": 1}, "want kind, parts, subject, version"),
    ],
)
def test_an_entry_of_another_form(chip: Entry, change: dict[str, object], why: str) -> None:
    raw = parse_json(chip.pack(), "entry")
    assert isinstance(raw, dict)
    with pytest.raises(FormatError, match=why):
        Entry.parse(pack_json({**raw, **change}))  # type: ignore[dict-item]


def test_an_entry_has_one_spelling(chip: Entry) -> None:
    for data in (chip.pack() + b"\n", chip.pack().replace(b":", b": ", 1), b"[]", b""):
        with pytest.raises(FormatError):
            Entry.parse(data)
