"""Which requests exist. Everything else is 404, decided on the exact bytes of method and target.

No path we serve needs percent-encoding, so none is decoded: there is nothing to decode twice.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from strongroom.host.door.refusal import Refusal, not_found


class Route(StrEnum):
    """The value is what logs and receipts call the route."""

    CHAT = "/v1/chat/completions"
    COMPLETION = "/v1/completions"
    MODELS = "/v1/models"
    RECEIPT = "/v1/receipts"
    EVIDENCE = "/.well-known/strongroom/evidence"
    HEALTH = "/healthz"

    @property
    def open(self) -> bool:
        """Asked before a client has reason to show us its token."""
        return self in {Route.EVIDENCE, Route.HEALTH}

    @property
    def completes(self) -> bool:
        return self in {Route.CHAT, Route.COMPLETION}


@dataclass(frozen=True, slots=True)
class Destination:
    route: Route
    receipt: str = ""  # id, for RECEIPT
    nonce: bytes = b""  # for EVIDENCE


_EXACT: Final = {
    ("POST", Route.CHAT.value): Route.CHAT,
    ("POST", Route.COMPLETION.value): Route.COMPLETION,
    ("GET", Route.MODELS.value): Route.MODELS,
    ("GET", Route.HEALTH.value): Route.HEALTH,
}
_RECEIPT: Final = re.compile(r"/v1/receipts/([0-9a-f]{32})")
_NONCE: Final = re.compile(r"nonce=([0-9a-fA-F]{64})")


def destination(method: str, target: str) -> Destination:
    """Where a request goes. Refusal 404 for what does not exist, 400 for a query that is not understood."""
    path, mark, query = target.partition("?")
    if method == "GET" and path == Route.EVIDENCE.value:
        return Destination(Route.EVIDENCE, nonce=_nonce(query))
    if route := _EXACT.get((method, path)):
        found = Destination(route)
    elif method == "GET" and (receipt := _RECEIPT.fullmatch(path)):
        found = Destination(Route.RECEIPT, receipt=receipt[1])
    else:
        raise not_found()
    if mark:
        raise Refusal(400, "unexpected_query", "this resource takes no query")
    return found


def _nonce(query: str) -> bytes:
    if not (nonce := _NONCE.fullmatch(query)):
        raise Refusal(400, "bad_nonce", "want ?nonce= and 64 hex digits", param="nonce")
    return bytes.fromhex(nonce[1])
