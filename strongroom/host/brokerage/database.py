"""One SQLite file in the broker's directory. What a transaction wrote is on the disk before it returns.

WAL with synchronous=FULL: a commit is synced, a reader is never held up by a writer, and a process killed at any
point leaves the last commit. Rows that decide are authenticated by the rulebook; secrets in rows are sealed.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from strongroom.errors import ConfigError, MachineError

FILE: Final = "broker.db"
VERSION: Final = 1  # of the schema, in PRAGMA user_version
_APPLICATION: Final = 0x53524B42  # "SRKB", PRAGMA application_id
LOG_PAGES: Final = 800  # after which a server has it read into the file, before SQLite would at a thousand
LOG_BYTES: Final = 32 + 1200 * (24 + 4096)
_PATIENCE_MS: Final = 10_000  # for another process in the middle of a commit
_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE resource (
    uri TEXT PRIMARY KEY,
    policy TEXT,                 -- YAML, or NULL
    rego TEXT,                   -- or NULL; one of the two is there
    last INTEGER NOT NULL        -- the highest number a version of it ever had
) STRICT, WITHOUT ROWID;
CREATE TABLE version (
    uri TEXT NOT NULL REFERENCES resource (uri) ON DELETE CASCADE,
    number INTEGER NOT NULL,     -- 1, 2, ...; not used again while the resource is there
    epoch INTEGER NOT NULL,      -- of the sealed model it opens; of a plain secret, its number
    created TEXT NOT NULL,
    sealed BLOB NOT NULL,        -- AAD: uri, number, epoch
    PRIMARY KEY (uri, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE reference (name TEXT PRIMARY KEY, signer BLOB NOT NULL, file BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE revocation (
    kind TEXT NOT NULL,          -- measurement, or epoch
    subject TEXT NOT NULL,       -- hex, or a URI
    epoch INTEGER NOT NULL,      -- of kind epoch: it and every older one
    reason TEXT NOT NULL,
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;
CREATE TABLE administrator (key BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE nonce (nonce BLOB PRIMARY KEY, expires INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE session (number INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE audit (number INTEGER PRIMARY KEY, line BLOB NOT NULL) STRICT;
"""


class BusyError(MachineError):
    """Somebody else writes now."""


class Database:
    """Two connections to one file: one that reads, one that writes, each used by one thread at a time."""

    def __init__(self, directory: Path) -> None:
        """MachineError when it cannot be opened; ConfigError for a directory that is not ours, or an older one's."""
        path = directory / FILE
        refuse_others(directory)
        self._path = path
        self._read_lock, self._write_lock = threading.Lock(), threading.Lock()
        with _explained(path):
            self._reader, self._writer = _connect(path), _connect(path)
            self._reader.execute("PRAGMA query_only = ON")
            found = self._writer.execute("PRAGMA application_id").fetchone()[0]
            version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if (found, version) != (_APPLICATION, VERSION):
            self.close()
            raise ConfigError(f"{path}: schema {found:x}/{version}, want {_APPLICATION:x}/{VERSION}")

    @classmethod
    def create(cls, directory: Path) -> "Database":
        """An empty one. ConfigError where there is one already."""
        path = directory / FILE
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            raise ConfigError(f"{path}: exists already") from None
        with _explained(path):
            connection = _connect(path)
            connection.executescript(
                f"BEGIN;{_SCHEMA}PRAGMA application_id={_APPLICATION};PRAGMA user_version={VERSION};COMMIT;"
            )
            connection.close()
        return cls(directory)

    def rows(self, query: str, *arguments: Any) -> list[Any]:
        """What is committed now."""
        with self._read_lock, _explained("broker database"):
            return self._reader.execute(query, arguments).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Several queries that see one state."""
        with self._read_lock, _explained("broker database"):
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.execute("ROLLBACK")

    @contextmanager
    def transaction(self, *, wait: bool = True) -> Iterator[sqlite3.Connection]:
        """All of it on the disk, or none of it. Without `wait` a BusyError where somebody else is at it."""
        if not self._write_lock.acquire(blocking=wait):
            raise BusyError("broker database: busy")
        with _released(self._write_lock), _explained("broker database"):
            self._begin(wait=wait)
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def _begin(self, *, wait: bool) -> None:
        try:
            if not wait:
                self._writer.execute("PRAGMA busy_timeout = 0")
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not wait and error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise BusyError("broker database: busy") from None
            raise
        finally:
            if not wait:
                self._writer.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")

    def checkpoint(self) -> None:
        """Read the log of commits into the file, as far as nobody needs it, so that it begins anew."""
        with self._write_lock, _explained("broker database"):
            self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def write_out(self, size: int = LOG_BYTES) -> None:
        """Make the log of commits as long as it gets between two checkpoints: to sync a commit then changes no file's
        size, and waits for nothing else that the filesystem has to write. Readers of the log stop at its last commit,
        and nobody locks the file itself.
        """
        path = Path(f"{self._path}-wal")
        with self._write_lock, _explained(path), _explained_files(path):
            self._writer.execute("BEGIN IMMEDIATE")  # or another process might begin the log anew
            try:
                with path.open("r+b") as log:
                    here = log.seek(0, os.SEEK_END)
                    while 0 < here < size:
                        here += log.write(bytes(min(size - here, 1 << 20)))
                    log.flush()
                    os.fdatasync(log.fileno())
            finally:
                self._writer.execute("ROLLBACK")

    def close(self) -> None:
        for connection in (self._reader, self._writer):
            connection.close()


def refuse_others(directory: Path) -> None:
    """ConfigError unless this is a broker directory of this version, with a sentence that says what to do."""
    if (directory / FILE).is_file():
        return
    if (directory / "resources").is_dir():
        count = sum(1 for _ in (directory / "resources").glob("*/*/*/payload"))
        raise ConfigError(
            f"{directory}: holds {count} resources as files, of a version before 0.2: make a new directory with "
            "`strongroom broker init`, `put` each payload there with its policy.yaml, and serve with "
            f"--tls-cert and --tls-key of {directory} to keep its identity"
        )
    raise ConfigError(f"{directory}: not a broker directory, want one made by `strongroom broker init`")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_PATIENCE_MS / 1000, isolation_level=None, check_same_thread=False
    )
    for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute("PRAGMA secure_delete = ON")  # a deleted secret is overwritten, sealed as it is
    return connection


@contextmanager
def _released(lock: threading.Lock) -> Iterator[None]:
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _explained_files(subject: object) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(f"{subject}: {(error.strerror or 'cannot be written').lower()}") from error


@contextmanager
def _explained(subject: object) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise MachineError(f"{subject}: {str(error).lower()}") from error
