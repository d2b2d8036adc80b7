"""Mirrors strongroom/host/exchange.py: receipts that speak for this exchange, and all the others."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.appraise.policy import Policy
from strongroom.errors import (
    ConfigError,
    FormatError,
    ProtocolError,
    StrongroomError,
    TransportError,
    VerifyError,
)
from strongroom.host.attested import AttestedConnection
from strongroom.host.exchange import Proof, ProvenExchange
from strongroom.host.tls import TLSEngine
from strongroom.host.yamltext import parse_yaml
from strongroom.receipts.envelope import verify_envelope
from strongroom.receipts.receipt import Receipt, SignedReceipt, sign
from tests.fakes.exchange import MODEL
from tests.fakes.machine import Machine, Request, policy_text, serving

PATH = "/v1/chat/completions"
BODY = json.dumps({"stream": True, "messages": []}).encode()


def converse(machine: Machine, *, early: bool = False) -> tuple[bytes, Proof]:
    policy = Policy.from_raw(parse_yaml(policy_text(machine), "policy"))
    now = datetime.now(UTC)
    with (
        serving(machine) as url,
        AttestedConnection.open(url, policy=policy, roots=policy.roots, now=now) as connection,
    ):
        exchange = ProvenExchange(connection, path=PATH, body=BODY, token="secret-token")
        answer = b"" if early else b"".join(exchange)
        return answer, exchange.prove(policy=policy, roots=policy.roots, now=datetime.now(UTC))


@pytest.mark.guarantee("G12")
def test_a_receipt_proves_exact_bytes() -> None:
    machine = Machine()
    answer, proof = converse(machine)
    assert proof.receipt.request_sha256 == sha256(BODY).digest()
    assert proof.receipt.response_sha256 == sha256(answer).digest()
    assert proof.receipt.model == MODEL
    policy = Policy.from_raw(parse_yaml(policy_text(machine), "policy"))
    assert verify_envelope(proof.envelope, roots=policy.roots, now=datetime.now(UTC))[0] == proof.receipt


@dataclass
class Carrying(Machine):
    """Its streams carry their receipts; `twist` does something to them on the way."""

    carries: bool = True
    twist: Callable[[list[bytes]], list[bytes]] = lambda pieces: pieces

    def carrying(self, pieces: list[bytes], signed: SignedReceipt) -> list[bytes]:
        return self.twist(super().carrying(pieces, signed))


@pytest.mark.guarantee("G12")
def test_a_stream_carries_its_receipt() -> None:
    machine = Carrying()
    answer, proof = converse(machine)
    assert b": ping\n\n" in answer and proof.receipt.stream
    assert [request.method for request in machine.requests if request.target.startswith("/v1/")] == ["POST"]
    policy = Policy.from_raw(parse_yaml(policy_text(machine), "policy"))
    assert verify_envelope(proof.envelope, roots=policy.roots, now=datetime.now(UTC))[0] == proof.receipt


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize(
    ("twist", "error", "why"),
    [
        (lambda p: [*p[:1], b"data: {}\n\n", *p[1:]], VerifyError, "response body hashes to"),
        (lambda p: [*p, b"data: {}\n\n"], VerifyError, "response body hashes to"),
        (lambda p: p[:-1], VerifyError, "response body hashes to"),
        (lambda p: [*p[:1], b": hidden\rdata: {}\n\n", *p[1:]], VerifyError, "response body hashes to"),
        (lambda p: [*p[:-1], p[-2], p[-1]], FormatError, "more receipts than one"),
        (lambda p: [*p[:-2], b": strongroom-receipt {}\n\n", p[-1]], FormatError, "'key' is missing"),
        (lambda p: [*p[:-2], p[-2].replace(b'"complete":true', b'"complete":false'), p[-1]],
         VerifyError, "signature does not match"),
        (lambda p: [*p[:-2], p[-1]], ProtocolError, "http status 404"),
    ],
)  # fmt: skip
def test_a_changed_stream_is_refused(
    twist: Callable[[list[bytes]], list[bytes]], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        converse(Carrying(twist=twist))


@pytest.mark.guarantee("G12")
def test_a_receipt_for_a_stream_speaks_for_no_whole_answer() -> None:
    with pytest.raises(VerifyError, match="stream is True, want False"):
        converse(Lying(change=lambda r: replace(r, stream=True)))


def test_the_token_goes_with_both_requests() -> None:
    machine = Machine()
    converse(machine)
    asked = [request for request in machine.requests if request.target.startswith("/v1/")]
    assert [request.headers["authorization"] for request in asked] == ["Bearer secret-token"] * 2


@dataclass
class Lying(Machine):
    """Signs a receipt with something else in it."""

    change: Callable[[Receipt], Receipt] = lambda receipt: receipt

    def receipt(self, identifier: str, request: Request, response: bytes) -> SignedReceipt:
        honest = super().receipt(identifier, request, response).receipt
        return sign(self.change(honest), self.receipt_key)


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda r: replace(r, response_sha256=bytes(32)), "response body hashes to"),
        (lambda r: replace(r, request_sha256=bytes(32)), "request body hashes to"),
        (lambda r: replace(r, model=replace(r.model, root=bytes(32))), "model is not the one"),
        (lambda r: replace(r, model=replace(r.model, epoch=2)), "model is not the one"),
        (lambda r: replace(r, engine=replace(r.engine, version="0.0.1")), "engine is not the one"),
        (lambda r: replace(r, complete=False), "cut short"),
        (lambda r: replace(r, endpoint="/v1/completions"), "endpoint is"),
        (lambda r: replace(r, method="GET"), "method is"),
        (lambda r: replace(r, id="f" * 32), "id is"),
        (lambda r: replace(r, evidence_sha256=bytes(32)), "other evidence"),
        (lambda r: replace(r, served_at=r.served_at + 3600), "served_at is"),
    ],
)
def test_a_receipt_for_anything_else_is_refused(change: Callable[[Receipt], Receipt], why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        converse(Lying(change=change))


@dataclass
class OtherSigner(Machine):
    """Its receipts come, genuine in themselves, from a second key the same machine attested."""

    def keep(self, identifier: str, signed: SignedReceipt) -> None:
        honest_key, honest_evidence = self.receipt_key, self._receipt_evidence
        self.receipt_key = Ed25519PrivateKey.generate()
        self._receipt_evidence = self.receipt_bundle()
        again = replace(signed.receipt, evidence_sha256=self._receipt_evidence.digest)
        super().keep(identifier, sign(again, self.receipt_key))
        self.receipt_key, self._receipt_evidence = honest_key, honest_evidence


@pytest.mark.guarantee("G12")
def test_a_receipt_by_another_attested_key_is_refused() -> None:
    with pytest.raises(VerifyError, match="another key than the one this connection proved"):
        converse(OtherSigner())


@dataclass
class Forging(Machine):
    """Flips one bit of a receipt after it was signed."""

    def keep(self, identifier: str, signed: SignedReceipt) -> None:
        signature = bytes([signed.signature[0] ^ 1]) + signed.signature[1:]
        super().keep(identifier, replace(signed, signature=signature))


@dataclass
class Keepless(Machine):
    """Forgets its receipts."""

    def keep(self, identifier: str, signed: SignedReceipt) -> None:
        pass


@dataclass
class Silent(Machine):
    """Names no receipt, or names it wrongly."""

    name: str | None = None

    def answer(self, request: Request, engine: TLSEngine) -> tuple[int, dict[str, str], list[bytes]]:
        status, headers, pieces = super().answer(request, engine)
        named = {} if self.name is None else {"x-strongroom-receipt": self.name}
        return status, named if request.method == "POST" else headers, pieces


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize(
    ("machine", "error", "why"),
    [
        (Forging, VerifyError, "signature does not match"),
        (Keepless, ProtocolError, "http status 404"),
        (Silent, ProtocolError, "header x-strongroom-receipt is None"),
        (lambda: Silent(name="../../healthz"), ProtocolError, "want 32 hex digits"),
    ],
)
def test_no_receipt_is_no_proof(machine: Callable[[], Machine], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        converse(machine())


def test_a_proof_before_the_end_is_our_mistake() -> None:
    with pytest.raises(ProtocolError, match="before the answer's end"):
        converse(Machine(), early=True)


def test_a_receipt_from_before_the_key_is_refused() -> None:
    with pytest.raises(VerifyError, match="served_at"):
        converse(
            Lying(change=lambda r: replace(r, served_at=r.served_at - int(timedelta(days=1).total_seconds())))
        )


@dataclass
class Refusing(Machine):
    status: int = 400
    reason: bytes = b""

    def answer(self, request: Request, engine: TLSEngine) -> tuple[int, dict[str, str], list[bytes]]:
        if request.method == "POST":
            return self.status, {}, [self.reason]
        return super().answer(request, engine)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ConfigError),
        (401, ConfigError),
        (429, TransportError),
        (503, TransportError),
        (302, ProtocolError),
    ],
)
@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (b'{"error":{"message":"max_tokens is\\n too\\u001b big","type":"x"}}', "max_tokens is too"),
        (b'{"error":"plain"}', "plain"),
        (b"<html>", "no reason given"),
        (b"[]", "no reason given"),
        (b"x" * 100_000, "no reason given"),
    ],
)
def test_a_server_that_refuses(status: int, kind: type[StrongroomError], reason: bytes, shown: str) -> None:
    with pytest.raises(kind, match=f"server: http status {status}: {shown}") as caught:
        converse(Refusing(status=status, reason=reason))
    assert "\n" not in str(caught.value)
