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
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.broker.audit import START, Audit, Head, Outcome
from strongroom.broker.resource import ResourceURI
from strongroom.errors import ConfigError, MachineError, VerifyError
from strongroom.host.brokerage import ledger, rulebook
from strongroom.host.brokerage.change import Change, Writing, context_of
from strongroom.host.brokerage.database import FILE, Database
from strongroom.host.brokerage.ledger import Checkpoint
from strongroom.host.brokerage.root import DEFAULT, parse_root
from strongroom.host.brokerage.rotation import (
    ROOT,
    ROOT_ID,
    meta,
    read_token_key,
    refuse_occupied,
    rotated,
    start_of,
    write_token_key,
)
from strongroom.host.brokerage.rulebook import Rulebook, Version
from strongroom.host.brokerage.sealing import Seal

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
        refuse_occupied(source)
        seal = Seal(source.stage())
        database = Database.create(directory)
        with database.transaction() as connection:
            for name, value in ((ROOT, root.encode()), (ROOT_ID, seal.id)):
                connection.execute("INSERT INTO meta VALUES (?, ?)", (name, value))
            write_token_key(connection, seal)
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
            return self._seal.open("resource", context_of(uri, version.number, version.epoch), row[0])

    # What changes it.

    @contextmanager
    def change(self, audit: Callable[[str], Audit]) -> Iterator[Change]:
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

    def record(self, audits: Sequence[Audit], *, wait: bool = True) -> list[bytes]:
        """The lines of these decisions, on the disk. Without `wait` a BusyError where somebody else writes now."""
        with self._writing(wait=wait) as on:
            return ledger.append(on.connection, on.seal, on.at, audits)

    def rotate_root(self, audit: Callable[[str], Audit], root: str | None = None) -> list[bytes]:
        """Seal everything anew under a new root key, and destroy the old one; the lines that say so.

        The old key's file stays where the new key comes from elsewhere: it opens nothing but older copies. ConfigError
        where something is in the new key's place: it may be another broker's.
        """
        with self._writing() as on:
            self._settle(on.connection)
            rulebook.load(on.connection, on.seal, on.at)
            was = meta(on.connection, ROOT).decode()
            spec = root or was
            source = parse_root(spec, self.directory)
            if source.place is None or source.place != parse_root(was, self.directory).place:
                refuse_occupied(source)
            key = source.stage()
            try:
                lines = rotated(on, Seal(key), source, audit(f"root key replaced, now of {spec}"))
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
            return read_token_key(connection, self._seal)

    def keep_sessions(self, sessions: Sequence[bytes]) -> None:
        """Seal a server's open sessions for the next one."""
        with self._writing() as on:
            on.connection.execute("DELETE FROM session")
            on.connection.executemany(
                "INSERT INTO session (sealed) VALUES (?)",
                [(on.seal.seal("session", start_of(on.at.starts), one),) for one in sessions],
            )

    def take_sessions(self) -> list[bytes]:
        """What the server before this one kept, once: one that somebody puts back does not go on again."""
        with self._writing() as on:
            rows = on.connection.execute("SELECT sealed FROM session ORDER BY number").fetchall()
            on.connection.execute("DELETE FROM session")
            taken = []
            for (sealed,) in rows:
                with suppress(VerifyError):  # of an earlier start, or no session at all
                    taken.append(on.seal.open("session", start_of(on.at.starts), sealed))
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
    def _writing(self, *, wait: bool = True) -> Iterator[Writing]:
        """A transaction after everything we know of. What it leaves is known when it is on the disk."""
        with self.database.transaction(wait=wait) as connection:
            with self._guard:
                on = Writing(connection, at=self._follow(connection), seal=self._seal)
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
        if meta(connection, ROOT_ID) != self._seal.id:
            self._seal = self._unlocked(connection)
        at = ledger.checkpoint(connection, self._seal)
        if self._latest is not None:
            ledger.require_later(connection, self._latest, at)
        self._latest = at
        return at

    def _opened(self) -> Seal:
        with self.database.snapshot() as connection:
            seal = self._unlocked(connection)
            source = parse_root(meta(connection, ROOT).decode(), self.directory)
        if source.unsettled():
            with self.database.transaction() as connection:
                self._settle(connection)
        return seal

    def _unlocked(self, connection: sqlite3.Connection) -> Seal:
        spec, wanted = meta(connection, ROOT).decode(), meta(connection, ROOT_ID)
        for found in parse_root(spec, self.directory).load():
            if (seal := Seal(found.key)).id == wanted:
                return seal
        raise VerifyError(f"{self.directory}: the key of {spec} is not the one it was sealed under")

    def _settle(self, connection: sqlite3.Connection) -> None:
        """Leave one root key, the one in use. Only in a transaction: two rotations must not cross."""
        source = parse_root(meta(connection, ROOT).decode(), self.directory)
        wanted = meta(connection, ROOT_ID)
        used = [found for found in source.load() if Seal(found.key).id == wanted]
        if not used:
            raise VerifyError(f"{self.directory}: the key of {source} is not the one it was sealed under")
        source.settle(staged=used[0].staged)
