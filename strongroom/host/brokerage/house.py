"""An open broker directory: what is in it, and every way it is changed.

    DIR/broker.db       everything, see database.py
    DIR/root.key        the root key, unless it is somewhere else (root.py)
    DIR/tls.crt, .key   who the broker is to guests

Several processes may have it open: a command changes it while the server answers, and the server's next answer
follows the change. Whatever changes something says so in the audit log, in the same transaction.
"""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from strongroom.broker.audit import START, Audit, Head, Outcome
from strongroom.broker.resource import ResourceURI
from strongroom.errors import ConfigError, MachineError, VerifyError
from strongroom.host.brokerage import ledger, rulebook
from strongroom.host.brokerage.database import Database
from strongroom.host.brokerage.root import DEFAULT, parse_root
from strongroom.host.brokerage.rulebook import Rulebook, Version
from strongroom.host.brokerage.sealing import Seal
from strongroom.wire.framing import enc

MAX_PAYLOAD: Final = 64 << 10  # bytes
_ROOT: Final = "root"
_ROOT_ID: Final = "root_id"
_TOKEN_KEY: Final = "token_key"
_LOCK: Final = "serve.lock"


class House:
    """One broker's keys and rules. A context manager."""

    def __init__(self, directory: Path) -> None:
        """ConfigError for a directory that is not one; VerifyError when its root key is another's."""
        self.directory = directory
        self.database = Database(directory)
        self._guard = threading.Lock()
        self._book = rulebook.EMPTY
        try:
            self._seal = self._opened()
            self.rules()
        except BaseException:
            self.database.close()
            raise

    @classmethod
    def create(cls, directory: Path, now: datetime, *, root: str = DEFAULT, who: str = "init") -> Self:
        """A new, empty house, and its root key. ConfigError where there is one already."""
        source = parse_root(root, directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        except OSError as error:
            raise MachineError(f"{directory}: {(error.strerror or 'cannot be made').lower()}") from error
        if source.taken():
            raise ConfigError(f"{directory}: a key of {root} exists already, and may be another broker's")
        if source.unsettled():
            source.settle(staged=False)  # of a house that was never made
        seal = Seal(source.stage())
        database = Database.create(directory)
        with database.transaction() as connection:
            for name, value in ((_ROOT, root.encode()), (_ROOT_ID, seal.id), (rulebook.SERIAL, b"0")):
                connection.execute("INSERT INTO meta VALUES (?, ?)", (name, value))
            _write_token_key(connection, seal)
            ledger.write_checkpoint(connection, seal, START)
            rulebook.authenticate(connection, seal)
            made = Audit(
                time=now, peer=who, outcome=Outcome.ADMINISTERED, rule=f"made, with root key of {root}"
            )
            ledger.append(connection, seal, [made])
        database.close()
        return cls(directory)  # which settles its root key

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()

    # What decides.

    def rules(self) -> Rulebook:
        """The rules as they are now."""
        with self._guard, self.database.snapshot() as connection:
            if rulebook.read_serial(connection) != self._book.serial:
                self._follow(connection)
                self._book = rulebook.load(connection, self._seal)
            return self._book

    def secret(self, uri: ResourceURI, version: Version) -> bytes:
        """The content of one version. VerifyError when it is not what was put there."""
        query = "SELECT sealed FROM version WHERE uri = ? AND number = ?"
        with self._guard, self.database.snapshot() as connection:
            self._follow(connection)
            row = connection.execute(query, (str(uri), version.number)).fetchone()
            if row is None:
                raise VerifyError(f"{uri}: version {version.number} is not there any more")
            return self._seal.open("resource", _context(uri, version.number, version.epoch), row[0])

    # What changes it.

    @contextmanager
    def change(self, audit: Callable[[str], Audit]) -> Iterator["Change"]:
        """One transaction; what was said of it is in the audit log when it is, and then in `Change.lines`."""
        with self.database.transaction() as connection:
            seal = self._following(connection)
            change = Change(connection, seal, rulebook.load(connection, seal))
            yield change
            if change.changed:
                rulebook.authenticate(connection, seal)
            lines = ledger.append(connection, seal, [audit(one) for one in change.said])
        change.lines += lines

    def record(self, audits: Sequence[Audit]) -> list[bytes]:
        """The lines of these decisions, on the disk."""
        with self.database.transaction() as connection:
            return ledger.append(connection, self._following(connection), audits)

    def rotate_root(self, audit: Callable[[str], Audit], root: str | None = None) -> list[bytes]:
        """Seal everything anew under a new root key, and destroy the old one; the lines that say so.

        The old key's file stays where the new key comes from elsewhere: it opens nothing but older copies.
        """
        with self.database.transaction() as connection:
            old = self._following(connection)
            self._settle(connection)
            rulebook.load(connection, old)
            spec = root or _meta(connection, _ROOT).decode()
            new = Seal(parse_root(spec, self.directory).stage())
            if new.id == old.id:
                raise ConfigError(f"root key: {spec} holds the key in use, want a new one")
            _reseal(connection, old, new)
            ledger.write_checkpoint(connection, new, ledger.checkpoint(connection, old))
            for name, value in ((_ROOT, spec.encode()), (_ROOT_ID, new.id)):
                connection.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))
            rulebook.authenticate(connection, new)
            lines = ledger.append(connection, new, [audit(f"root key replaced, now of {spec}")])
        with self._guard:
            self._seal = new
        with self.database.transaction() as connection:
            self._settle(connection)
        return lines

    # What a server keeps from one process to the next.

    def token_key(self) -> ec.EllipticCurvePrivateKey:
        """The key that signs tokens."""
        with self._guard, self.database.snapshot() as connection:
            self._follow(connection)
            return _read_token_key(connection, self._seal)

    def keep_sessions(self, sessions: Sequence[bytes]) -> None:
        """Seal a server's open sessions for the next one."""
        with self.database.transaction() as connection:
            seal = self._following(connection)
            connection.execute("DELETE FROM session")
            connection.executemany(
                "INSERT INTO session (sealed) VALUES (?)",
                [(seal.seal("session", b"", one),) for one in sessions],
            )

    def take_sessions(self) -> list[bytes]:
        """What was kept, once: a session never goes on twice."""
        with self.database.transaction() as connection:
            seal = self._following(connection)
            rows = connection.execute("SELECT sealed FROM session ORDER BY number").fetchall()
            connection.execute("DELETE FROM session")
            return [seal.open("session", b"", sealed) for (sealed,) in rows]

    @contextmanager
    def serving(self) -> Iterator[None]:
        """One server at a time: sessions live in one process. MachineError for a second."""
        descriptor = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise MachineError(f"{self.directory}: another broker serves it already") from None
        try:
            yield
        finally:
            os.close(descriptor)

    def verify_audit(self, kept: Iterable[Head] = ()) -> Head:
        """The head of the audit log. VerifyError at the first line that is not as it was written."""
        with self._guard, self.database.snapshot() as connection:
            self._follow(connection)
            seal = self._seal
        return ledger.verify(self.database, seal, kept)

    def _following(self, connection: sqlite3.Connection) -> Seal:
        with self._guard:
            self._follow(connection)
            return self._seal

    def _follow(self, connection: sqlite3.Connection) -> None:
        """Take the root key again where another process replaced it."""
        if _meta(connection, _ROOT_ID) != self._seal.id:
            self._seal = self._unlocked(connection)

    def _opened(self) -> Seal:
        with self.database.snapshot() as connection:
            seal = self._unlocked(connection)
            source = parse_root(_meta(connection, _ROOT).decode(), self.directory)
        if source.unsettled():
            with self.database.transaction() as connection:
                self._settle(connection)
        return seal

    def _unlocked(self, connection: sqlite3.Connection) -> Seal:
        spec, wanted = _meta(connection, _ROOT).decode(), _meta(connection, _ROOT_ID)
        for found in parse_root(spec, self.directory).load():
            if (seal := Seal(found.key)).id == wanted:
                return seal
        raise VerifyError(f"{self.directory}: the key of {spec} is not the one it was sealed under")

    def _settle(self, connection: sqlite3.Connection) -> None:
        """Leave one root key, the one in use. Only in a transaction: two rotations must not cross."""
        source = parse_root(_meta(connection, _ROOT).decode(), self.directory)
        wanted = _meta(connection, _ROOT_ID)
        used = [found for found in source.load() if Seal(found.key).id == wanted]
        if not used:
            raise VerifyError(f"{self.directory}: the key of {source} is not the one it was sealed under")
        source.settle(staged=used[0].staged)


