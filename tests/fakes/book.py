"""A door's book without a door: simulated silicon speaks for its keys, and TLS is a number."""

import json
from datetime import timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, cast

from sidecars.proxy.certify import ReceiptIdentity
from sidecars.proxy.plan import Plan, Tenant
from sidecars.proxy.receipts.book import Book
from strongroom.evidence.binding import Purpose, receipt_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.host.door.identity import LIFETIME, TLSIdentity
from strongroom.receipts.keys import DoorKeys
from tests.fakes.exchange import ENGINE, MODEL, NOT_BEFORE, events
from tests.fakes.silicon import bundle, silicon

KEYS: Final = DoorKeys.from_secret(bytes(range(32)))
TOKENS: Final = {"ann": "token-of-ann", "bob": "token-of-bob"}


def plan(**change: Any) -> Plan:
    value = {
        "listen_host": "127.0.0.1",
        "listen_port": 0,
        "engine_socket": "/run/engine.sock",
        "evidence_socket": "/run/evidence.sock",
        "names": ["door.example"],
        "model": MODEL.to_json(),
        "engine": ENGINE.to_json(),
        "tenants": [
            {"name": name, "token_sha256": sha256(token.encode()).hexdigest()}
            for name, token in TOKENS.items()
        ],
        "cache": "tenant",
    }
    return Plan.parse(json.dumps(value | change).encode())


def tenant(of: Plan, name: str = "ann") -> Tenant:
    return next(one for one in of.tenants if one.name == name)


@cache
def evidence(key: bytes) -> Bundle:
    """The same each time, as a door's that starts again."""
    challenge = receipt_challenge(NOT_BEFORE)
    return bundle(silicon(), purpose=Purpose.RECEIPT_KEY, challenge=challenge, key=key, events=events())


def identity(of: Plan, keys: DoorKeys = KEYS) -> ReceiptIdentity:
    signer = keys.signer(hybrid=of.receipts.hybrid)
    return ReceiptIdentity(signer=signer, not_before=NOT_BEFORE, evidence=evidence(signer.key))


def tls(spki: bytes = b"spki of the door") -> TLSIdentity:
    context = cast("Any", None)
    return TLSIdentity(
        context=context, certificate=b"", spki=spki, not_before=NOT_BEFORE + timedelta(days=365) - LIFETIME
    )


def book(of: Plan | None = None, directory: Path | None = None, *, evidence: Bundle | None = None) -> Book:
    of = of or plan()
    known = identity(of)
    if evidence is not None:
        known = ReceiptIdentity(signer=known.signer, not_before=NOT_BEFORE, evidence=evidence)
    made = Book(of, KEYS, known, directory=directory)
    made.use_tls(tls())
    return made
