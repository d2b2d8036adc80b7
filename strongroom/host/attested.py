"""A connection to a server that proved itself: no byte of a request leaves before every verdict has passed.

    Candidate.dial        TLS 1.3 to anyone; no authority is asked
    Candidate.examine     the certificate's evidence; then, over this very connection, evidence for a fresh
                          nonce and the connection's own exporter, and evidence for the receipt key
    Candidate.accept      all of it passed, or PolicyError; only now is there something to send a prompt with
    AttestedConnection    requests and answers

Evidence in a certificate can be relayed by whoever stole a key from any acceptable machine; it is checked
first to fail early. What decides is the channel evidence: only the other end of this connection obtains it. It also
brings the collateral with which all three are verified, where the caller has none of their own.

A door that only takes a model in (`Door.RECEIVING`) signs no answers, so it has no receipt key to show.
"""

import ipaddress
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from strongroom.appraise.policy import Policy
from strongroom.errors import ConfigError, PolicyError, ProtocolError, VerifyError
from strongroom.evidence.binding import EXPORTER_LABEL, Purpose, channel_challenge
from strongroom.evidence.bundle import MAX_BYTES, MAX_PACKED, Bundle
from strongroom.evidence.collateral import Collateral
from strongroom.host import tls
from strongroom.host.collateral.supply import Supplied, Supply, nothing
from strongroom.host.http1 import HTTPConnection, Limits, Response
from strongroom.host.judging import Finding, Judge, Signer, members, one_machine, reasons
from strongroom.ratls.acceptance import spki
from strongroom.ratls.certificate import extract
from strongroom.verify.lacking import LackingError
from strongroom.verify.roots import SIMULATED_LABEL, Roots
from strongroom.wire.canonical import parse_json

EVIDENCE_PATH: Final = "/.well-known/strongroom/evidence"
MAX_EVIDENCE: Final = MAX_PACKED + MAX_BYTES + (64 << 10)  # bytes of the answer: two bundles, one collateral
MAX_SILENCE: Final = 3600.0  # seconds
_LABEL: Final = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = re.compile(rf"(?!.{{254}}){_LABEL}(\.{_LABEL})*\.?")
_VISIBLE: Final = re.compile("[!-~]+")  # parsers of URLs drop a line break in silence


