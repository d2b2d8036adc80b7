"""Every GET, each answered as one value: no engine is asked.

    /                                    a page for people
    /healthz                             whether requests are taken
    /v1/models
    /.well-known/strongroom              what this machine says of itself, with the evidence for its receipt key
    /.well-known/strongroom/evidence     evidence for this very connection
    /.well-known/strongroom/sealed-key   evidence for the key of sealed bodies (sealed.py), whoever ends the TLS
    /v1/attestation/report               the same machine in the words of dstack's vllm-proxy
    /v1/aci/attestation                  and in those of aci/1
    /v1/receipts, /v1/signature, ...     what the book keeps (receipts/answers.py)
    /v1/usage                            what a tenant used

Strangers ask most of these. What costs the firmware a report waits for its turn (turns.py); page and document are made
once a second.
"""

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol, TypeVar

from sidecars.proxy.face import attested, legacy, page
from sidecars.proxy.face.boot import BootRecord
from sidecars.proxy.face.facts import Facts, GPUs, Launched, host_of
from sidecars.proxy.plan import Plan, Tenant
from sidecars.proxy.receipts.answers import (
    aci_answer,
    consistency_answer,
    head_answer,
    receipt_answer,
    signature_answer,
)
from sidecars.proxy.receipts.book import Book
from sidecars.proxy.routes import Destination, Route
from sidecars.proxy.sealed import SealedBodies
from sidecars.proxy.tenants.admission import Admission
from strongroom.errors import MachineError, StrongroomError
from strongroom.evidence.collateral import Collateral
from strongroom.host.door.identity import TLSIdentity, channel_evidence
from strongroom.host.door.refusal import Refusal, not_found
from strongroom.host.door.reply import JSON_TYPE
from strongroom.host.door.turns import Turns
from strongroom.host.foreign import ForeignReport, aci_question, dstack_question, request_report
from strongroom.receipts import aci
from strongroom.receipts import legacy as signatures
from strongroom.wire.canonical import JSON, b64u, pack_json

