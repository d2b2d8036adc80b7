"""What administrators do to resources: put and rotate, delete and list them, and set who may have them."""

import secrets
from datetime import UTC
from typing import Final

from strongroom.appraise.raw import Raw
from strongroom.broker.resource import ResourceURI, VolumeKey
from strongroom.errors import ConfigError, FormatError
from strongroom.host.brokerage.actors import Actor
from strongroom.host.brokerage.arguments import (
    FAR,
    Result,
    known_in,
    payload_in,
    references_of,
    rule_in,
    uri_in,
)
from strongroom.host.brokerage.change import Change
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.rule import Rule
from strongroom.host.brokerage.rulebook import Resource, Revocation
from strongroom.wire.canonical import JSON

MAX_RANDOM: Final = 1024  # bytes of a secret we make ourselves


def put(_house: House, change: Change, raw: Raw, actor: Actor) -> Result:
    members = raw.mapping({"uri", "payload", "policy", "rego"}, required={"uri", "payload"})
    uri, payload = uri_in(members["uri"]), payload_in(members["payload"])
    known = change.rules.resources.get(uri)
    rule = rule_in(members, known)
    rule.check(references_of(change), f"policy of {uri}")
    return _keep(change, uri, known, rule, payload, actor)


def rotate(_house: House, change: Change, raw: Raw, actor: Actor) -> Result:
    members = raw.mapping({"uri", "payload", "random"}, required={"uri"})
    known = known_in(change, members["uri"])
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
        payload = payload_in(members["payload"])
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


def delete(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    members = raw.mapping({"uri", "version"}, required={"uri"})
    known = known_in(change, members["uri"])
    if "version" not in members:
        change.connection.execute("DELETE FROM resource WHERE uri = ?", (str(known.uri),))
        change.say(f"deleted {known.uri} with {len(known.versions)} versions")
        return {"uri": str(known.uri), "versions": [version.number for version in known.versions]}
    number = members["version"].whole(FAR)
    if known.find(number) is None:
        raise ConfigError(f"{known.uri}: no version {number}")
    change.connection.execute("DELETE FROM version WHERE uri = ? AND number = ?", (str(known.uri), number))
    change.say(f"deleted {known.uri} version {number}")
    return {"uri": str(known.uri), "versions": [number]}


def list_resources(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
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


def get_policy(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    members = raw.mapping({"uri"}, required={"uri"})
    known = known_in(change, members["uri"])
    return {"uri": str(known.uri), "policy": known.rule.policy, "rego": known.rule.rego}


def set_policy(_house: House, change: Change, raw: Raw, _actor: Actor) -> Result:
    members = raw.mapping({"uri", "policy", "rego"}, required={"uri"})
    known = known_in(change, members["uri"])
    rule = rule_in(members, None)
    rule.check(references_of(change), f"policy of {known.uri}")
    change.connection.execute(
        "UPDATE resource SET policy = ?, rego = ? WHERE uri = ?", (rule.policy, rule.rego, str(known.uri))
    )
    change.say(f"policy of {known.uri} replaced: {known.rule.name} by {rule.name}")
    return {"uri": str(known.uri), "policy": rule.name}


def _epoch(payload: bytes) -> int | None:
    """Of the sealed model a key opens; None of anything else, whose epoch is the number it will have."""
    try:
        return VolumeKey.parse(payload).epoch
    except FormatError:
        return None


def _next(known: Resource | None, floor: Revocation | None) -> int:
    """The number of a new version: one no version had, and above what is revoked."""
    return max(known.last if known else 0, floor.epoch if floor else 0) + 1
