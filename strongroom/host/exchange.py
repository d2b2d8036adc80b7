"""One request to an accepted server, its answer as it comes, and the receipt that binds the two."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from strongroom.appraise.policy import Policy
from strongroom.appraise.verdict import appraise
from strongroom.errors import (
    ConfigError,
    FormatError,
    ProtocolError,
    StrongroomError,
    TransportError,
    VerifyError,
)
from strongroom.host.attested import MAX_EVIDENCE
from strongroom.host.collateral.supply import Supplied
from strongroom.host.http1 import Limits, Response
from strongroom.host.judging import Finding
from strongroom.receipts import envelope
from strongroom.receipts.hashing import BodyHash, StreamHash
from strongroom.receipts.receipt import Receipt
from strongroom.verify.roots import Roots
from strongroom.wire.canonical import parse_json
from strongroom.wire.line import sentence

RECEIPT_HEADER: Final = "x-strongroom-receipt"
ANSWER: Final = Limits(silence=300.0)  # a long prompt is read in silence
_SMALL: Final = Limits(silence=30.0, total=60.0, body=envelope.MAX_BYTES)
_ID: Final = re.compile(r"[0-9a-f]{32}")
_REPEATED: Final = 300  # characters of a server's own error message that ours repeats


class Examined(Protocol):
    """What a server proved before anything was asked of it."""

    @property
    def own(self) -> Supplied: ...
    @property
    def answer(self) -> bytes: ...  # an object whose receipt_key is the evidence for that key
    @property
    def channel(self) -> Finding: ...
    @property
    def receipts(self) -> Finding | None: ...
    @property
    def receipt_key(self) -> bytes | None: ...


class Connection(Protocol):
    """An accepted server: AttestedConnection, or SealedConnection."""

    @property
    def examination(self) -> Examined: ...
    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        limits: Limits | None = None,
    ) -> Response: ...


@dataclass(frozen=True, slots=True)
class Proof:
    """A receipt that was found to speak for one exchange, and the file it came in."""

    receipt: Receipt
    envelope: bytes


class ProvenExchange:
    """POST `body`, iterate over the answer to its end, then `prove` it. Used once.

    Raises ConfigError when the server refuses what we ask, TransportError when it cannot answer now. A caller that
    `hands_on` what the server says gets its errors as answers, which nothing proves.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        path: str,
        body: bytes,
        token: str | None = None,
        hands_on: bool = False,
    ) -> None:
        self._connection = connection
        self._path = path
        self._headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        headers = {"content-type": "application/json", **self._headers}
        self._sent = BodyHash()
        self._sent.update(body)
        self._ended = False
        self.answer = connection.request(
            "POST", path, headers, body, ANSWER
        )  # its head; for its body, iterate
        if self.answer.status != 200 and not hands_on:
            raise refusal(self.answer)
        self._id = self.answer.header(RECEIPT_HEADER)
        self.streams = (self.answer.header("content-type") or "").lower().startswith("text/event-stream")
        self._received = StreamHash() if self.streams else BodyHash()

    def __iter__(self) -> Iterator[bytes]:
        """Body bytes exactly as delivered. Nothing of them is proven before prove()."""
        for data in self.answer:
            self._received.update(data)
            yield data
        self._ended = True

    def prove(self, *, policy: Policy, roots: Roots, now: datetime) -> Proof:
        """The receipt, found to speak for exactly these bytes: the stream carried it, or it is asked for now.

        Raises VerifyError when it does not, PolicyError when the machine that signed it is not acceptable.
        """
        if not self._ended:
            raise ProtocolError("receipt: asked for before the answer's end")
        if self.answer.status != 200:
            raise ProtocolError(f"receipt: asked for an answer with http status {self.answer.status}")
        if self._id is None or not _ID.fullmatch(self._id):
            raise ProtocolError(f"receipt: header {RECEIPT_HEADER} is {self._id!r}, want 32 hex digits")
        raw = self._carried() or self._fetch(self._id)
        own = self._connection.examination.own
        receipt, claims = envelope.verify_envelope(
            raw, roots=roots, now=now, issuers=own.certificates, collateral=own.collateral
        )
        appraise(claims, policy, now=now).require()
        self._require_ours(receipt, key=envelope.parse(raw)[0].key)
        return Proof(receipt, raw)

    def _carried(self) -> bytes | None:
        """The receipt file that the stream's receipt makes with the evidence this connection showed."""
        if not isinstance(self._received, StreamHash) or not self._received.receipts:
            return None
        examined = self._connection.examination
        signer = envelope.SignerEvidence.from_json(
            parse_json(examined.answer, "evidence answer", max_bytes=MAX_EVIDENCE)
        )
        evidence = replace(signer.bundle, collateral=examined.channel.bundle.collateral)
        return envelope.pack(
            envelope.from_stream(self._received), not_before=signer.not_before, evidence=evidence
        )

    def _fetch(self, identifier: str) -> bytes:
        response = self._connection.request("GET", f"/v1/receipts/{identifier}", self._headers, limits=_SMALL)
        if response.status != 200:
            raise ProtocolError(f"receipt {identifier}: http status {response.status}, want 200")
        return response.read()

    def _require_ours(self, receipt: Receipt, key: bytes) -> None:
        examined = self._connection.examination
        proven = examined.receipts
        if proven is None or key != examined.receipt_key or receipt.evidence_sha256 != proven.bundle.digest:
            raise VerifyError("receipt: signed by another key than the one this connection proved")
        for name, found, wanted in (
            ("id", receipt.id, self._id),
            ("method", receipt.method, "POST"),
            ("endpoint", receipt.endpoint, self._path),
            ("stream", receipt.stream, isinstance(self._received, StreamHash)),
        ):
            if found != wanted:
                raise VerifyError(f"receipt: {name} is {found!r}, want {wanted!r}")
        receipt.require_bodies(request_sha256=self._sent.digest(), response_sha256=self._received.digest())
        if not receipt.complete:
            raise VerifyError("receipt: says that the answer was cut short")


def refusal(response: Response, who: str = "server") -> StrongroomError:
    """What an answer with another status than 200 says, as an error of ours."""
    text = f"{who}: http status {response.status}: {_message(response)}"
    if response.status == 429 or response.status >= 500:
        return TransportError(text)
    if 400 <= response.status < 500:
        return ConfigError(text)
    return ProtocolError(text)


def _message(response: Response) -> str:
    try:
        value = parse_json(response.read(), "error", max_bytes=1 << 16, floats=True)
    except FormatError:
        return "no reason given"
    match value:
        case {"error": {"message": str(message)}} | {"error": str(message)}:
            return sentence(message, most=_REPEATED)
    return "no reason given"