class Change:
    """A transaction in progress, and the rules before it."""

    def __init__(self, connection: sqlite3.Connection, seal: Seal, rules: Rulebook) -> None:
        self.connection = connection
        self.rules = rules
        self.changed = False
        self.said: list[str] = []
        self.lines: list[bytes] = []  # of the audit log, once it is done
        self._seal = seal

    def say(self, what: str, *, changed: bool = True) -> None:
        """What the audit log will hold of it."""
        self.said.append(what)
        self.changed = self.changed or changed

    def add_version(self, uri: ResourceURI, version: Version, payload: bytes) -> None:
        sealed = self._seal.seal("resource", _context(uri, version.number, version.epoch), payload)
        self.connection.execute(
            "INSERT INTO version VALUES (?, ?, ?, ?, ?)",
            (str(uri), version.number, version.epoch, version.created, sealed),
        )


def _meta(connection: sqlite3.Connection, name: str) -> bytes:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise VerifyError(f"broker database: it has no {name}, it was not made whole")
    return bytes(row[0])


def _context(uri: ResourceURI, number: int, epoch: int) -> bytes:
    return enc(str(uri).encode()) + number.to_bytes(8, "big") + epoch.to_bytes(8, "big")


def _reseal(connection: sqlite3.Connection, old: Seal, new: Seal) -> None:
    for text, number, epoch, sealed in connection.execute(
        "SELECT uri, number, epoch, sealed FROM version"
    ).fetchall():
        context = _context(ResourceURI.parse(text), number, epoch)
        again = new.seal("resource", context, old.open("resource", context, sealed))
        connection.execute(
            "UPDATE version SET sealed = ? WHERE uri = ? AND number = ?", (again, text, number)
        )
    for number, sealed in connection.execute("SELECT number, sealed FROM session").fetchall():
        again = new.seal("session", b"", old.open("session", b"", sealed))
        connection.execute("UPDATE session SET sealed = ? WHERE number = ?", (again, number))
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (_TOKEN_KEY,)).fetchone()
    again = new.seal("token key", b"", old.open("token key", b"", row[0]))
    connection.execute("UPDATE meta SET value = ? WHERE name = ?", (again, _TOKEN_KEY))


def _write_token_key(connection: sqlite3.Connection, seal: Seal) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    raw = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    sealed = seal.seal("token key", b"", raw)
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_TOKEN_KEY, sealed))


def _read_token_key(connection: sqlite3.Connection, seal: Seal) -> ec.EllipticCurvePrivateKey:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (_TOKEN_KEY,)).fetchone()
    key = load_der_private_key(seal.open("token key", b"", row[0]), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise VerifyError("broker: its token key is not an EC key")
    return key
