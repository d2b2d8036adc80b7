"""A transaction in progress: what it began with, what it changes, and what the audit log will say of it."""

import sqlite3
from dataclasses import dataclass
from typing import Final

from strongroom.broker.resource import ResourceURI
from strongroom.host.brokerage.ledger import Checkpoint
from strongroom.host.brokerage.rulebook import Rulebook
from strongroom.host.brokerage.sealing import Seal
from strongroom.wire.framing import enc

MAX_PAYLOAD: Final = 64 << 10  # bytes of a secret


@dataclass(slots=True)
class Writing:
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
        sealed = self._seal.seal("resource", context_of(uri, number, epoch), payload)
        self.connection.execute(
            "INSERT INTO version VALUES (?, ?, ?, ?, ?)", (str(uri), number, epoch, created, sealed)
        )


def context_of(uri: ResourceURI, number: int, epoch: int) -> bytes:
    return enc(str(uri).encode()) + number.to_bytes(8, "big") + epoch.to_bytes(8, "big")