class Door(Enum):
    """Which door of a guest is to be at the other end. Neither passes for the other."""

    SERVING = auto()  # answers questions, and signs what it answered
    RECEIVING = auto()  # takes a model in


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Self:
        """The address in https://HOST[:PORT]; ConfigError for anything more, or less."""
        try:
            parts = urlsplit(url if _VISIBLE.fullmatch(url) else "")
            host, port = parts.hostname or "", 443 if parts.port is None else parts.port
        except ValueError as error:
            raise ConfigError(f"url: got {url!r}, want https://HOST[:PORT]") from error
        plain = parts.scheme == "https" and parts.path in ("", "/") and not (parts.query or parts.fragment)
        if not plain or not port or parts.username is not None or not (_HOST.fullmatch(host) or _is_ip(host)):
            raise ConfigError(f"url: got {url!r}, want https://HOST[:PORT]")
        return cls(host, port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What a server proved of itself, and what a policy says to that."""

    address: Address
    certificate: bytes  # DER
    certified: Finding
    channel: Finding
    receipts: Finding | None  # None, as the key, for a door that signs no answers
    receipt_key: bytes | None  # DER SubjectPublicKeyInfo
    group: str | None  # key exchange of the connection
    answer: bytes  # the evidence answer as it came
    nonce: bytes
    exporter: bytes
    own: Supplied  # the caller's own collateral, which was used

    @property
    def findings(self) -> tuple[Finding, ...]:
        both = (self.channel, self.certified)
        return both if self.receipts is None else (*both, self.receipts)

    @property
    def passed(self) -> bool:
        return all(finding.verdict.passed for finding in self.findings)

    @property
    def simulated(self) -> bool:
        return any(finding.claims.simulated for finding in self.findings)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every distinct reason against this server, the channel's first."""
        return reasons(self.findings)

    def require(self) -> None:
        """Raise PolicyError with every reason, unless all verdicts passed."""
        if not self.passed:
            silicon = f" ({SIMULATED_LABEL})" if self.simulated else ""
            raise PolicyError(f"{self.address}: refused{silicon}: {'; '.join(self.reasons)}")


def dial(address: Address, *, timeout: float) -> tls.TLSStream:
    """A TLS 1.3 connection to whoever answers; `timeout` is the longest silence in seconds."""
    if not 0 < timeout <= MAX_SILENCE:  # not a number is refused too
        raise ConfigError(f"timeout: got {timeout:g} s, want more than 0 and at most {MAX_SILENCE:g} s")
    return tls.connect(address.host, address.port, timeout=timeout)


class OverTLS:
    """What stands on one TLS connection, and closes it when it is left."""

    def __init__(self, stream: tls.TLSStream) -> None:
        self._stream = stream

    @property
    def is_quiet(self) -> bool:
        """As of TLSStream: whether it can carry a request."""
        return self._stream.is_quiet

    def abort(self) -> None:
        """As of TLSStream: from another thread."""
        self._stream.abort()

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Candidate(OverTLS):
    """A server of which nothing is believed yet: it can be asked for evidence, and for nothing else."""

    def __init__(self, stream: tls.TLSStream, address: Address, *, timeout: float) -> None:
        super().__init__(stream)
        self._http = HTTPConnection(stream, str(address))
        self._limits = Limits(silence=timeout, total=2 * timeout, body=MAX_EVIDENCE)
        self.address = address
        self.own = Supplied()  # what the supply had at the last examination, also one that failed
        self.carried = Collateral()  # and what the server brought itself

    @classmethod
    def dial(cls, address: Address, *, timeout: float = 20.0) -> Self:
        """A TLS 1.3 connection to whoever answers; `timeout` is the longest silence in seconds."""
        return cls(dial(address, timeout=timeout), address, timeout=timeout)

    def examine(
        self,
        *,
        policy: Policy,
        roots: Roots,
        now: datetime,
        supply: Supply = nothing,
        door: Door = Door.SERVING,
    ) -> Examination:
        """All that the server proves, judged. Raises VerifyError or FormatError when it is not genuine.

        `supply` is asked for the caller's own collateral. LackingError when neither it nor the server has what it
        takes. A policy that is not met raises nothing here: Examination has every reason.
        """
        certificate = self._stream.peer_certificate_der
        self.own, self.carried = supply(extract(certificate)), Collateral()
        with suppress(LackingError):  # what it takes may come with the answer
            Judge(policy, roots, now, self.own, self.carried).certificate(certificate)
        nonce = secrets.token_bytes(32)
        exporter = self._stream.exporter(EXPORTER_LABEL, 32, nonce)
        answer = self._ask(nonce)
        channel_bundle, signer = _parse_answer(answer, door)
        self.own, self.carried = supply(channel_bundle), channel_bundle.collateral
        judge = Judge(policy, roots, now, self.own, self.carried)
        certified = judge.certificate(certificate)
        channel = judge.bundle(
            channel_bundle, Purpose.CHANNEL, channel_challenge(nonce, exporter), spki(certificate)
        )
        one_machine(channel.claims, certified.claims, "certificate")
        receipts = None
        if signer is not None:
            receipts = judge.signer(signer)
            one_machine(channel.claims, receipts.claims, "receipt key")
        return Examination(
            address=self.address,
            certificate=certificate,
            certified=certified,
            channel=channel,
            receipts=receipts,
            receipt_key=None if signer is None else signer.key,
            group=self._stream.group,
            answer=answer,
            nonce=nonce,
            exporter=exporter,
            own=self.own,
        )

    def accept(self, examination: Examination) -> "AttestedConnection":
        """The connection, now fit for requests. Raises PolicyError unless `examination` of it passed."""
        if examination.exporter != self._stream.exporter(EXPORTER_LABEL, 32, examination.nonce):
            raise VerifyError("examination: made over another connection, want this one")
        examination.require()
        return AttestedConnection(self._stream, self._http, examination)

    def _ask(self, nonce: bytes) -> bytes:
        target = f"{EVIDENCE_PATH}?nonce={nonce.hex()}"
        response = self._http.request("GET", target, limits=self._limits)
        if response.status != 200:
            raise ProtocolError(f"{self.address}: evidence: http status {response.status}, want 200")
        return response.read()


class AttestedConnection(OverTLS):
    """An accepted server. Made by Candidate.accept or `open`; one request at a time."""

    def __init__(self, stream: tls.TLSStream, http: HTTPConnection, examination: Examination) -> None:
        examination.require()
        super().__init__(stream)
        self._http = http
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
        door: Door = Door.SERVING,
    ) -> "AttestedConnection":
        """Dial, examine and accept in one step.

        Raises TransportError, VerifyError (not genuine) or PolicyError (genuine, but refused); the connection
        is closed then, and carried nothing but a nonce.
        """
        candidate = Candidate.dial(Address.parse(url), timeout=timeout)
        try:
            examination = candidate.examine(policy=policy, roots=roots, now=now, supply=supply, door=door)
            return candidate.accept(examination)
        except BaseException:
            candidate.close()
            raise

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        limits: Limits | None = None,
    ) -> Response:
        """The answer's head; iterate over it for the exact body bytes as they come."""
        return self._http.request(method, path, headers=headers, body=body, limits=limits)

    def exporter(self, label: bytes, context: bytes) -> bytes:
        """32 bytes that only the two ends of this connection know (RFC 8446, 7.5)."""
        return self._stream.exporter(label, 32, context)


def _parse_answer(answer: bytes, door: Door) -> tuple[Bundle, Signer | None]:
    value = parse_json(answer, "evidence answer", max_bytes=MAX_EVIDENCE)
    if door is Door.RECEIVING:
        return Bundle.from_json(members(value, {"channel"}, "evidence answer")["channel"]), None
    outer = members(value, {"channel", "receipt_key"}, "evidence answer")
    signer = Signer.from_json(outer["receipt_key"], "evidence answer.receipt_key")
    return Bundle.from_json(outer["channel"]), signer


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
