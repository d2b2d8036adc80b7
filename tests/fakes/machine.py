"""A confidential VM with its door, in threads of the test: real TLS, real evidence of simulated silicon.

A `Machine` answers as the real door does. Tests of refusals subclass it and lie in one place.
"""

import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import h11
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from demo.silicon.mint import Silicon
from strongroom.errors import StrongroomError
from strongroom.evidence.binding import (
    EXPORTER_LABEL,
    Purpose,
    certificate_challenge,
    channel_challenge,
    gpu_nonce,
    receipt_challenge,
)
from strongroom.evidence.bundle import Bundle, GPUEvidence
from strongroom.evidence.eventlog import EventLog
from strongroom.host.door.reply import EVENT_STREAM
from strongroom.host.tls import ServerContext, TLSEngine
from strongroom.ratls import certificate
from strongroom.receipts import envelope
from strongroom.receipts.hashing import RECEIPT_COMMENT
from strongroom.receipts.receipt import Receipt, SignedReceipt, sign
from strongroom.wire.canonical import JSON, b64u, pack_json
from tests.fakes import silicon as silicon_fake
from tests.fakes.exchange import ENGINE, MODEL, events

WORDS = ("The sky ", "is blue ", "because…", "\n")


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Machine:
    silicon: Silicon = field(default_factory=silicon_fake.silicon)
    events: EventLog = field(default_factory=events)
    gpus: Callable[[bytes], tuple[GPUEvidence, ...]] = lambda _nonce: ()
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    receipt_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    words: Sequence[str] = WORDS
    carries: bool = False  # whether its streams carry their receipts, beside other comments
    requests: list[Request] = field(default_factory=list)
    receipts: dict[str, bytes] = field(default_factory=dict)
    not_before: datetime = field(
        default_factory=lambda: datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=5)
    )

    @property
    def spki(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def receipt_spki(self) -> bytes:
        return self.receipt_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def attest(self, purpose: Purpose, challenge: bytes, key: bytes) -> Bundle:
        return silicon_fake.bundle(
            self.silicon,
            purpose=purpose,
            challenge=challenge,
            key=key,
            events=self.events,
            gpus=self.gpus(gpu_nonce(challenge, key)),
        )

    def certificate(self) -> bytes:
        bundle = self.attest(Purpose.RA_TLS, certificate_challenge(self.not_before), self.spki)
        return certificate.build(
            key=self.key,
            bundle=bundle,
            names=["127.0.0.1"],
            not_before=self.not_before,
            lifetime=timedelta(hours=24),
            serial=secrets.randbits(127) + 1,
        )

    def channel_bundle(self, nonce: bytes, exporter: bytes) -> Bundle:
        return self.attest(Purpose.CHANNEL, channel_challenge(nonce, exporter), self.spki)

    def receipt_bundle(self) -> Bundle:
        return self.attest(Purpose.RECEIPT_KEY, receipt_challenge(self.not_before), self.receipt_spki)

    def evidence(self, nonce: bytes, exporter: bytes) -> bytes:
        receipt_key: dict[str, JSON] = {
            "key": b64u(self.receipt_spki),
            "not_before": int(self.not_before.timestamp()),
            "bundle": self._receipt_evidence.to_json(),
        }
        channel = self.channel_bundle(nonce, exporter)
        return pack_json({"channel": channel.to_json(), "receipt_key": receipt_key})

    def __post_init__(self) -> None:
        self._receipt_evidence = self.receipt_bundle()
        self.context = ServerContext.of(key=self.key, certificate=self.certificate())

    def receipt(self, identifier: str, request: Request, response: bytes) -> SignedReceipt:
        receipt = Receipt(
            id=identifier,
            served_at=int(datetime.now(UTC).timestamp()),
            endpoint=request.target,
            method=request.method,
            model=MODEL,
            engine=ENGINE,
            request_sha256=sha256(request.body).digest(),
            response_sha256=sha256(response).digest(),
            complete=True,
            evidence_sha256=self._receipt_evidence.digest,
        )
        return sign(receipt, self.receipt_key)

    def keep(self, identifier: str, signed: SignedReceipt) -> None:
        """Hand this receipt out to whoever asks for `identifier`."""
        self.receipts[identifier] = envelope.pack(
            signed, not_before=self.not_before, evidence=self._receipt_evidence
        )

    def body(self, streamed: bool) -> list[bytes]:
        """The model's words as body pieces, [DONE] included."""
        if not streamed:
            choice = {"message": {"content": "".join(self.words)}, "finish_reason": "stop"}
            return [json.dumps({"choices": [choice]}).encode()]
        chunks = [{"choices": [{"delta": {"content": word}}]} for word in self.words]
        return [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks] + [b"data: [DONE]\n\n"]

    def answer(self, request: Request, engine: TLSEngine) -> tuple[int, dict[str, str], list[bytes]]:
        """Status, headers, and body in pieces."""
        path, _, query = request.target.partition("?")
        if path == "/.well-known/strongroom/evidence":
            nonce = bytes.fromhex(query.removeprefix("nonce="))
            return 200, {}, [self.evidence(nonce, engine.exporter(EXPORTER_LABEL, 32, nonce))]
        if path.startswith("/v1/receipts/"):
            kept = self.receipts.get(path.rpartition("/")[2])
            return (200, {}, [kept]) if kept is not None else (404, {}, [b"{}"])
        if path == "/v1/chat/completions":
            streamed = json.loads(request.body).get("stream", False)
            pieces = self.body(streamed)
            identifier = secrets.token_hex(16)
            signed = self.receipt(identifier, request, b"".join(pieces))
            headers = {"x-strongroom-receipt": identifier}
            if streamed and self.carries:
                return 200, {**headers, "content-type": EVENT_STREAM}, self.carrying(pieces, signed)
            self.keep(identifier, signed)
            return 200, headers, pieces
        return 404, {}, [b'{"error":{"message":"no such route"}}']

    def carrying(self, pieces: list[bytes], signed: SignedReceipt) -> list[bytes]:
        """A stream with its receipt in it, which is kept nowhere else."""
        again = sign(replace(signed.receipt, stream=True), self.receipt_key)
        comment = RECEIPT_COMMENT + pack_json(again.to_json()) + b"\n\n"
        return [b": ping\n\n", *pieces[:-1], b": pi", b"ng\n\n", comment, pieces[-1]]

    @property
    def prompts(self) -> list[Request]:
        """Requests that could have carried a prompt."""
        return [request for request in self.requests if request.method != "GET"]


@contextmanager
def serving(machine: Machine) -> Iterator[str]:
    """The machine's URL while it listens on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []
        accepting = threading.Thread(target=_accept, args=(listener, machine, threads))
        accepting.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            for thread in (accepting, *threads):
                thread.join(10)


def _accept(listener: socket.socket, machine: Machine, threads: list[threading.Thread]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threads.append(threading.Thread(target=_serve, args=(connection, machine)))
        threads[-1].start()


def _serve(connection: socket.socket, machine: Machine) -> None:
    connection.settimeout(10)
    # A client that leaves, or breaks off a handshake, is an everyday thing for a server.
    with connection, suppress(OSError, StrongroomError, h11.ProtocolError):
        engine, http = TLSEngine.server(machine.context), h11.Connection(h11.SERVER)
        request: h11.Request | None = None
        body = b""
        while data := connection.recv(65536):
            if plaintext := engine.feed(data):
                http.receive_data(plaintext)
            connection.sendall(engine.take())
            while not isinstance(event := http.next_event(), type):
                if isinstance(event, h11.Request):
                    request, body = event, b""
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage) and request is not None:
                    _reply(connection, engine, http, machine, _request(request, body))
            if engine.peer_closed:
                return


def _request(head: h11.Request, body: bytes) -> Request:
    headers = {key.decode(): value.decode() for key, value in head.headers}
    return Request(head.method.decode(), head.target.decode(), headers, body)


def _reply(
    connection: socket.socket, engine: TLSEngine, http: h11.Connection, machine: Machine, request: Request
) -> None:
    machine.requests.append(request)
    status, headers, pieces = machine.answer(request, engine)
    lines = [*headers.items(), ("transfer-encoding", "chunked")]
    out = [http.send(h11.Response(status_code=status, headers=lines))]
    out += [http.send(h11.Data(data=piece)) for piece in pieces]
    out += [http.send(h11.EndOfMessage())]
    for data in out:
        engine.send(data or b"")
        connection.sendall(engine.take())
    http.start_next_cycle()


def policy_text(machine: Machine, **changes: JSON) -> str:
    """A policy that accepts this machine, as YAML (JSON is YAML); `changes` replace keys, None removes one."""
    policy: dict[str, JSON] = {
        "version": 1,
        "measurements": [{"name": "test image", "value": machine.silicon.measurement.hex()}],
        "host_data": [machine.silicon.host_data.hex()],
        "insecure_simulated_roots": [machine.silicon.pki.ark_sha256.hex()],
        "model": {"root": MODEL.root.hex(), "minimum_epoch": MODEL.epoch},
        "engine": {"versions": [ENGINE.version]},
    }
    policy.update(changes)
    return json.dumps({key: value for key, value in policy.items() if value is not None})


def policy_file(directory: Path, machine: Machine, **changes: JSON) -> Path:
    path = directory / "policy.yaml"
    path.write_text(policy_text(machine, **changes))
    return path
