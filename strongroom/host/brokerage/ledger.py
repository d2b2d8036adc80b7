"""The audit log in the database: lines of strongroom.broker.audit, added in the transaction of what they speak about.

A checkpoint of the head, under the root key, is rewritten with every line: whoever cuts the end off or writes the
log anew needs that key too. Against whoever puts the whole database back as it was, keep heads elsewhere.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from strongroom.broker.audit import START, Audit, Head, verify_chain
from strongroom.errors import VerifyError
from strongroom.host.brokerage.database import Database
from strongroom.host.brokerage.sealing import Seal

_CHECKPOINT: Final = "checkpoint"
_MAC: Final = 32
_PAGE: Final = 1000


def append(connection: sqlite3.Connection, seal: Seal, audits: Sequence[Audit]) -> list[bytes]:
    """The lines, written in this transaction. VerifyError when the end of the log is not the one we left."""
    at, lines = _end(connection), []
    kept = checkpoint(connection, seal)
    if kept != at:
        raise VerifyError(
            f"audit: ends at {at}, want {kept}: it was changed by something else than the broker"
        )
    for audit in audits:
        line = audit.line(at)
        at = at.next(line)
        connection.execute("INSERT INTO audit VALUES (?, ?)", (at.number, line))
        lines.append(line)
    write_checkpoint(connection, seal, at)
    return lines


def write_checkpoint(connection: sqlite3.Connection, seal: Seal, head: Head) -> None:
    stated = str(head).encode()
    value = seal.mac(_CHECKPOINT, stated) + stated
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_CHECKPOINT, value))


def checkpoint(connection: sqlite3.Connection, seal: Seal) -> Head:
    """The head as the broker last left it. VerifyError when another key wrote it."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (_CHECKPOINT,)).fetchone()
    mac, stated = (row[0][:_MAC], row[0][_MAC:]) if row else (b"", b"")
    if mac != seal.mac(_CHECKPOINT, stated):
        raise VerifyError("audit: its checkpoint is not of this broker's root key")
    return Head.parse(stated.decode())


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
        heads = [*kept, *([] if seal is None else [checkpoint(connection, seal)])]
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
