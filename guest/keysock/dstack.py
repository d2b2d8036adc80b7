"""The methods of dstack's guest interface, v0 and v1: members in, members out. docs/formats/keysock.md has the table.

Source: dstack's guest API, v0 as of 0.5.11 and v1.
"""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from guest.keysock.agent import Agent
from guest.keysock.doors import Route, Table
from guest.keysock.fields import Fields
from guest.keysock.keyring import MAX_NAMES, Keyring, private_pem, window
from guest.keysock.machine import Described
from guest.keysock.quotes import Quoted, Quotes
from guest.keysock.rights import Granted, Method
from strongroom.errors import FormatError, PolicyError, VerifyError
from strongroom.evidence.dstack_binding import for_key
from strongroom.evidence.dstack_log import pack as pack_log
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.nvidia_json import DeviceEvidence, to_nvidia
from strongroom.keys.chain import Chain
from strongroom.keys.dstack import SIGNING_PATH, SIGNING_PURPOSE, AppKeys
from strongroom.ratls.dstack import CUSTOM, Request, carrying, report_data
from strongroom.verify.tpm_chain import split_der
from strongroom.wire.canonical import JSON
from strongroom.wire.pem import pem

COMPATIBLE: Final = "0.5.11"  # the release whose shapes these are
REVISION: Final = "strongroom"
MAX_DATA: Final = 4 << 20  # bytes that are signed or verified
GPU_NONCE: Final = 32  # bytes
_NVIDIA: Final = "nvidia-nvattest-collect-evidence-json-v1"
_NO_EVENTS: Final = "runtime events are the system's alone: want strict: false in strongroom.keys to add any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the methods work on."""

    agent: Agent
    machine: Described
    keyring: Keyring | None  # None: there are no keys
    quotes: Quotes
    strict: bool
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def keys(self) -> Keyring:
        if self.keyring is None:
            raise PolicyError(
                "keys: there are none on this machine, want a section strongroom.keys in userdata"
            )
        return self.keyring

    def v0(self) -> Table:
        return {
            "Version": Route(Method.VERSION, self.version),
            "Info": Route(Method.INFO, self.info),
            "GetKey": Route(Method.GET_KEY, self.get_key),
            "GetTlsKey": Route(Method.GET_TLS_KEY, self.get_tls_key),
            "GetQuote": Route(Method.GET_QUOTE, self.get_quote),
            "Attest": Route(Method.ATTEST, self.attest),
            "Sign": Route(Method.SIGN, self.sign),
            "Verify": Route(Method.VERIFY, self.verify),
            "EmitEvent": Route(Method.EMIT_EVENT, self.emit_event),
            "GpuInfo": Route(Method.ATTEST, self.gpu_info),
        }

    def v1(self) -> Table:
        return {
            "Version": Route(Method.VERSION, self.version),
            "Info": Route(Method.INFO, self.info_v1),
            "GetKey": Route(Method.GET_KEY, self.get_key_v1),
            "IssueCert": Route(Method.GET_TLS_KEY, self.get_tls_key),
            "Attest": Route(Method.ATTEST, self.attest_v1),
            "AttestGpu": Route(Method.ATTEST, self.attest_gpu),
        }

    def worker(self) -> Table:
        """What dstack shows to gateways; here to local callers alone."""
        return {
            "Version": Route(Method.VERSION, self.version),
            "Info": Route(Method.INFO, self.info),
            "GetAttestationForAppKey": Route(Method.GET_QUOTE, self.attestation_for_key),
        }

    def worker_v1(self) -> Table:
        return {
            "Version": Route(Method.VERSION, self.version),
            "Info": Route(Method.INFO, self.info_v1),
            "Health": Route(Method.INFO, self.health),
        }

    # identity

    def version(self, _: Granted, __: Fields) -> JSON:
        return {"version": COMPATIBLE, "rev": REVISION}

    async def info(self, _: Granted, __: Fields) -> JSON:
        return self.machine.info(await self.agent.log()).to_json()

    async def info_v1(self, _: Granted, __: Fields) -> JSON:
        return self.machine.info(await self.agent.log()).to_json_v1()

    async def health(self, _: Granted, __: Fields) -> JSON:
        await self.agent.log()  # one that does not answer is told as an error
        return {"healthy": True, "unhealthy": [], "error": ""}

    # keys

    def get_key(self, granted: Granted, fields: Fields) -> JSON:
        path, purpose = fields.text("path"), self.purpose(fields)
        granted.require_path(path)
        claim = self.keys.app.claim_v0(path, purpose, fields.text("algorithm"))
        return {"key": claim.key.hex(), "signature_chain": hex_chain(claim.chain)}

    def get_key_v1(self, granted: Granted, fields: Fields) -> JSON:
        domain = fields.text("domain")
        granted.require_path(domain)
        claim = self.keys.app.claim_v1(domain, fields.text("algorithm"))
        return {
            "key": claim.key.hex(),
            "public_key": claim.public_key.hex(),
            "signature_chain": hex_chain(claim.chain),
        }

    def purpose(self, fields: Fields) -> str:
        """What the app root key signs beside a public key: a colon in it could pass for the one that ends it."""
        purpose = fields.text("purpose")
        if self.strict and (":" in purpose or not purpose.isprintable()):
            raise FormatError(
                "purpose: holds a colon or an unprintable character, want none while keys are strict"
            )
        return purpose

    def sign(self, _: Granted, fields: Fields) -> JSON:
        algorithm, data = fields.text("algorithm"), _short(fields.hex("data"))
        made = self.keys.app.sign(algorithm, data)
        return {
            "signature": made.signature.hex(),
            "signature_chain": [made.signature.hex(), *hex_chain(made.chain)],
            "public_key": made.public_key.hex(),
        }

    def verify(self, _: Granted, fields: Fields) -> JSON:
        data = _short(fields.hex("data"))
        try:
            AppKeys.verify(fields.text("algorithm"), data, fields.hex("signature"), fields.hex("public_key"))
        except VerifyError:
            return {"valid": False}
        return {"valid": True}

    # certificates

    async def get_tls_key(self, granted: Granted, fields: Fields) -> JSON:
        """A new key pair every time, and a certificate that perhaps carries evidence for it."""
        return await self.issued(granted, fields, ec.generate_private_key(ec.SECP256R1()))

    async def issued(
        self, granted: Granted, fields: Fields, key: ec.EllipticCurvePrivateKey, *, server: bool = False
    ) -> JSON:
        start, end = window(self.now(), fields.moment("not_before"), fields.moment("not_after"))
        request = Request(
            not_before=start,
            not_after=end,
            subject=fields.text("subject"),
            alt_names=fields.texts("alt_names", most=MAX_NAMES),
            server=fields.flag("usage_server_auth", server),
            client=fields.flag("usage_client_auth"),
        )
        evidence, told = fields.flag("usage_ra_tls"), fields.flag("with_app_info")
        extensions = await self.extensions(granted, key.public_key(), evidence=evidence, told=told)
        chain = self.keys.certified(key, request, extensions)
        return {"key": private_pem(key), "certificate_chain": [*chain]}

    async def extensions(
        self, granted: Granted, key: ec.EllipticCurvePublicKey, *, evidence: bool, told: bool
    ) -> list[x509.UnrecognizedExtension]:
        """The extensions for a key that was made here: nobody can have them for another."""
        attestation, log = None, None
        if evidence:
            granted.require_evidence()
            spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            quoted = await self.quotes.over(granted, report_data(spki), key=spki)
            attestation, log = quoted.attested(stripped=True), quoted.log
        if told and log is None:
            log = await self.agent.log()
        app_info = self.machine.app(log) if told and log is not None else None
        issued = self.machine.app_id if self.keys.app.app_root_signature else None
        return carrying(app_id=issued, usage=CUSTOM, attestation=attestation, app_info=app_info)

    # evidence

    async def get_quote(self, granted: Granted, fields: Fields) -> JSON:
        quoted = await self.quotes.chosen(granted, fields.hex("report_data"))
        said = self._quote(quoted)
        if self.machine.machine.body is None:  # what is evidence where there is no tdx
            said["attestation"] = quoted.attested().hex()
        return said

    async def attest(self, granted: Granted, fields: Fields) -> JSON:
        return {
            "attestation": (await self.quotes.chosen(granted, fields.hex("report_data"))).attested().hex()
        }

    async def attest_v1(self, granted: Granted, fields: Fields) -> JSON:
        fields.flag(
            "include_boottime_gpu_evidence"
        )  # nobody saved any: what was judged at boot is in the log
        quoted = await self.quotes.chosen(granted, fields.hex("report_data"))
        return {"attestation": quoted.attested(1).hex(), "boottime_gpu_evidence": []}

    async def attest_gpu(self, granted: Granted, fields: Fields) -> JSON:
        nonce = fields.hex("nonce")
        if len(nonce) != GPU_NONCE:
            raise FormatError(f"nonce: {len(nonce)} bytes, want {GPU_NONCE}")
        devices = await self.quotes.gpus(granted, nonce)
        if not devices:
            return {"bundles": []}
        evidence = _nvidia(devices, nonce).encode().hex()
        return {"bundles": [{"vendor": "nvidia", "format": _NVIDIA, "evidence": evidence}]}

    async def gpu_info(self, granted: Granted, _: Fields) -> JSON:
        nonce = secrets.token_bytes(GPU_NONCE)
        devices = await self.quotes.gpus(granted, nonce)
        return {"attestation": _nvidia(devices, nonce) if devices else ""}

    async def attestation_for_key(self, granted: Granted, fields: Fields) -> JSON:
        """Evidence that names the public key of the one key that callers sign with."""
        algorithm = fields.text("algorithm")
        claim = self.keys.app.claim_v0(SIGNING_PATH, SIGNING_PURPOSE, algorithm)
        return self._quote(await self.quotes.over(granted, for_key(claim.public_key)))

    def _quote(self, quoted: Quoted) -> dict[str, JSON]:
        return {
            "quote": self.quotes.quote(quoted).hex(),
            "event_log": pack_log(self.machine.log(quoted.log)),
            "report_data": quoted.report_data.hex(),
            "vm_config": "",
        }

    # events

    async def emit_event(self, granted: Granted, fields: Fields) -> JSON:
        """Null, once the event is in the log and in the registers that follow it."""
        if self.strict:
            raise FormatError(_NO_EVENTS)
        name, payload = fields.text("event"), fields.hex("payload")
        await self.agent.event(caller=granted.caller.name, name=name, payload=payload)
        return None


def hex_chain(chain: Chain) -> list[JSON]:
    return [link.hex() for link in chain]


def _short(data: bytes) -> bytes:
    if len(data) > MAX_DATA:
        raise FormatError(f"data: {len(data)} bytes, want at most {MAX_DATA}")
    return data


def _nvidia(devices: tuple[GPUEvidence, ...], nonce: bytes) -> str:
    said = to_nvidia(
        tuple(
            DeviceEvidence(device.kind, pem(split_der(device.certificates)), device.report, nonce)
            for device in devices
        )
    )
    return json.dumps(said)
