"""What administrators do to a broker: one table of actions, the same on its directory and over the network.

An action takes a mapping of arguments and gives a mapping of results. What it changed is in the audit log in the same
transaction, with who did it; no secret is in arguments that are logged, in results, or in a message.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from strongroom.appraise.raw import Raw
from strongroom.broker.reference import MAX_BYTES as MAX_REFERENCES
from strongroom.broker.reference import SignedReferences
from strongroom.broker.resource import ResourceURI, VolumeKey
from strongroom.broker.signed import SignedRequest, parse_key
from strongroom.errors import ConfigError, FormatError, PolicyError
from strongroom.host.brokerage import ledger
from strongroom.host.brokerage.actors import ADMINISTRATOR, ROLES, Actor, once, recognise
from strongroom.host.brokerage.house import MAX_PAYLOAD, Change, House
from strongroom.host.brokerage.rule import MAX_POLICY, Rule
from strongroom.host.brokerage.rulebook import Administrator, Resource, Revocation
from strongroom.wire.canonical import JSON, b64, b64u, parse_json, unb64

MAX_LINES: Final = 500  # of the audit log in one answer
MAX_REQUEST: Final = 1 << 20  # bytes of a request's body
MAX_RANDOM: Final = 1024  # bytes of a secret we make ourselves
_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}", re.ASCII)
_HEX: Final = re.compile(r"(?:[0-9a-f]{64}|[0-9a-f]{96})", re.ASCII)
_FAR: Final = 2**53 - 1

Result = dict[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an action gave, and the lines the audit log got."""

    result: Result
    lines: tuple[bytes, ...]


def administer(house: House, action: str, request: SignedRequest, now: datetime) -> Done:
    """What a signed request gets. Raises as `recognise` and `perform` do."""
    actor = recognise(house, request, now)
    arguments = parse_json(request.body, "admin request", max_bytes=MAX_REQUEST)
    if not isinstance(arguments, dict):
        raise FormatError("admin request: want an object")
    return perform(house, action, arguments, actor)


def perform(house: House, action: str, arguments: Mapping[str, Any], actor: Actor) -> Done:
    """Do it. ConfigError for an action or arguments there are not, PolicyError for what the actor's role may not."""
    act = ACTIONS.get(action)
    if act is None:
        raise ConfigError(f"action {action[:40]!r} is unknown, want one of {', '.join(sorted(ACTIONS))}")
    if actor.role != ADMINISTRATOR and action not in READING:
        raise PolicyError(f"{actor.name}: role {actor.role} may not {action}")
    if actor.request is not None:
        once(house, actor.request, actor.now)
    with house.change(actor.audit) as change:
        _require_still(change, actor)
        result = act(house, change, Raw(arguments, action), actor)
        if actor.request is not None and action in READING:
            change.say(f"read {action}", changed=False)
    return Done(result=result, lines=tuple(change.lines))


def _require_still(change: Change, actor: Actor) -> None:
    """PolicyError where somebody took the key out, or gave it another role, since the request was recognised."""
    if actor.request is None:
        return
    known = change.rules.administrators.get(actor.request.key)
    if known is None or known.role != actor.role:
        raise PolicyError(f"{actor.name}: is that no longer")


def _put(_house: House, change: Change, raw: Raw, actor: Actor) -> Result:
    members = raw.mapping({"uri", "payload", "policy", "rego"}, required={"uri", "payload"})
    uri, payload = _uri(members["uri"]), _payload(members["payload"])
    known = change.rules.resources.get(uri)
    rule = _rule(members, known)
    rule.check(_references(change), f"policy of {uri}")
    return _keep(change, uri, known, rule, payload, actor)


def _rotate(_house: House, change: Change, raw: Raw, actor: Actor) -> Result:
    members = raw.mapping({"uri", "payload", "random"}, required={"uri"})
    known = _known(change, members["uri"])
    if ("payload" in members) == ("random" in members):
        raise ConfigError(f"{raw.at}: want either payload or random")
    if "random" in members:
        size = members["random"].whole(MAX_RANDOM)
        if size < 16:
            raise ConfigError(f"{raw.at}.random: got {size} bytes, want 16..{MAX_RANDOM}")
        if any(version.epoch != version.number for version in known.versions):
            raise ConfigError(
                f"{known.uri}: holds keys of sealed models, want the one `strongroom rekey` makes"
            )
        payload = secrets.token_bytes(size)
    else:
        payload = _payload(members["payload"])
    newest = max((version.epoch for version in known.versions), default=0)
    epoch = _epoch(payload)
    if epoch is not None and epoch <= newest:
        raise ConfigError(f"{known.uri}: epoch of the new key is {epoch}, want above {newest}")
    return _keep(change, known.uri, known, known.rule, payload, actor)


