"""What an action was given, read: each of these takes one argument, and refuses what it cannot be."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from strongroom.appraise.raw import Raw
from strongroom.broker.resource import ResourceURI
from strongroom.errors import ConfigError, FormatError
from strongroom.host.brokerage.change import MAX_PAYLOAD, Change
from strongroom.host.brokerage.rule import MAX_POLICY, Rule
from strongroom.host.brokerage.rulebook import Resource
from strongroom.wire.canonical import JSON, b64, unb64

FAR: Final = 2**53 - 1  # of any number
Result: TypeAlias = "dict[str, JSON]"
"""What an action gives."""


def uri_in(raw: Raw) -> ResourceURI:
    return ResourceURI.parse(text_in(raw, 512))


def known_in(change: Change, raw: Raw) -> Resource:
    uri = uri_in(raw)
    if (known := change.rules.resources.get(uri)) is None:
        raise ConfigError(f"{uri}: does not exist")
    return known


def payload_in(raw: Raw) -> bytes:
    payload = b"" if raw.value == "" else unb64(text_in(raw, 2 * MAX_PAYLOAD), raw.at)
    if not 1 <= len(payload) <= MAX_PAYLOAD:
        raise FormatError(f"{raw.at}: got {len(payload)} bytes, want 1..{MAX_PAYLOAD}")
    return payload


def rule_in(members: Mapping[str, Raw], known: Resource | None) -> Rule:
    """What was given, and of each kind that was not, what there is."""
    given = {name: text_in(members[name], MAX_POLICY) for name in ("policy", "rego") if name in members}
    there = Rule(policy=None, rego=None) if known is None else known.rule
    return Rule(policy=given.get("policy", there.policy), rego=given.get("rego", there.rego))


def references_of(change: Change) -> Mapping[str, Any]:
    return {name: values for name, (_, values) in change.rules.references.items()}


def text_in(raw: Raw, most: int) -> str:
    """Text of several lines. Raw.text() is for one."""
    if not isinstance(raw.value, str) or not 0 < len(raw.value.encode("utf-8", "replace")) <= most:
        raise ConfigError(f"{raw.at}: want text of 1..{most} bytes")
    return raw.value


def encoded(payload: bytes) -> str:
    """A payload as an argument."""
    return b64(payload)
