"""One request to an accepted server, its answer as it comes, and the receipt that binds the two."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

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
from strongroom.host.attested import AttestedConnection
from strongroom.host.http1 import Limits, Response
from strongroom.receipts import envelope
from strongroom.receipts.hashing import BodyHash
from strongroom.receipts.receipt import Receipt
from strongroom.verify.roots import Roots
from strongroom.wire.canonical import parse_json
from strongroom.wire.line import sentence

RECEIPT_HEADER: Final = "x-strongroom-receipt"
ANSWER: Final = Limits(silence=300.0)  # a long prompt is read in silence
_SMALL: Final = Limits(silence=30.0, total=60.0, body=envelope.MAX_BYTES)
_ID: Final = re.compile(r"[0-9a-f]{32}")
_REPEATED: Final = 300  # characters of a server's own error message that ours repeats


@dataclass(frozen=True, slots=True)
class Proof:
    """A receipt that was found to speak for one exchange, and the file it came in."""

    receipt: Receipt
    envelope: bytes


class ProvenExchange:
    """POST `body`, iterate over the answer to its end, then `prove` it. Used once.

    Raises ConfigError when the server refuses what we ask, TransportError when it cannot answer now.
    """

    def __init__(
        self, connection: AttestedConnection, *, path: str, body: bytes, token: str | None = None
    ) -> None:
        self._connection = connection
        self._path = path
        self._headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        headers = {"content-type": "application/json", **self._headers}
        self._sent = BodyHash()
        self._sent.update(body)
        self._received = BodyHash()
        self._ended = False
        self._answer = connection.request("POST", path, headers, body, ANSWER)
        if self._answer.status != 200:
            raise _refusal(self._answer)
        self._id = self._answer.header(RECEIPT_HEADER)

    def __iter__(self) -> Iterator[bytes]:
        """Body bytes exactly as delivered. Nothing of them is proven before prove()."""
        for data in self._answer:
            self._received.update(data)
            yield data
        self._ended = True

    def prove(self, *, policy: Policy, roots: Roots, now: datetime) -> Proof:
        """The receipt, fetched over the same connection and found to speak for exactly these bytes.

        Raises VerifyError when it does not, PolicyError when the machine that signed it is not acceptable.
        """
        if not self._ended:
            raise ProtocolError("receipt: asked for before the answer's end")
        if self._id is None or not _ID.fullmatch(self._id):
            raise ProtocolError(f"receipt: header {RECEIPT_HEADER} is {self._id!r}, want 32 hex digits")
        raw = self._fetch(self._id)
        own = self._connection.examination.own
        receipt, claims = envelope.verify_envelope(
            raw, roots=roots, now=now, issuers=own.certificates, collateral=own.collateral
        )
        appraise(claims, policy, now=now).require()
        self._require_ours(receipt, key=envelope.parse(raw)[0].key)
        return Proof(receipt, raw)

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
        ):
            if found != wanted:
                raise VerifyError(f"receipt: {name} is {found!r}, want {wanted!r}")
        receipt.require_bodies(request_sha256=self._sent.digest(), response_sha256=self._received.digest())
        if not receipt.complete:
            raise VerifyError("receipt: says that the answer was cut short")


def _refusal(response: Response) -> StrongroomError:
    text = f"server: http status {response.status}: {_message(response)}"
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
