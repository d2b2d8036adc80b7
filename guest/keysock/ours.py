"""Our own interface, beside dstack's: keys with epochs, keys that only sign, certificates, evidence, events, status.

    /v1/status  /v1/rights  /v1/keys  /v1/public-keys  /v1/signatures  /v1/certificates  /v1/evidence  /v1/events

Bytes are base64url, a member that is not known is an error, and a path that a caller does not name is his own name's.
docs/formats/agent-api.yaml describes each request and answer.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from guest.keysock.doors import Route, Table
from guest.keysock.dstack import MAX_DATA, Service
from guest.keysock.fields import Fields
from guest.keysock.keyring import DEFAULT_LIFETIME, MAX_LIFETIME, MAX_NAMES, private_pem, window
from guest.keysock.rights import Granted, Method
from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.binding import MIN_CHALLENGE
from strongroom.keys.epochs import Kind, public, sign
from strongroom.ratls.dstack import Request
from strongroom.wire.canonical import JSON, b64u
from strongroom.wire.framing import enc

MAX_CHALLENGE: Final = 64  # bytes
_PROOF: Final = b"strongroom/evidence-request/v1\0"


@dataclass(frozen=True, slots=True)
class Ours:
    service: Service

    def table(self) -> Table:
        return {
            "GET status": Route(Method.INFO, self.status),
            "GET rights": Route(Method.INFO, self.rights),
            "POST keys": Route(Method.GET_KEY, self.key),
            "POST public-keys": Route(Method.SIGN, self.public_key),
            "POST signatures": Route(Method.SIGN, self.signature),
            "POST certificates": Route(Method.GET_TLS_KEY, self.certificate),
            "POST evidence": Route(Method.ATTEST, self.evidence),
            "GET events": Route(Method.INFO, self.events),
            "POST events": Route(Method.EMIT_EVENT, self.event),
        }

    async def status(self, granted: Granted, fields: Fields) -> JSON:
        """What this machine is, and where its keys come from."""
        fields.only()
        machine, log = self.service.machine, await self.service.agent.log()
        return {
            "caller": granted.caller.name,
            "name": machine.plan.name,
            "app_id": machine.app_id.hex(),
            "userdata_sha256": machine.plan.userdata_sha256.hex(),
            "log_head": log.head.hex(),
            "events": len(log.events),
            **machine.ours(),
        }

    def rights(self, granted: Granted, fields: Fields) -> JSON:
        fields.only()
        return granted.to_json()

    def key(self, granted: Granted, fields: Fields) -> JSON:
        fields.only("path", "kind", "epoch")
        path, kind, epoch = self._named(granted, fields, Kind.SECRET)
        granted.require_path(path)
        secret = self.service.keys.secret(path, kind, epoch)
        return {"path": path, "kind": str(kind), "epoch": self._epoch(epoch), "key": b64u(secret)}

    def public_key(self, granted: Granted, fields: Fields) -> JSON:
        fields.only("path", "kind", "epoch")
        path, kind, epoch = self._named(granted, fields, Kind.ED25519)
        granted.require_sign(path)
        key = self.service.keys.signing_key(path, kind, epoch)
        return {"path": path, "kind": str(kind), "epoch": self._epoch(epoch), "public_key": b64u(public(key))}

    def signature(self, granted: Granted, fields: Fields) -> JSON:
        fields.only("path", "kind", "epoch", "data")
        path, kind, epoch = self._named(granted, fields, Kind.ED25519)
        granted.require_sign(path)
        if len(data := fields.b64u("data")) > MAX_DATA:
            raise FormatError(f"data: {len(data)} bytes, want at most {MAX_DATA}")
        key = self.service.keys.signing_key(path, kind, epoch)
        return {
            "path": path,
            "kind": str(kind),
            "epoch": self._epoch(epoch),
            "signature": b64u(sign(key, data)),
            "public_key": b64u(public(key)),
        }

    async def certificate(self, granted: Granted, fields: Fields) -> JSON:
        """A new P-256 key with a certificate for it."""
        fields.only("subject", "names", "server", "client", "evidence", "lifetime_s")
        service = self.service
        seconds = fields.whole("lifetime_s")
        lifetime = DEFAULT_LIFETIME if seconds is None else timedelta(seconds=min(seconds, 1 << 32))
        if not timedelta() < lifetime <= MAX_LIFETIME:
            raise FormatError(f"lifetime_s: got {seconds}, want 1..{int(MAX_LIFETIME.total_seconds())}")
        now = service.now()
        start, end = window(now, None, now + lifetime)
        request = Request(
            not_before=start,
            not_after=end,
            subject=fields.text("subject"),
            alt_names=fields.texts("names", most=MAX_NAMES),
            server=fields.flag("server", True),
            client=fields.flag("client"),
        )
        key = ec.generate_private_key(ec.SECP256R1())
        extensions = await service.extensions(
            granted, key.public_key(), evidence=fields.flag("evidence"), told=False
        )
        return {
            "key": private_pem(key),
            "chain": [*service.keys.certified(key, request, extensions)],
            "not_after": int(end.timestamp()),
        }

    async def evidence(self, granted: Granted, fields: Fields) -> JSON:
        """A bundle for this caller, its challenge, and a key that is shown to be its own, or none."""
        fields.only("challenge", "key", "proof", "path", "kind", "epoch")
        challenge = fields.b64u("challenge")
        if not MIN_CHALLENGE <= len(challenge) <= MAX_CHALLENGE:
            raise FormatError(f"challenge: {len(challenge)} bytes, want {MIN_CHALLENGE}..{MAX_CHALLENGE}")
        key = self._own_key(granted, fields, challenge)
        bundle = await self.service.quotes.bundle(granted, nonce=challenge, key=key)
        return {"caller": granted.caller.name, "key": b64u(key), "bundle": bundle.to_json()}

    async def events(self, _: Granted, fields: Fields) -> JSON:
        fields.only()
        log = await self.service.agent.log()
        return {"events": log.to_json(), "head": log.head.hex()}

    async def event(self, granted: Granted, fields: Fields) -> JSON:
        """One more event, after which the log is as in `events`."""
        fields.only("name", "payload")
        name, payload = fields.text("name"), fields.b64u("payload")
        log = await self.service.agent.event(caller=granted.caller.name, name=name, payload=payload)
        return {"events": log.to_json(), "head": log.head.hex()}

    def _own_key(self, granted: Granted, fields: Fields, challenge: bytes) -> bytes:
        """The DER SPKI that evidence is to speak for, once the caller has shown that he holds the other half."""
        if fields.has("path"):
            path, kind, epoch = self._named(granted, fields, Kind.ED25519)
            granted.require_sign(path)
            return public(self.service.keys.signing_key(path, kind, epoch))
        if not fields.has("key"):
            return b""
        spki = fields.b64u("key")
        signed = _PROOF + enc(granted.caller.name.encode()) + enc(challenge) + enc(spki)
        require_proof(spki, fields.b64u("proof"), signed)
        return spki

    def _named(self, granted: Granted, fields: Fields, default: Kind) -> tuple[str, Kind, int | None]:
        kind = fields.text("kind", str(default))
        if kind not in {*Kind}:
            raise FormatError(f"kind: got {kind[:40]!a}, want one of {', '.join(Kind)}")
        return fields.text("path", granted.caller.namespace), Kind(kind), fields.whole("epoch")

    def _epoch(self, epoch: int | None) -> int:
        return self.service.keys.epoch if epoch is None else epoch


def require_proof(spki: bytes, proof: bytes, signed: bytes) -> None:
    """Raise VerifyError unless `proof` is that key's signature: Ed25519, or ECDSA in DER with SHA-256."""
    try:
        key = load_der_public_key(spki)
    except (ValueError, TypeError) as error:
        raise FormatError("key: not a DER SubjectPublicKeyInfo") from error
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(proof, signed)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(proof, signed, ec.ECDSA(SHA256()))
        else:
            raise FormatError("key: neither ed25519 nor on a curve of ecdsa")
    except InvalidSignature:
        raise VerifyError("proof: not this key's over this request, want who asks to hold the key") from None
