"""What administrators do to what stands beside the resources: reference values, revocations, and one another."""

import re
from collections.abc import Mapping
from typing import Final

from strongroom.appraise.raw import Raw
from strongroom.broker.reference import MAX_BYTES as MAX_REFERENCES
from strongroom.broker.reference import SignedReferences
from strongroom.broker.resource import ResourceURI
from strongroom.broker.signed import parse_key
from strongroom.errors import ConfigError
from strongroom.host.brokerage.actors import ADMINISTRATOR, ROLES, Actor
from strongroom.host.brokerage.arguments import FAR, Result, known_in, text_in, uri_in
from strongroom.host.brokerage.change import Change
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.rulebook import Administrator
from strongroom.wire.canonical import b64u

_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}", re.ASCII)
_HEX: Final = re.compile(r"(?:[0-9a-f]{64}|[0-9a-f]{96})", re.ASCII)


def import_references(_house: House, change: Change, raw: Raw, actor: Actor) -> Result:
    members = raw.mapping({"file", "signer"}, required={"file"})
    file = text_in(members["file"], MAX_REFERENCES).encode()
    signed = SignedReferences.parse(file)
    name = signed.values.name
    known = change.rules.references.get(name)
    if "signer" in members:
        signer = parse_key(members["signer"].text(), f"{raw.at}.signer")
    elif known is not None:
        signer = known[0]
    else:
        raise ConfigError(
            f"reference values {name}: none here yet, want the key that may sign them (--signer)"
        )
    values = signed.verify(signer)
    if known is not None and values.serial <= known[1].serial:
        raise ConfigError(f"reference values {name}: serial is {values.serial}, want above {known[1].serial}")
    if values.not_after is not None and values.not_after <= actor.now:
        raise ConfigError(
            f"reference values {name}: held until {values.not_after:%Y-%m-%d %H:%M}, want newer ones"
        )
    change.connection.execute(
        "INSERT OR REPLACE INTO reference VALUES (?, ?, ?)", (name, signer, signed.pack())
    )
    what = f"{len(values.measurements)} measurements, serial {values.serial}, signed by {b64u(signer)}"
    change.say(f"reference values {name} imported: {what}")
    return {"name": name, "serial": values.serial, "measurements": len(values.measurements)}


def list_references(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    raw.mapping(set())
    return {
        "references": [
            {"signer": b64u(signer), **values.to_json()}
            for signer, values in change.rules.references.values()
        ]
    }


def delete_references(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    name = raw.mapping({"name"}, required={"name"})["name"].text()
    if name not in change.rules.references:
        raise ConfigError(f"reference values {name}: none here")
    change.connection.execute("DELETE FROM reference WHERE name = ?", (name,))
    change.say(f"reference values {name} deleted")
    return {"name": name}


def revoke(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    members = raw.mapping({"measurement", "uri", "epoch", "reason"}, required={"reason"})
    reason = members["reason"].text()
    kind, subject, epoch = _subject(members, raw.at)
    if kind == "epoch":
        known_in(change, members["uri"])
        floor = change.rules.epoch_floor(ResourceURI.parse(subject))
        if floor is not None and floor.epoch > epoch:
            raise ConfigError(f"{subject}: epoch {floor.epoch} is revoked already, and every older one")
    change.connection.execute(
        "INSERT OR REPLACE INTO revocation VALUES (?, ?, ?, ?)", (kind, subject, epoch, reason)
    )
    change.say(f"revoked {_named(kind, subject, epoch)}: {reason}")
    return {"kind": kind, "subject": subject, "epoch": epoch}


def reinstate(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    members = raw.mapping({"measurement", "uri", "epoch", "reason"}, required={"reason"})
    kind, subject, epoch = _subject(members, raw.at)
    held = [one for one in change.rules.revocations if (one.kind, one.subject) == (kind, subject)]
    if not held or held[0].epoch != epoch:
        raise ConfigError(f"{_named(kind, subject, epoch)}: is not revoked")
    change.connection.execute("DELETE FROM revocation WHERE kind = ? AND subject = ?", (kind, subject))
    change.say(f"reinstated {_named(kind, subject, epoch)}: {members['reason'].text()}")
    return {"kind": kind, "subject": subject, "epoch": epoch}


def list_administrators(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    raw.mapping(set())
    known = sorted(change.rules.administrators.values(), key=lambda one: one.name)
    return {"administrators": [{"name": one.name, "key": b64u(one.key), "role": one.role} for one in known]}


def add_administrator(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    members = raw.mapping({"name", "key", "role"}, required={"name", "key"})
    name, key = members["name"].text(), parse_key(members["key"].text(), f"{raw.at}.key")
    role = members["role"].one_of(ROLES) if "role" in members else ADMINISTRATOR
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{raw.at}.name: got {name[:60]}, want letters, digits and . _ @ -, at most 64")
    if key in change.rules.administrators or _named_so(change, name):
        raise ConfigError(f"{raw.at}: {name} or its key is known already")
    change.connection.execute("INSERT INTO administrator VALUES (?, ?, ?)", (key, name, role))
    change.say(f"{role} {name} added, key {b64u(key)}")
    return {"name": name, "key": b64u(key), "role": role}


def remove_administrator(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    name = raw.mapping({"name"}, required={"name"})["name"].text()
    known = _named_so(change, name)
    if known is None:
        raise ConfigError(f"{raw.at}: no administrator {name[:60]}")
    change.connection.execute("DELETE FROM administrator WHERE key = ?", (known.key,))
    change.say(f"{known.role} {name} removed, key {b64u(known.key)}")
    return {"name": name}


def _subject(members: Mapping[str, Raw], at: str) -> tuple[str, str, int]:
    if "measurement" in members and not {"uri", "epoch"} & members.keys():
        value = members["measurement"].text()
        if not _HEX.fullmatch(value):
            raise ConfigError(f"{at}.measurement: want 96 lowercase hex digits, or the 64 of a PCR")
        return "measurement", value, 0
    if {"uri", "epoch"} <= members.keys() and "measurement" not in members:
        return "epoch", str(uri_in(members["uri"])), members["epoch"].whole(FAR)
    raise ConfigError(f"{at}: want either a measurement, or a resource and an epoch")


def _named(kind: str, subject: str, epoch: int) -> str:
    return f"measurement {subject}" if kind == "measurement" else f"{subject} epoch {epoch} and older"


def _named_so(change: Change, name: str) -> Administrator | None:
    return next((one for one in change.rules.administrators.values() if one.name == name), None)
