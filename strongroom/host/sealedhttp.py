"""A client of sealed bodies: a server that is believed for its key, whoever ends the TLS before it.

The connection is to anyone; nothing is asked of it. Before a byte of a request leaves, evidence made for a fresh nonce
has spoken for the key that requests are sealed to, and for the key that signs receipts, both of one boot of one machine
that a policy accepts. What carries the bytes sees their sizes and times, and whether an answer came.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from strongroom.appraise.policy import Policy
from strongroom.errors import FormatError, PolicyError, ProtocolError, TransportError, VerifyError
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import Bundle
from strongroom.host import tls
from strongroom.host.attested import MAX_EVIDENCE, Address, OverTLS, dial
from strongroom.host.collateral.supply import Supplied, Supply, nothing
from strongroom.host.exchange import refusal
from strongroom.host.http1 import HTTPConnection, Limits, Response
from strongroom.host.judging import Finding, Judge, Signer, members, one_machine, reasons
from strongroom.sealedhttp import request as sealed_request
from strongroom.sealedhttp.keys import SealingKey
from strongroom.sealedhttp.request import Method, Request
from strongroom.sealedhttp.response import CONTENT_TYPE, Opener
from strongroom.verify.roots import SIMULATED_LABEL, Roots
from strongroom.wire.canonical import parse_json, unb64u

PATH: Final = "/.well-known/strongroom/sealed"
KEY_PATH: Final = "/.well-known/strongroom/sealed-key"
_WHO: Final = "server, or what stands before it"
_FORGOTTEN: Final = 421  # the door began anew; what is sealed to the key it had before opens nowhere
_BEARER: Final = "Bearer "
_SUBJECT: Final = "sealed key answer"


class ForgottenKeyError(TransportError):
    """Nothing that was verified before a moment ago is of use; what was asked was not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedExamination:
    """What a server proved of the keys it opens and signs with, and what a policy says to that."""

    address: Address
    key: SealingKey
    channel: Finding  # evidence for that key
    receipts: Finding
    receipt_key: bytes  # DER SubjectPublicKeyInfo
    group: str | None  # key exchange with whoever ends the TLS
    answer: bytes  # as it came
    nonce: bytes
    own: Supplied

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.channel, self.receipts

    @property
    def passed(self) -> bool:
        return all(finding.verdict.passed for finding in self.findings)

    @property
    def simulated(self) -> bool:
        return any(finding.claims.simulated for finding in self.findings)

    @property
    def reasons(self) -> tuple[str, ...]:
        return reasons(self.findings)

    def require(self) -> None:
        """Raise PolicyError with every reason, unless all verdicts passed."""
        if not self.passed:
            silicon = f" ({SIMULATED_LABEL})" if self.simulated else ""
            raise PolicyError(f"{self.address}: refused{silicon}: {'; '.join(self.reasons)}")


class SealedConnection(OverTLS):
    """An accepted server. One request at a time, each sealed by itself; used as an AttestedConnection is."""

    def __init__(
        self,
        stream: tls.TLSStream,
        http: HTTPConnection,
        examination: SealedExamination,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        examination.require()
        super().__init__(stream)
        self._http, self._clock = http, clock
        self.examination = examination

    @staticmethod
    def open(
        url: str,
        *,
        policy: Policy,
        roots: Roots,
        now: datetime,
        timeout: float = 20.0,
        supply: Supply = nothing,
    ) -> "SealedConnection":
        """Raises TransportError, VerifyError (not genuine) or PolicyError (genuine, but refused)."""
        address = Address.parse(url)
        stream = dial(address, timeout=timeout)
        try:
            http = HTTPConnection(stream, str(address))
            limits = Limits(silence=timeout, total=2 * timeout, body=MAX_EVIDENCE)
            nonce = secrets.token_bytes(32)
            response = http.request("GET", f"{KEY_PATH}?nonce={nonce.hex()}", limits=limits)
            if response.status != 200:
                raise ProtocolError(f"{address}: sealed key: http status {response.status}, want 200")
            examination = _examine(
                response.read(),
                nonce,
                address,
                stream.group,
                policy=policy,
                roots=roots,
                now=now,
                supply=supply,
            )
            return SealedConnection(stream, http, examination)
        except BaseException:
            stream.close()
            raise

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        limits: Limits | None = None,
    ) -> Response:
        """The answer that was sealed for this request. Of `headers` only a bearer token goes along, inside."""
        authorization = (headers or {}).get("authorization", "")
        inside = Request(
            time=int(self._clock()),
            secret=secrets.token_bytes(sealed_request.SECRET),
            method=_method(method),
            target=path,
            token=authorization.removeprefix(_BEARER),
            body=body,
        )
        sealed = sealed_request.seal(inside, self.examination.key)
        kind = {"content-type": sealed_request.CONTENT_TYPE}
        outer = self._http.request("POST", PATH, headers=kind, body=sealed, limits=limits)
        if outer.status == _FORGOTTEN:
            raise ForgottenKeyError(f"{_WHO}: the key that was verified is no longer in use: connect again")
        if outer.status != 200:
            raise refusal(outer, _WHO)
        if outer.header("content-type") != CONTENT_TYPE:
            raise ProtocolError(f"{_WHO}: the answer is not sealed")
        opener = Opener(
            secret=inside.secret, request=sealed_request.digest(sealed), key_id=self.examination.key.id
        )
        return _opened(outer, opener)


def _examine(
    answer: bytes,
    nonce: bytes,
    address: Address,
    group: str | None,
    *,
    policy: Policy,
    roots: Roots,
    now: datetime,
    supply: Supply,
) -> SealedExamination:
    value = members(
        parse_json(answer, _SUBJECT, max_bytes=MAX_EVIDENCE), {"bundle", "key", "receipt_key"}, _SUBJECT
    )
    if not isinstance(text := value["key"], str):
        raise FormatError(f"{_SUBJECT}: key is no text")
    key = SealingKey.parse(unb64u(text, f"{_SUBJECT}.key"))
    bundle = Bundle.from_json(value["bundle"])
    signer = Signer.from_json(value["receipt_key"], f"{_SUBJECT}.receipt_key")
    own = supply(bundle)
    judge = Judge(policy, roots, now, own, bundle.collateral)
    sealed = judge.bundle(bundle, Purpose.SEALED_BODIES, nonce, key.pack())
    receipts = judge.signer(signer)
    one_machine(sealed.claims, receipts.claims, "receipt key")
    return SealedExamination(
        address=address,
        key=key,
        channel=sealed,
        receipts=receipts,
        receipt_key=signer.key,
        group=group,
        answer=answer,
        nonce=nonce,
        own=own,
    )


def _method(method: str) -> Method:
    with suppress(KeyError):
        return Method[method]
    raise ProtocolError(
        f"sealed request: method is {method[:16]!a}, want one of {', '.join(Method.__members__)}"
    )


def _opened(outer: Response, opener: Opener) -> Response:
    pieces = iter(outer)
    first = b""
    while opener.head is None:
        if (piece := next(pieces, None)) is None:
            raise VerifyError("sealed response: it was cut before its head")
        first += opener.feed(piece)

    def body() -> Iterator[bytes]:
        if first:
            yield first
        for piece in pieces:
            if data := opener.feed(piece):
                yield data
        opener.require_end()

    headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in opener.head.headers]
    return Response(opener.head.status, headers, body())
