"""A new root key: everything that is sealed under the old one is sealed anew, in one transaction."""

import sqlite3
from contextlib import suppress
from dataclasses import replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from strongroom.broker.audit import Audit
from strongroom.broker.resource import ResourceURI
from strongroom.errors import ConfigError, MachineError, VerifyError
from strongroom.host.brokerage import ledger, rulebook
from strongroom.host.brokerage.change import Writing, context_of
from strongroom.host.brokerage.root import Root
from strongroom.host.brokerage.sealing import Seal

ROOT: Final = "root"  # rows of `meta`
ROOT_ID: Final = "root_id"
TOKEN_KEY: Final = "token_key"


def meta(connection: sqlite3.Connection, name: str) -> bytes:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise VerifyError(f"broker database: it has no {name}, it was not made whole")
    return bytes(row[0])


def refuse_occupied(source: Root) -> None:
    """ConfigError where a new key of this source would take the place of something."""
    if source.taken():
        raise ConfigError(f"root key: a key of {source} exists already, and may be another broker's")
    if source.unsettled():
        raise ConfigError(
            f"root key: {source}.next exists already, of a change that was cut off or of another broker; "
            "remove it if nothing is sealed under it"
        )


def rotated(on: Writing, new: Seal, source: Root, said: Audit) -> list[bytes]:
    """Everything under the new key, once that is known to come back from where it was put."""
    connection, old = on.connection, on.seal
    if new.id == old.id:
        raise ConfigError(f"root key: {source} holds the key in use, want a new one")
    if all(Seal(found.key).id != new.id for found in source.load()):
        raise MachineError(f"root key: {source} does not give the key that was put there")
    _reseal(connection, old, new, on.at.starts)
    for name, value in ((ROOT, str(source).encode()), (ROOT_ID, new.id)):
        connection.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))
    rules = rulebook.mac(connection, new, on.at.serial + 1)
    lines = ledger.append(connection, new, replace(on.at, serial=on.at.serial + 1, rules=rules), [said])
    on.seal = new
    return lines


def _reseal(connection: sqlite3.Connection, old: Seal, new: Seal, starts: int) -> None:
    for text, number, epoch, sealed in connection.execute(
        "SELECT uri, number, epoch, sealed FROM version"
    ).fetchall():
        context = context_of(ResourceURI.parse(text), number, epoch)
        again = new.seal("resource", context, old.open("resource", context, sealed))
        connection.execute(
            "UPDATE version SET sealed = ? WHERE uri = ? AND number = ?", (again, text, number)
        )
    for number, sealed in connection.execute("SELECT number, sealed FROM session").fetchall():
        connection.execute("DELETE FROM session WHERE number = ?", (number,))
        with suppress(VerifyError):  # one that could not go on anyway
            again = new.seal("session", start_of(starts), old.open("session", start_of(starts), sealed))
            connection.execute("INSERT INTO session VALUES (?, ?)", (number, again))
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (TOKEN_KEY,)).fetchone()
    again = new.seal("token key", b"", old.open("token key", b"", row[0]))
    connection.execute("UPDATE meta SET value = ? WHERE name = ?", (again, TOKEN_KEY))


def write_token_key(connection: sqlite3.Connection, seal: Seal) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    raw = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    sealed = seal.seal("token key", b"", raw)
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (TOKEN_KEY, sealed))


def read_token_key(connection: sqlite3.Connection, seal: Seal) -> ec.EllipticCurvePrivateKey:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (TOKEN_KEY,)).fetchone()
    key = load_der_private_key(seal.open("token key", b"", row[0]), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise VerifyError("broker: its token key is not an EC key")
    return key


def start_of(number: int) -> bytes:
    return number.to_bytes(8, "big")
