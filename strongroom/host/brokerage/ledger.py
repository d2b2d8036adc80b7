"""The audit log in the database: lines of strongroom.broker.audit, added in the transaction of what they speak about.

A checkpoint under the root key is rewritten with every line. It holds the head, the rules that hold since, and how
often a server was started: whoever cuts the end off, writes the log anew, or puts back older rules under this log
needs that key too. Whoever puts back all of it, as it was at one time, is seen by a process that knew a later head,
and by no other: keep heads elsewhere.
"""

import hmac
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from strongroom.broker.audit import START, Audit, Head, verify_chain
from strongroom.errors import FormatError, VerifyError
from strongroom.host.brokerage.database import Database
from strongroom.host.brokerage.sealing import Seal

_CHECKPOINT: Final = "checkpoint"
_MAC: Final = 32
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What belongs together at one time."""

    head: Head
    serial: int  # of the rules, one more with every change
    rules: bytes  # their MAC
    starts: int  # of a server

    def pack(self) -> bytes:
        return f"{self.head} {self.serial} {self.rules.hex()} {self.starts}".encode()

    @classmethod
    def parse(cls, stated: bytes) -> Self:
        try:
            head, serial, rules, starts = stated.decode().split(" ")
            return cls(
                head=Head.parse(head), serial=int(serial), rules=bytes.fromhex(rules), starts=int(starts)
            )
        except (ValueError, FormatError):
            raise VerifyError("audit: its checkpoint is not of this version") from None


def append(
    connection: sqlite3.Connection, seal: Seal, at: Checkpoint, audits: Sequence[Audit]
) -> list[bytes]:
    """The lines, written in this transaction with the checkpoint `at`, whose head is the one before them.

    VerifyError when the end of the log is not the one we left.
    """
    head, lines = _end(connection), []
    if at.head != head:
        raise VerifyError(
            f"audit: ends at {head}, want {at.head}: it was changed by something else than the broker"
        )
    for audit in audits:
        line = audit.line(head)
        head = head.next(line)
        connection.execute("INSERT INTO audit VALUES (?, ?)", (head.number, line))
        lines.append(line)
    write_checkpoint(connection, seal, replace(at, head=head))
    return lines


def write_checkpoint(connection: sqlite3.Connection, seal: Seal, at: Checkpoint) -> None:
    stated = at.pack()
    value = seal.mac(_CHECKPOINT, stated) + stated
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_CHECKPOINT, value))


def checkpoint(connection: sqlite3.Connection, seal: Seal) -> Checkpoint:
    """What the broker last left. VerifyError when another key wrote it."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (_CHECKPOINT,)).fetchone()
    mac, stated = (row[0][:_MAC], row[0][_MAC:]) if row else (b"", b"")
    if not hmac.compare_digest(mac, seal.mac(_CHECKPOINT, stated)):
        raise VerifyError("audit: its checkpoint is not of this broker's root key")
    return Checkpoint.parse(stated)


def require_later(connection: sqlite3.Connection, known: Checkpoint, found: Checkpoint) -> None:
    """VerifyError unless `found` came of `known` by what a broker does: lines were added, and nothing went back."""
    if found == known:
        return
    row = connection.execute("SELECT line FROM audit WHERE number = ?", (known.head.number,)).fetchone()
    same = found.head == known.head or (
        row is not None and Head(known.head.number - 1, b"").next(row[0]) == known.head
    )
    if (
        not same
        or found.head.number < known.head.number
        or found.serial < known.serial
        or found.starts < known.starts
    ):
        raise VerifyError(
            f"broker database: an older or another state was put back: its audit log is at {found.head}, "
            f"serial {found.serial}; want what comes after {known.head}, serial {known.serial}"
        )


def read(database: Database, *, first: int = 1, count: int = _PAGE) -> list[bytes]:
    """At most `count` lines from number `first` on."""
    query = "SELECT line FROM audit WHERE number >= ? ORDER BY number LIMIT ?"
    return [line for (line,) in database.rows(query, first, count)]


def last(database: Database) -> int:
    """The number of the last line."""
    return int(database.rows("SELECT coalesce(max(number), 0) FROM audit")[0][0])


def verify(database: Database, seal: Seal | None, kept: Iterable[Head] = ()) -> Head:
    """The head of the whole log as it is now. VerifyError at the first line that is not as it was written.

    Without a seal the chain and the heads in `kept` are all that is checked.
    """
    with database.snapshot() as connection:
        heads = [*kept, *([] if seal is None else [checkpoint(connection, seal).head])]
        head = verify_chain(_lines(connection), kept=heads)
        if seal is not None and head != heads[-1]:
            raise VerifyError(
                f"audit: ends with line {head.number}, want {heads[-1].number}: lines were added"
            )
        return head


def _lines(connection: sqlite3.Connection) -> Iterator[bytes]:
    for number, (stored, line) in enumerate(
        connection.execute("SELECT number, line FROM audit ORDER BY number"), start=1
    ):
        if stored != number:
            raise VerifyError(f"audit line {number}: is not there, it was removed")
        yield line


def _end(connection: sqlite3.Connection) -> Head:
    row = connection.execute("SELECT number, line FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    return START if row is None else Head(row[0] - 1, b"").next(row[1])