KEPT: Final = 1.0  # seconds that what strangers look at stays as it is
MAX_KEPT: Final = 8  # answers
ZEROS: Final = 16  # bytes at a nonce's end that would leave report data of a shape that others may choose
_T = TypeVar("_T")
_log: Final = logging.getLogger("strongroom.proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    body: bytes
    status: int = 200
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who asks, and over which connection."""

    origin: bytes  # as of Peer
    identity: TLSIdentity  # that this connection was made with
    exporter: Callable[[bytes], bytes]  # 32 bytes of this connection's keying material, for a nonce
    tenant: Tenant | None = None  # None: nobody, for what everyone may see


class Shown:
    """What is kept between two looks. `clock` only goes forward, in seconds."""

    def __init__(self, evidence_socket: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.boot = BootRecord(evidence_socket, clock=clock)
        self._clock = clock
        self._kept: dict[tuple[Route, bytes], tuple[float, bytes]] = {}

    def get(self, route: Route, spki: bytes) -> bytes | None:
        until, body = self._kept.get((route, spki), (0.0, b""))
        return body if self._clock() < until else None

    def keep(self, route: Route, spki: bytes, body: bytes) -> None:
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[route, spki] = self._clock() + KEPT, body


class House(Protocol):
    """What is asked of the service."""

    @property
    def plan(self) -> Plan: ...
    @property
    def state(self) -> str: ...
    @property
    def book(self) -> Book: ...
    @property
    def admission(self) -> Admission: ...
    @property
    def max_model_len(self) -> int | None: ...
    @property
    def turns(self) -> Turns: ...
    @property
    def shown(self) -> Shown: ...
    @property
    def sealed(self) -> SealedBodies: ...


async def answer(service: House, to: Destination, asking: Asking) -> Answer:
    """The answer to one GET. Refusal for what cannot be had, 404 for what there is not."""
    match to.route:
        case Route.HEALTH:
            made = _health(service)
        case Route.WELL_KNOWN:
            made = Answer(body=await _well_known(service, asking, to.nonce))
        case Route.PAGE:
            made = await _page(service, asking)
        case Route.MODELS | Route.EVIDENCE | Route.SEALED_KEY | Route.REPORT | Route.ACI_ATTESTATION:
            made = Answer(body=pack_json(await _asked(service, to, asking)))
        case _:
            made = Answer(body=_kept(service, to, asking.tenant))
    return replace(made, headers={**made.headers, **dict(service.book.headers())})


async def _asked(service: House, to: Destination, asking: Asking) -> JSON:
    match to.route:
        case Route.MODELS:
            return _models(service)
        case Route.EVIDENCE:
            return await _evidence(service, asking, to.nonce)
        case Route.SEALED_KEY:
            socket, identity = service.plan.evidence_socket, service.book.identity
            return await _turn(
                service, asking, lambda: service.sealed.evidence(socket, identity, nonce=to.nonce)
            )
        case Route.REPORT:
            return await _report(service, to, asking)
        case _:
            return await _attestation(service, asking, to.nonce)


def _kept(service: House, to: Destination, tenant: Tenant | None) -> bytes:
    """What the book and the accounts know: of the log for everyone, all else for its owner."""
    book, query = service.book, to.query
    match to.route:
        case Route.LOG_HEAD:
            return head_answer(book)
        case Route.LOG_CONSISTENCY:
            return consistency_answer(book, int(query["first"]), int(query["second"]))
    if tenant is None:
        raise not_found()
    body: bytes | None = None
    match to.route:
        case Route.USAGE:
            body = pack_json(service.admission.usage(tenant))
        case Route.RECEIPT:
            body = receipt_answer(book, tenant, to.receipt, proof=query.get("proof") == "1")
        case Route.SIGNATURE:
            body = signature_answer(book, tenant, to.receipt, query.get("signing_algo", ""))
        case Route.ACI_RECEIPT:
            body = aci_answer(book, tenant, to.receipt)
    if body is None:
        raise not_found()
    return body


async def gather(service: House, identity: TLSIdentity) -> Facts:
    """Everything that is shown, as it is now."""
    plan, book = service.plan, service.book
    evidence, keys = book.identity.evidence, book.keys
    return Facts(
        title=plan.page.title,
        state=service.state,
        at=datetime.now(UTC),
        host=host_of(plan.names[0], plan.listen_port),
        model=plan.model,
        engine=plan.engine,
        max_model_len=service.max_model_len,
        launched=Launched.of(evidence),
        gpus=GPUs.of(evidence.events),
        boot=await service.shown.boot.latest(),
        tls_spki=identity.spki,
        receipt_key=book.identity.spki,
        not_before=book.identity.not_before,
        log=book.head(),
        signing={
            signatures.ECDSA: signatures.address(keys.ethereum),
            signatures.ED25519: signatures.address(keys.receipt),
        },
        keyset_digest=None if book.keyset is None else book.keyset.digest,
    )


def _health(service: House) -> Answer:
    state = service.state
    return Answer(status=200 if state == "open" else 503, body=pack_json({"status": state}))


def _models(service: House) -> JSON:
    """Made here, not asked for: the engine's own list shows paths."""
    model: dict[str, JSON] = {
        "id": service.plan.model.name,
        "object": "model",
        "created": int(service.book.identity.not_before.timestamp()),
        "owned_by": "strongroom",
    }
    if service.max_model_len is not None:
        model["max_model_len"] = service.max_model_len
    return {"object": "list", "data": [model]}


async def _evidence(service: House, asking: Asking, nonce: bytes) -> dict[str, JSON]:
    channel = await _turn(
        service,
        asking,
        lambda: channel_evidence(
            service.plan.evidence_socket,
            spki=asking.identity.spki,
            nonce=nonce,
            exporter=asking.exporter(nonce),
        ),
    )
    service.book.collateral = channel.collateral
    # of the same machine: the channel's collateral serves both
    return {"channel": channel.to_json(), "receipt_key": _receipt_key(service, Collateral())}


def _receipt_key(service: House, collateral: Collateral) -> JSON:
    identity = service.book.identity
    return {
        "key": b64u(identity.spki),
        "not_before": int(identity.not_before.timestamp()),
        "bundle": replace(identity.evidence, collateral=collateral).to_json(),
    }


async def _well_known(service: House, asking: Asking, nonce: bytes) -> bytes:
    spki = asking.identity.spki
    if nonce:
        evidence = await _evidence(service, asking, nonce)
        return pack_json({**(await gather(service, asking.identity)).to_json(), **evidence})
    if (kept := service.shown.get(Route.WELL_KNOWN, spki)) is None:
        facts = await gather(service, asking.identity)
        key = _receipt_key(service, service.book.collateral)
        kept = pack_json({**facts.to_json(), "receipt_key": key})
        service.shown.keep(Route.WELL_KNOWN, spki, kept)
    return kept


async def _page(service: House, asking: Asking) -> Answer:
    spki = asking.identity.spki
    if (kept := service.shown.get(Route.PAGE, spki)) is None:
        kept = page.page(await gather(service, asking.identity)).encode()
        service.shown.keep(Route.PAGE, spki, kept)
    return Answer(body=kept, content_type=page.TYPE, headers=page.HEADERS)


async def _report(service: House, to: Destination, asking: Asking) -> JSON:
    key: signatures.Key = service.book.keys.ethereum
    algorithm = signatures.ECDSA
    if to.query.get("signing_algo") == signatures.ED25519:
        key, algorithm = service.book.keys.receipt, signatures.ED25519
    address = signatures.address(key)
    wanted = to.query.get("signing_address")
    if wanted is not None and wanted.removeprefix("0x").lower() != address.removeprefix("0x").lower():
        raise Refusal(404, "not_found", "this door has no such signing key", param="signing_address")
    if to.nonce.endswith(bytes(ZEROS)):
        raise Refusal(400, "bad_nonce", "want a random nonce: this one ends in zeros", param="nonce")
    nonce = to.nonce or secrets.token_bytes(legacy.NONCE)
    second = to.query.get("version") == "2" or to.query.get("include_tls_fingerprint") == "true"
    spki = asking.identity.spki if second else None
    digest = None if spki is None else sha256(spki).digest()
    question = dstack_question(signing_algo=algorithm, nonce=nonce, tls_spki_sha256=digest)
    wanted_data = signatures.report_data(address, nonce=nonce, tls_spki_sha256=digest)
    made = await _foreign(service, asking, question, wanted_data)
    facts = await gather(service, asking.identity)
    return legacy.report(made, facts, key=key, nonce=nonce, tls_spki=spki)


async def _attestation(service: House, asking: Asking, nonce: bytes) -> JSON:
    keyset = service.book.keyset
    if (
        keyset is None
        or keyset.tls is None
        or keyset.tls.spki_sha256 != sha256(asking.identity.spki).digest()
    ):
        raise Refusal(
            503, "renewed", "the TLS key of this connection is no longer in use: connect again", last=True
        )
    question = aci_question(keyset, nonce=nonce or None)
    made = await _foreign(service, asking, question, aci.report_data(keyset.digest, nonce.hex() or None))
    facts = await gather(service, asking.identity)
    return attested.attestation(made, facts, keyset=keyset, nonce=nonce or None)


async def _foreign(
    service: House, asking: Asking, question: Mapping[str, JSON], wanted: bytes
) -> ForeignReport:
    if service.book.identity.evidence.tee.startswith("azure-"):
        raise Refusal(
            501,
            "not_supported",
            "no report of this hardware can carry what that form wants: see /.well-known/strongroom/evidence",
        )

    async def ask() -> ForeignReport:
        made = await request_report(service.plan.evidence_socket, question)
        if made.report_data != wanted:
            raise MachineError("evidence: the agent's is for other keys, want those of the door's secret")
        return made

    return await _turn(service, asking, ask)


async def _turn(service: House, asking: Asking, ask: Callable[[], Awaitable[_T]]) -> _T:
    async with service.turns.wait(asking.origin):
        try:
            return await ask()
        except StrongroomError as error:
            _log.warning("evidence: %s", error)
            raise Refusal(503, "evidence_unavailable", "no evidence can be had now") from None