def _keep(
    change: Change, uri: ResourceURI, known: Resource | None, rule: Rule, payload: bytes, actor: Actor
) -> Result:
    floor = change.rules.epoch_floor(uri)
    sealed_model = _epoch(payload)
    plain = sealed_model is None
    epoch = _next(known, floor) if sealed_model is None else sealed_model
    oldest = max((version.epoch for version in known.versions), default=0) if known else 0
    if floor is not None and epoch <= floor.epoch:
        raise ConfigError(f"{uri}: epoch {epoch} is revoked, want above {floor.epoch}")
    if epoch < oldest:
        raise ConfigError(f"{uri}: epoch is {epoch}, want at least the {oldest} it has")
    number = epoch if plain else _next(known, None)
    created = actor.now.astimezone(UTC).isoformat(timespec="seconds")
    change.connection.execute(
        "INSERT INTO resource VALUES (?, ?, ?, ?) ON CONFLICT (uri) DO UPDATE SET "
        "policy = excluded.policy, rego = excluded.rego, last = excluded.last",
        (str(uri), rule.policy, rule.rego, number),
    )
    change.add_version(uri, number, epoch, created, payload)
    change.say(f"put {uri} version {number}, epoch {epoch}, under {rule.name}")
    return {"uri": str(uri), "version": number, "epoch": epoch, "policy": rule.name}


