"""Mirrors host/brokerage/ledger.py: what somebody with the database, and without the root key, can do to the log."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from strongroom.broker.audit import Head
from strongroom.errors import VerifyError
from strongroom.host.brokerage import ledger
from strongroom.host.brokerage.database import FILE
from strongroom.host.brokerage.house import House
from strongroom.wire.canonical import pack_json
from tests.fakes.house import decision, house


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[House]:
    """A log of ten lines: the first says that it was made."""
    with house(tmp_path / "b") as made:
        made.record([decision(f"policy {n}") for n in range(4)])
        for n in range(4, 9):
            made.record([decision(f"policy {n}")])
        yield made


def test_what_is_recorded_is_there_in_order(kept: House) -> None:
    lines = [json.loads(line) for line in ledger.read(kept.database)]
    assert [line["n"] for line in lines] == list(range(1, 11))
    assert [line["rule"] for line in lines[1:]] == [f"policy {n}" for n in range(9)]
    assert kept.verify_audit().number == 10 == ledger.last(kept.database)
    assert [json.loads(line)["n"] for line in ledger.read(kept.database, first=4, count=2)] == [4, 5]


def _forge(db: sqlite3.Connection) -> None:
    """The whole log written anew without its fifth line, every digest right."""
    lines = [line for number, line in db.execute("SELECT * FROM audit ORDER BY number") if number != 5]
    db.execute("DELETE FROM audit")
    at = Head(0, bytes(32))
    for line in lines:
        value = json.loads(line) | {"n": at.number + 1, "previous": at.digest.hex()}
        forged = pack_json(value)
        db.execute("INSERT INTO audit VALUES (?, ?)", (at.number + 1, forged))
        at = at.next(forged)


Tamper = Callable[[sqlite3.Connection], object]
CHANGES: dict[str, Tamper] = {
    "first removed": lambda db: db.execute("DELETE FROM audit WHERE number = 1"),
    "removed": lambda db: db.execute("DELETE FROM audit WHERE number = 5"),
    "last removed": lambda db: db.execute("DELETE FROM audit WHERE number = 10"),
    "all removed": lambda db: db.execute("DELETE FROM audit"),
    "removed and renumbered": lambda db: (
        db.execute("DELETE FROM audit WHERE number = 5"),
        db.execute("UPDATE audit SET number = number - 1 WHERE number > 5"),
    ),
    "edited": lambda db: db.execute(
        "UPDATE audit SET line = CAST(replace(line, 'policy 3', 'policy 4') AS BLOB) WHERE number = 5"
    ),
    "last edited": lambda db: db.execute(
        "UPDATE audit SET line = CAST(replace(line, 'policy 8', 'policy 9') AS BLOB) WHERE number = 10"
    ),
    "reordered": lambda db: (
        db.execute("UPDATE audit SET number = -1 WHERE number = 5"),
        db.execute("UPDATE audit SET number = 5 WHERE number = 6"),
        db.execute("UPDATE audit SET number = 6 WHERE number = -1"),
    ),
    "added": lambda db: db.execute("INSERT INTO audit SELECT 11, line FROM audit WHERE number = 10"),
    "forged": _forge,
    "checkpoint removed": lambda db: db.execute("DELETE FROM meta WHERE name = 'checkpoint'"),
    "checkpoint changed": lambda db: db.execute(
        "UPDATE meta SET value = CAST(value || x'30' AS BLOB) WHERE name = 'checkpoint'"
    ),
}


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_log_is_seen(kept: House, change: Tamper) -> None:
    with sqlite3.connect(kept.directory / FILE) as connection:
        change(connection)
    with pytest.raises(VerifyError, match="audit"):
        kept.verify_audit()


@pytest.mark.parametrize(
    "change", [CHANGES[name] for name in ("last removed", "last edited", "added", "checkpoint changed")]
)
def test_nothing_is_added_to_a_changed_log(kept: House, change: Tamper) -> None:
    with sqlite3.connect(kept.directory / FILE) as connection:
        change(connection)
    with pytest.raises(VerifyError, match="audit"):
        kept.record([decision()])


@pytest.mark.guarantee("G21")
def test_a_log_that_was_put_back_is_known_by_a_kept_head(tmp_path: Path, kept: House) -> None:
    """Nothing inside a file tells that the whole file is an older one."""
    old = tmp_path / "old.db"
    with sqlite3.connect(kept.directory / FILE) as connection, sqlite3.connect(old) as copy:
        connection.backup(copy)
    kept.record([decision("released to somebody")])
    head = kept.verify_audit()
    with sqlite3.connect(old) as copy, sqlite3.connect(kept.directory / FILE) as connection:
        copy.backup(connection)
    with pytest.raises(VerifyError, match="an older or another state was put back"):
        kept.verify_audit()  # it knew a later one
    with House(kept.directory) as again:
        assert again.verify_audit().number == 10
        with pytest.raises(VerifyError, match="its last lines were removed"):
            again.verify_audit([head])


def test_two_processes_add_to_one_chain(kept: House) -> None:
    with House(kept.directory) as other:
        for n in range(10):
            (kept if n % 2 else other).record([decision()])
    assert kept.verify_audit().number == 20
