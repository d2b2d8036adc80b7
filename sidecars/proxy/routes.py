"""Which requests exist. Everything else is 404, decided on the exact bytes of method and target.

No path or query we serve needs percent-encoding, so none is decoded: there is nothing to decode twice. A query is read
by its resource's own table: every name once, every value of a form that is written here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from strongroom.host.door.refusal import Refusal, not_found


class Route(StrEnum):
    """The value is what logs, metrics and receipts call the route."""

    CHAT = "/v1/chat/completions"
    COMPLETION = "/v1/completions"
    EMBEDDING = "/v1/embeddings"
    MODELS = "/v1/models"
    USAGE = "/v1/usage"
    RECEIPT = "/v1/receipts"
    LOG_HEAD = "/v1/receipts/log/head"
    LOG_CONSISTENCY = "/v1/receipts/log/consistency"
    SIGNATURE = "/v1/signature"
    ACI_RECEIPT = "/v1/aci/receipts"
    ACI_ATTESTATION = "/v1/aci/attestation"
    REPORT = "/v1/attestation/report"
    WELL_KNOWN = "/.well-known/strongroom"
    EVIDENCE = "/.well-known/strongroom/evidence"
    SEALED = "/.well-known/strongroom/sealed"
    SEALED_KEY = "/.well-known/strongroom/sealed-key"
    PAGE = "/"
    HEALTH = "/healthz"

    @property
    def open(self) -> bool:
        """Asked before a client has reason to show us its token, or by somebody who has none: an auditor."""
        return self in _OPEN

    @property
    def completes(self) -> bool:
        """Answered by the engine."""
        return self in ASKED


ASKED: Final = frozenset({Route.CHAT, Route.COMPLETION, Route.EMBEDDING})
_POSTED: Final = ASKED | {Route.SEALED}
_OPEN: Final = frozenset({
    Route.EVIDENCE, Route.HEALTH, Route.PAGE, Route.WELL_KNOWN, Route.REPORT, Route.ACI_ATTESTATION,
    Route.LOG_HEAD, Route.LOG_CONSISTENCY, Route.SEALED, Route.SEALED_KEY,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Destination:
    route: Route
    receipt: str = (
        ""  # id, for RECEIPT, SIGNATURE and ACI_RECEIPT: a receipt's, or for the last two an answer's
    )
    nonce: bytes = b""  # 32 bytes, for whoever gave one
    query: Mapping[str, str] = field(default_factory=dict)  # the rest of the query, each value of its form


_EXACT: Final = {
    **{("POST", route.value): route for route in _POSTED},
    **{("GET", route.value): route for route in Route if route not in _POSTED},
}
_WITH_ID: Final = re.compile(r"(/v1/receipts|/v1/signature|/v1/aci/receipts)/((?:[a-z]{2,16}-)?[0-9a-f]{32})")
_NAMED: Final = {Route.RECEIPT, Route.SIGNATURE, Route.ACI_RECEIPT}  # exist with an id only
RECEIPT_ID: Final = 32  # hex digits
_MAX_QUERY: Final = 1024  # characters

_NONCE: Final = re.compile(r"[0-9a-fA-F]{64}")
_NONCE_WORDS: Final = "64 hex digits"
_ALGORITHM: Final = re.compile(r"ecdsa|ed25519")
_MODEL: Final = re.compile(r"[A-Za-z0-9._~:/@+-]{1,256}")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,14}")


@dataclass(frozen=True, slots=True)
class _Form:
    value: re.Pattern[str]
    wanted: str
    code: str = "bad_query"
    needed: bool = False

    def refusal(self, name: str) -> Refusal:
        return Refusal(400, self.code, f"want ?{name}= and {self.wanted}", param=name)


_ANY_NONCE: Final = _Form(_NONCE, _NONCE_WORDS, "bad_nonce")
_SIGNING: Final = _Form(_ALGORITHM, "ecdsa or ed25519", "invalid_signing_algo")
_NAME: Final = _Form(_MODEL, "the name of a model")
_QUERIES: Final[Mapping[Route, Mapping[str, _Form]]] = {
    Route.EVIDENCE: {"nonce": _Form(_NONCE, _NONCE_WORDS, "bad_nonce", needed=True)},
    Route.SEALED_KEY: {"nonce": _Form(_NONCE, _NONCE_WORDS, "bad_nonce", needed=True)},
    Route.WELL_KNOWN: {"nonce": _ANY_NONCE},
    Route.REPORT: {
        "nonce": _ANY_NONCE,
        "signing_algo": _SIGNING,
        "signing_address": _Form(
            re.compile(r"(?:0x)?(?:[0-9a-fA-F]{40}|[0-9a-fA-F]{64})"), "an address in hex"
        ),
        "version": _Form(re.compile(r"[12]"), "1 or 2"),
        "include_tls_fingerprint": _Form(re.compile(r"true|false"), "true or false"),
        "model": _NAME,
    },
    Route.ACI_ATTESTATION: {
        "nonce": _Form(re.compile(r"[0-9a-f]{64}"), "64 lowercase hex digits", "bad_nonce")
    },
    Route.RECEIPT: {"proof": _Form(re.compile(r"[01]"), "0 or 1")},
    Route.LOG_CONSISTENCY: {
        "first": _Form(_SIZE, "a size of the log", needed=True),
        "second": _Form(_SIZE, "a size of the log", needed=True),
    },
    Route.SIGNATURE: {"signing_algo": _SIGNING, "model": _NAME},
}
_PLAIN: Final = {  # most requests there are: nothing of them is read but a table
    asked: Destination(route)
    for asked, route in _EXACT.items()
    if route not in _NAMED and not any(form.needed for form in _QUERIES.get(route, {}).values())
}


def destination(method: str, target: str) -> Destination:
    """Where a request goes. Refusal 404 for what does not exist, 400 for a query that is not understood."""
    if plain := _PLAIN.get((method, target)):
        return plain
    path, mark, query = target.partition("?")
    route, name = _EXACT.get((method, path)), ""
    if route is None and method == "GET" and (found := _WITH_ID.fullmatch(path)):
        route, name = Route(found[1]), found[2]
    if route is None or (route in _NAMED) is not bool(name):
        raise not_found()
    if route is Route.RECEIPT and len(name) != RECEIPT_ID:
        raise not_found()
    forms = _QUERIES.get(route, {})
    if mark and not forms:
        raise Refusal(400, "unexpected_query", "this resource takes no query")
    values = _query(forms, query) if mark else {}
    for needed, form in forms.items():
        if form.needed and needed not in values:
            raise form.refusal(needed)
    return Destination(route, name, bytes.fromhex(values.pop("nonce", "")), values)


def _query(forms: Mapping[str, _Form], query: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in query[:_MAX_QUERY].split("&"):
        name, _, value = part.partition("=")
        form = forms.get(name)
        if form is None or name in values or len(query) > _MAX_QUERY:
            only = next(iter(forms.values())) if len(forms) == 1 else None
            wanted = ", ".join(f"?{name}=" for name in forms)
            raise Refusal(400, only.code if only else "unexpected_query", f"want only {wanted}, each once")
        if not form.value.fullmatch(value):
            raise form.refusal(name)
        values[name] = value
    return values
