"""What administrators do to a broker: one table of actions, the same on its directory and over the network.

An action takes a mapping of arguments and gives a mapping of results. What it changed is in the audit log in the same
transaction, with who did it; no secret is in arguments that are logged, in results, or in a message.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from strongroom.appraise.raw import Raw
from strongroom.broker.signed import SignedRequest
from strongroom.errors import ConfigError, FormatError, PolicyError
from strongroom.host.brokerage import ledger, resources, standing
from strongroom.host.brokerage.actors import ADMINISTRATOR, Actor, once, recognise
from strongroom.host.brokerage.arguments import FAR, Result
from strongroom.host.brokerage.change import Change
from strongroom.host.brokerage.house import House
from strongroom.wire.canonical import parse_json

MAX_LINES: Final = 500  # of the audit log in one answer
MAX_REQUEST: Final = 1 << 20  # bytes of a request's body


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


def read_audit(house: House, _change: Change, raw: Raw, _actor: Actor) -> Result:
    members = raw.mapping({"first", "count"})
    first = members["first"].whole(FAR) if "first" in members else 1
    count = members["count"].whole(MAX_LINES) if "count" in members else MAX_LINES
    lines = ledger.read(house.database, first=first, count=count)
    return {"lines": [line.decode() for line in lines], "last": ledger.last(house.database)}


ACTIONS: Final[Mapping[str, Callable[[House, Change, Raw, Actor], Result]]] = {
    "put": resources.put,
    "rotate": resources.rotate,
    "delete": resources.delete,
    "list": resources.list_resources,
    "get-policy": resources.get_policy,
    "set-policy": resources.set_policy,
    "import-references": standing.import_references,
    "list-references": standing.list_references,
    "delete-references": standing.delete_references,
    "revoke": standing.revoke,
    "reinstate": standing.reinstate,
    "audit": read_audit,
    "list-administrators": standing.list_administrators,
    "add-administrator": standing.add_administrator,
    "remove-administrator": standing.remove_administrator,
}
READING: Final = frozenset({"list", "get-policy", "list-references", "audit", "list-administrators"})
