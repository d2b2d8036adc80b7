"""Mirrors host/brokerage/database.py."""

import sqlite3
from pathlib import Path

import pytest

from strongroom.errors import ConfigError, MachineError
from strongroom.host.brokerage.database import FILE, LOG_BYTES, BusyError, Database


def test_every_commit_is_synced(tmp_path: Path) -> None:
    database = Database.create(tmp_path)
    with database.transaction() as connection:
        settings = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    database.close()


def test_a_transaction_is_whole_or_not_there(tmp_path: Path) -> None:
    database = Database.create(tmp_path)

    def fails() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO meta VALUES ('a', x'00')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert database.rows("SELECT * FROM meta") == []
    with database.transaction() as connection:
        connection.execute("INSERT INTO meta VALUES ('a', x'00')")
    assert database.rows("SELECT * FROM meta") == [("a", b"\0")]
    database.close()


def test_what_reads_does_not_write(tmp_path: Path) -> None:
    database = Database.create(tmp_path)
    with pytest.raises(MachineError, match="readonly"):
        database.rows("DELETE FROM meta")
    database.close()


def test_it_is_made_once(tmp_path: Path) -> None:
    Database.create(tmp_path).close()
    with pytest.raises(ConfigError, match="exists already"):
        Database.create(tmp_path)


def test_a_directory_of_files_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "resources/default/model/llama"
    folder.mkdir(parents=True)
    (folder / "payload").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"holds 1 resources as files.*strongroom broker init.*--tls-cert"):
        Database(tmp_path)
    assert not (tmp_path / FILE).exists()


def test_another_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a broker directory"):
        Database(tmp_path)
    sqlite3.connect(tmp_path / FILE).close()
    with pytest.raises(ConfigError, match="schema 0/0, want"):
        Database(tmp_path)
    (tmp_path / FILE).write_bytes(b"not a database at all, but long enough to look at" * 100)
    with pytest.raises(MachineError, match="not a database"):
        Database(tmp_path)


def test_a_log_that_was_written_out_loses_and_adds_nothing(tmp_path: Path) -> None:
    """Behind the last commit are zeros; whoever opens it after a kill reads up to there."""
    database = Database.create(tmp_path)
    with database.transaction() as connection:
        connection.execute("INSERT INTO meta VALUES ('before', x'00')")
    database.write_out()
    log = tmp_path / f"{FILE}-wal"
    assert log.stat().st_size == LOG_BYTES
    with database.transaction() as connection:
        connection.execute("INSERT INTO meta VALUES ('after', x'01')")
    assert log.stat().st_size == LOG_BYTES
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in (FILE, f"{FILE}-wal"):  # as a machine that lost its power has them
        (killed / name).write_bytes((tmp_path / name).read_bytes())
    again = Database(killed)
    assert again.rows("SELECT name FROM meta ORDER BY name") == [("after",), ("before",)]
    assert again.rows("PRAGMA integrity_check") == [("ok",)]
    again.close()
    database.write_out()
    database.checkpoint()
    assert database.rows("SELECT count(*) FROM meta") == [(2,)]
    database.close()


def test_who_does_not_wait_is_told_at_once(tmp_path: Path) -> None:
    database, other = Database.create(tmp_path), Database(tmp_path)
    for holder in (database, other):
        with holder.transaction(), pytest.raises(BusyError), database.transaction(wait=False):
            pass
    with database.transaction(wait=False) as connection:
        connection.execute("INSERT INTO meta VALUES ('a', x'00')")
    assert other.rows("SELECT name FROM meta") == [("a",)]
    other.close()
    database.close()
