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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
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
from strongroom.host.brokerage.database import FILE, Database
from strongroom.host.brokerage.ledger import Checkpoint
from strongroom.host.brokerage.root import DEFAULT, Root, parse_root
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
        self._book, self._book_mac = rulebook.EMPTY, b""
        self._latest: Checkpoint | None = None  # that we saw: what comes before it is refused
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
        if (directory / FILE).exists():
            raise ConfigError(f"{directory / FILE}: exists already")
        if source.place == parse_root(DEFAULT, directory).place and source.unsettled() and not source.taken():
            source.settle(staged=False)  # in the directory itself: of a house that was never made
        _refuse_occupied(source)
        seal = Seal(source.stage())
        database = Database.create(directory)
        with database.transaction() as connection:
            for name, value in ((_ROOT, root.encode()), (_ROOT_ID, seal.id)):
                connection.execute("INSERT INTO meta VALUES (?, ?)", (name, value))
            _write_token_key(connection, seal)
            rules = rulebook.mac(connection, seal, 1)
            made = Audit(
                time=now, peer=who, outcome=Outcome.ADMINISTERED, rule=f"made, with root key of {root}"
            )
            begun = Checkpoint(head=START, serial=1, rules=rules, starts=0)
            ledger.append(connection, seal, begun, [made])
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
            return self._rules(connection)

    def secret(self, uri: ResourceURI, version: Version) -> bytes:
        """The content of one version. VerifyError when it is not what was put there."""
        query = "SELECT sealed FROM version WHERE uri = ? AND number = ?"
        with self._guard, self.database.snapshot() as connection:
            resource = self._rules(connection).resources.get(uri)  # a new root key seals it anew
            known = None if resource is None else resource.find(version.number)
            row = connection.execute(query, (str(uri), version.number)).fetchone()
            if known is None or row is None:
                raise VerifyError(f"{uri}: version {version.number} is not there any more")
            if (known.epoch, known.created) != (version.epoch, version.created) or (
                known.sealed_sha256 != sha256(row[0]).digest()
            ):
                raise VerifyError(f"{uri}: version {version.number} is another than the one that was judged")
            return self._seal.open("resource", _context(uri, version.number, version.epoch), row[0])

    # What changes it.

    @contextmanager
    def change(self, audit: Callable[[str], Audit]) -> Iterator["Change"]:
        """One transaction; what was said of it is in the audit log when it is, and then in `Change.lines`."""
        with self._writing() as on:
            change = Change(on.connection, on.seal, rulebook.load(on.connection, on.seal, on.at))
            yield change
            at = on.at
            if change.changed:
                rules = rulebook.mac(on.connection, on.seal, at.serial + 1)
                at = replace(at, serial=at.serial + 1, rules=rules)
            lines = ledger.append(on.connection, on.seal, at, [audit(one) for one in change.said])
        change.lines += lines

    def record(self, audits: Sequence[Audit]) -> list[bytes]:
        """The lines of these decisions, on the disk."""
        with self._writing() as on:
            return ledger.append(on.connection, on.seal, on.at, audits)

    def rotate_root(self, audit: Callable[[str], Audit], root: str | None = None) -> list[bytes]:
        """Seal everything anew under a new root key, and destroy the old one; the lines that say so.

        The old key's file stays where the new key comes from elsewhere: it opens nothing but older copies. ConfigError
        where something is in the new key's place: it may be another broker's.
        """
        with self._writing() as on:
            self._settle(on.connection)
            rulebook.load(on.connection, on.seal, on.at)
            was = _meta(on.connection, _ROOT).decode()
            spec = root or was
            source = parse_root(spec, self.directory)
            if source.place is None or source.place != parse_root(was, self.directory).place:
                _refuse_occupied(source)
            key = source.stage()
            try:
                lines = _rotated(on, Seal(key), source, audit(f"root key replaced, now of {spec}"))
            except Exception:
                source.settle(staged=False)
                raise
        with self._writing() as on:
            self._settle(on.connection)
        return lines

    # What a server keeps from one process to the next.

    def token_key(self) -> ec.EllipticCurvePrivateKey:
        """The key that signs tokens."""
        with self._guard, self.database.snapshot() as connection:
            self._follow(connection)
            return _read_token_key(connection, self._seal)

    def keep_sessions(self, sessions: Sequence[bytes]) -> None:
        """Seal a server's open sessions for the next one."""
        with self._writing() as on:
            on.connection.execute("DELETE FROM session")
            on.connection.executemany(
                "INSERT INTO session (sealed) VALUES (?)",
                [(on.seal.seal("session", _start(on.at.starts), one),) for one in sessions],
            )

    def take_sessions(self) -> list[bytes]:
        """What the server before this one kept, once: one that somebody puts back does not go on again."""
        with self._writing() as on:
            rows = on.connection.execute("SELECT sealed FROM session ORDER BY number").fetchall()
            on.connection.execute("DELETE FROM session")
            taken = []
            for (sealed,) in rows:
                with suppress(VerifyError):  # of an earlier start, or no session at all
                    taken.append(on.seal.open("session", _start(on.at.starts), sealed))
            ledger.write_checkpoint(on.connection, on.seal, replace(on.at, starts=on.at.starts + 1))
            return taken

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
            at, seal = self._follow(connection), self._seal
            rulebook.load(connection, seal, at)
        return ledger.verify(self.database, seal, kept)

    @contextmanager
    def _writing(self) -> Iterator["_Writing"]:
        """A transaction after everything we know of. What it leaves is known when it is on the disk."""
        with self.database.transaction() as connection:
            with self._guard:
                on = _Writing(connection, at=self._follow(connection), seal=self._seal)
            yield on
            left = ledger.checkpoint(connection, on.seal)
        with self._guard:
            if self._latest is None or self._latest.head.number <= left.head.number:
                self._seal, self._latest = on.seal, left

    def _rules(self, connection: sqlite3.Connection) -> Rulebook:
        at = self._follow(connection)
        if at.rules != self._book_mac:
            self._book, self._book_mac = rulebook.load(connection, self._seal, at), at.rules
        return self._book

    def _follow(self, connection: sqlite3.Connection) -> Checkpoint:
        """What the database is at now. VerifyError when that is not what we saw before, or comes after it.

        Takes the root key again where another process replaced it.
        """
        if _meta(connection, _ROOT_ID) != self._seal.id:
            self._seal = self._unlocked(connection)
        at = ledger.checkpoint(connection, self._seal)
        if self._latest is not None:
            ledger.require_later(connection, self._latest, at)
        self._latest = at
        return at

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