def _delete(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    members = raw.mapping({"uri", "version"}, required={"uri"})
    known = _known(change, members["uri"])
    if "version" not in members:
        change.connection.execute("DELETE FROM resource WHERE uri = ?", (str(known.uri),))
        change.say(f"deleted {known.uri} with {len(known.versions)} versions")
        return {"uri": str(known.uri), "versions": [version.number for version in known.versions]}
    number = members["version"].whole(_FAR)
    if known.find(number) is None:
        raise ConfigError(f"{known.uri}: no version {number}")
    change.connection.execute("DELETE FROM version WHERE uri = ? AND number = ?", (str(known.uri), number))
    change.say(f"deleted {known.uri} version {number}")
    return {"uri": str(known.uri), "versions": [number]}


def _list(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    raw.mapping(set())
    return {
        "resources": [_shown(change, resource) for resource in change.rules.resources.values()],
        "revocations": [
            {"kind": one.kind, "subject": one.subject, "epoch": one.epoch, "reason": one.reason}
            for one in change.rules.revocations
        ],
    }


def _shown(change: Change, resource: Resource) -> JSON:
    current = change.rules.current(resource)
    return {
        "uri": str(resource.uri),
        "policy": resource.rule.name,
        "current": None if current is None else current.number,
        "versions": [
            {"version": version.number, "epoch": version.epoch, "created": version.created}
            for version in resource.versions
        ],
    }


def _get_policy(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    members = raw.mapping({"uri"}, required={"uri"})
    known = _known(change, members["uri"])
    return {"uri": str(known.uri), "policy": known.rule.policy, "rego": known.rule.rego}


def _set_policy(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    members = raw.mapping({"uri", "policy", "rego"}, required={"uri"})
    known = _known(change, members["uri"])
    rule = _rule(members, None)
    rule.check(_references(change), f"policy of {known.uri}")
    change.connection.execute(
        "UPDATE resource SET policy = ?, rego = ? WHERE uri = ?", (rule.policy, rule.rego, str(known.uri))
    )
    change.say(f"policy of {known.uri} replaced: {known.rule.name} by {rule.name}")
    return {"uri": str(known.uri), "policy": rule.name}


def _import_references(_house: House, change: Change, raw: Raw, actor: Actor) -> Result:
    members = raw.mapping({"file", "signer"}, required={"file"})
    file = _text(members["file"], MAX_REFERENCES).encode()
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


def _list_references(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    raw.mapping(set())
    return {
        "references": [
            {"signer": b64u(signer), **values.to_json()}
            for signer, values in change.rules.references.values()
        ]
    }


def _delete_references(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    name = raw.mapping({"name"}, required={"name"})["name"].text()
    if name not in change.rules.references:
        raise ConfigError(f"reference values {name}: none here")
    change.connection.execute("DELETE FROM reference WHERE name = ?", (name,))
    change.say(f"reference values {name} deleted")
    return {"name": name}


def _revoke(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    members = raw.mapping({"measurement", "uri", "epoch", "reason"}, required={"reason"})
    reason = members["reason"].text()
    kind, subject, epoch = _subject(members, raw.at)
    if kind == "epoch":
        _known(change, members["uri"])
        floor = change.rules.epoch_floor(ResourceURI.parse(subject))
        if floor is not None and floor.epoch > epoch:
            raise ConfigError(f"{subject}: epoch {floor.epoch} is revoked already, and every older one")
    change.connection.execute(
        "INSERT OR REPLACE INTO revocation VALUES (?, ?, ?, ?)", (kind, subject, epoch, reason)
    )
    change.say(f"revoked {_named(kind, subject, epoch)}: {reason}")
    return {"kind": kind, "subject": subject, "epoch": epoch}


def _reinstate(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    members = raw.mapping({"measurement", "uri", "epoch", "reason"}, required={"reason"})
    kind, subject, epoch = _subject(members, raw.at)
    held = [one for one in change.rules.revocations if (one.kind, one.subject) == (kind, subject)]
    if not held or held[0].epoch != epoch:
        raise ConfigError(f"{_named(kind, subject, epoch)}: is not revoked")
    change.connection.execute("DELETE FROM revocation WHERE kind = ? AND subject = ?", (kind, subject))
    change.say(f"reinstated {_named(kind, subject, epoch)}: {members['reason'].text()}")
    return {"kind": kind, "subject": subject, "epoch": epoch}


def _audit(house: House, _change: Change, raw: Raw, _actor: Actor) -> Result:
    members = raw.mapping({"first", "count"})
    first = members["first"].whole(_FAR) if "first" in members else 1
    count = members["count"].whole(MAX_LINES) if "count" in members else MAX_LINES
    lines = ledger.read(house.database, first=first, count=count)
    return {"lines": [line.decode() for line in lines], "last": ledger.last(house.database)}


def _list_administrators(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    raw.mapping(set())
    known = sorted(change.rules.administrators.values(), key=lambda one: one.name)
    return {"administrators": [{"name": one.name, "key": b64u(one.key), "role": one.role} for one in known]}


def _add_administrator(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
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


def _remove_administrator(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    name = raw.mapping({"name"}, required={"name"})["name"].text()
    known = _named_so(change, name)
    if known is None:
        raise ConfigError(f"{raw.at}: no administrator {name[:60]}")
    change.connection.execute("DELETE FROM administrator WHERE key = ?", (known.key,))
    change.say(f"{known.role} {name} removed, key {b64u(known.key)}")
    return {"name": name}


ACTIONS: Final[Mapping[str, Callable[[House, Change, Raw, Actor], Result]]] = {
    "put": _put,
    "rotate": _rotate,
    "delete": _delete,
    "list": _list,
    "get-policy": _get_policy,
    "set-policy": _set_policy,
    "import-references": _import_references,
    "list-references": _list_references,
    "delete-references": _delete_references,
    "revoke": _revoke,
    "reinstate": _reinstate,
    "audit": _audit,
    "list-administrators": _list_administrators,
    "add-administrator": _add_administrator,
    "remove-administrator": _remove_administrator,
}
READING: Final = frozenset({"list", "get-policy", "list-references", "audit", "list-administrators"})


def _uri(raw: Raw) -> ResourceURI:
    return ResourceURI.parse(_text(raw, 512))


def _known(change: Change, raw: Raw) -> Resource:
    uri = _uri(raw)
    if (known := change.rules.resources.get(uri)) is None:
        raise ConfigError(f"{uri}: does not exist")
    return known


def _payload(raw: Raw) -> bytes:
    payload = b"" if raw.value == "" else unb64(_text(raw, 2 * MAX_PAYLOAD), raw.at)
    if not 1 <= len(payload) <= MAX_PAYLOAD:
        raise FormatError(f"{raw.at}: got {len(payload)} bytes, want 1..{MAX_PAYLOAD}")
    return payload


def _rule(members: Mapping[str, Raw], known: Resource | None) -> Rule:
    """What was given, and of each kind that was not, what there is."""
    given = {name: _text(members[name], MAX_POLICY) for name in ("policy", "rego") if name in members}
    there = Rule(policy=None, rego=None) if known is None else known.rule
    return Rule(policy=given.get("policy", there.policy), rego=given.get("rego", there.rego))


def _epoch(payload: bytes) -> int | None:
    """Of the sealed model a key opens; None of anything else, whose epoch is the number it will have."""
    try:
        return VolumeKey.parse(payload).epoch
    except FormatError:
        return None


def _next(known: Resource | None, floor: Revocation | None) -> int:
    """The number of a new version: one no version had, and above what is revoked."""
    return max(known.last if known else 0, floor.epoch if floor else 0) + 1


def _subject(members: Mapping[str, Raw], at: str) -> tuple[str, str, int]:
    if "measurement" in members and not {"uri", "epoch"} & members.keys():
        value = members["measurement"].text()
        if not _HEX.fullmatch(value):
            raise ConfigError(f"{at}.measurement: want 96 lowercase hex digits, or the 64 of a PCR")
        return "measurement", value, 0
    if {"uri", "epoch"} <= members.keys() and "measurement" not in members:
        return "epoch", str(_uri(members["uri"])), members["epoch"].whole(_FAR)
    raise ConfigError(f"{at}: want either a measurement, or a resource and an epoch")


def _named(kind: str, subject: str, epoch: int) -> str:
    return f"measurement {subject}" if kind == "measurement" else f"{subject} epoch {epoch} and older"


def _named_so(change: Change, name: str) -> Administrator | None:
    return next((one for one in change.rules.administrators.values() if one.name == name), None)


def _references(change: Change) -> Mapping[str, Any]:
    return {name: values for name, (_, values) in change.rules.references.items()}


def _text(raw: Raw, most: int) -> str:
    """Text of several lines. Raw.text() is for one."""
    if not isinstance(raw.value, str) or not 0 < len(raw.value.encode("utf-8", "replace")) <= most:
        raise ConfigError(f"{raw.at}: want text of 1..{most} bytes")
    return raw.value


def encoded(payload: bytes) -> str:
    """A payload as an argument."""
    return b64(payload)
