"""From a request's path to what answers it, and to the right that it takes. One table for each socket.

dstack    /GetKey  /v0/GetKey  /v1/GetKey  /prpc/Worker.Info  /prpc/v1/Worker.Info
tappd     /prpc/Tappd.DeriveKey  /prpc/DeriveKey, and the methods of v0 in the same places
quote     as dstack, for evidence alone: what a rule would have to allow elsewhere, this socket allows everybody
agent     /v1/keys and the rest of our own (docs/formats/agent-api.yaml)
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final, TypeAlias

from guest.keysock.fields import Fields
from guest.keysock.http import Request
from guest.keysock.rights import ALWAYS, QUOTING, Caller, Granted, Method, Rights
from guest.keysock.server import Reply
from strongroom.errors import PolicyError
from strongroom.wire.canonical import JSON

Answer: TypeAlias = "JSON | Awaitable[JSON]"
Handler = Callable[[Granted, Fields], Answer]
_JSON: Final = "application/json"
_OK: Final = HTTPStatus.OK
_EITHER: Final = ("GET", "POST")


@dataclass(frozen=True, slots=True)
class Route:
    """What one method of an interface takes and does."""

    method: Method
    handler: Handler


Table = dict[str, Route]  # by name, or "POST name" where only that method has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One socket's requests. `tables` is by the part of the path before the method's name, "/" included."""

    tables: Mapping[str, Table]
    rights: Rights | None  # None: nothing but Info and Version
    only: frozenset[Method] | None = None  # what this socket is for; it allows that to everybody
    budget: float | None = None  # seconds for an answer, where clients wait longer than dstack's

    def handle(self, caller: Caller, request: Request) -> Reply | Awaitable[Reply]:
        path, _, query = request.target.partition("?")
        found = self._route(request.method, path)
        if isinstance(found, tuple):
            return found
        granted = self._granted(caller, found.method)
        if request.method == "GET":
            fields = Fields.of_query(query)
        elif request.content_type == _JSON or query in ("json", "json=1", "json=true") or not request.body:
            fields = Fields.of_body(request.body)
        else:
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": f"content type is no {_JSON}, want that"}
        said = found.handler(granted, fields)
        return _later(said) if isinstance(said, Awaitable) else (_OK, said)

    def _route(self, method: str, path: str) -> Route | Reply:
        mount, _, name = path.rpartition("/")
        prefix, dot, rest = name.rpartition(".")
        mount = f"{mount}/{prefix}{dot}"
        table = self.tables.get(mount)
        if table is None:
            return HTTPStatus.NOT_FOUND, {"error": "no such path here"}
        either = table.get(rest) if method in _EITHER else None
        if (route := table.get(f"{method} {rest}") or either) is not None:
            return route
        if rest in table or any(f"{other} {rest}" in table for other in _EITHER):
            return HTTPStatus.METHOD_NOT_ALLOWED, {"error": f"{method} is no method of {rest[:64]}"}
        return HTTPStatus.NOT_FOUND, {"error": f"Service not found: {rest[:64]}"}

    def _granted(self, caller: Caller, method: Method) -> Granted:
        """What the caller may do here, once that is known to include `method`."""
        if self.rights is None:
            if method not in ALWAYS:
                raise PolicyError(
                    f"{method}: userdata has no section strongroom.keys, want one that allows it"
                )
            return Rights(others=False).of(caller)
        granted = self.rights.of(caller)
        if self.only is None:
            granted.require(method)
        elif method not in self.only:
            raise PolicyError(f"{method}: this socket is for {', '.join(sorted(self.only))} alone")
        else:
            granted = replace(granted, rule=replace(granted.rule, methods=self.only))
        return granted


async def _later(said: Awaitable[JSON]) -> Reply:
    return _OK, await said


def quoting(door: Door) -> Door:
    """The same for evidence alone."""
    return replace(door, only=QUOTING)