@dataclass(slots=True)
class _Writing:
    """A transaction, and what it began with."""

    connection: sqlite3.Connection
    at: Checkpoint
    seal: Seal


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

    def add_version(self, uri: ResourceURI, number: int, epoch: int, created: str, payload: bytes) -> None:
        sealed = self._seal.seal("resource", _context(uri, number, epoch), payload)
        self.connection.execute(
            "INSERT INTO version VALUES (?, ?, ?, ?, ?)", (str(uri), number, epoch, created, sealed)
        )


def _meta(connection: sqlite3.Connection, name: str) -> bytes:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise VerifyError(f"broker database: it has no {name}, it was not made whole")
    return bytes(row[0])


def _context(uri: ResourceURI, number: int, epoch: int) -> bytes:
    return enc(str(uri).encode()) + number.to_bytes(8, "big") + epoch.to_bytes(8, "big")


def _start(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _refuse_occupied(source: Root) -> None:
    """ConfigError where a new key of this source would take the place of something."""
    if source.taken():
        raise ConfigError(f"root key: a key of {source} exists already, and may be another broker's")
    if source.unsettled():
        raise ConfigError(
            f"root key: {source}.next exists already, of a change that was cut off or of another broker; "
            "remove it if nothing is sealed under it"
        )


def _rotated(on: _Writing, new: Seal, source: Root, said: Audit) -> list[bytes]:
    """Everything under the new key, once that is known to come back from where it was put."""
    connection, old = on.connection, on.seal
    if new.id == old.id:
        raise ConfigError(f"root key: {source} holds the key in use, want a new one")
    if all(Seal(found.key).id != new.id for found in source.load()):
        raise MachineError(f"root key: {source} does not give the key that was put there")
    _reseal(connection, old, new, on.at.starts)
    for name, value in ((_ROOT, str(source).encode()), (_ROOT_ID, new.id)):
        connection.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))
    rules = rulebook.mac(connection, new, on.at.serial + 1)
    lines = ledger.append(connection, new, replace(on.at, serial=on.at.serial + 1, rules=rules), [said])
    on.seal = new
    return lines


def _reseal(connection: sqlite3.Connection, old: Seal, new: Seal, starts: int) -> None:
    for text, number, epoch, sealed in connection.execute(
        "SELECT uri, number, epoch, sealed FROM version"
    ).fetchall():
        context = _context(ResourceURI.parse(text), number, epoch)
        again = new.seal("resource", context, old.open("resource", context, sealed))
        connection.execute(
            "UPDATE version SET sealed = ? WHERE uri = ? AND number = ?", (again, text, number)
        )
    for number, sealed in connection.execute("SELECT number, sealed FROM session").fetchall():
        connection.execute("DELETE FROM session WHERE number = ?", (number,))
        with suppress(VerifyError):  # one that could not go on anyway
            again = new.seal("session", _start(starts), old.open("session", _start(starts), sealed))
            connection.execute("INSERT INTO session VALUES (?, ?)", (number, again))
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
