"""GET /v1/attestation/report, as clients of dstack's vllm-proxy expect it. Pure: what the agent said is an argument.

    signing_address, signing_algo, signing_public_key     the key of GET /v1/signature/{id}
    request_nonce            64 hex
    intel_quote              hex: the quote; without TDX what stands in its place (dstack_envelope.py)
    nvidia_payload           JSON text {"nonce", "evidence_list", "arch"}, as NVIDIA's service takes it, or null
    event_log                what was measured into four registers
    info                     the machine in dstack's words
    tls_cert_fingerprint     in version 2: SHA-256 of the TLS key's SPKI
    all_attestations         [all of this]

docs/formats/well-known.md says what of it proves what. Source: dstack-api of vllm-proxy.
"""

import json
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecars.proxy.face.facts import Facts
from strongroom.evidence import dstack_envelope
from strongroom.evidence import dstack_registers as registers
from strongroom.evidence.dstack_attestation import SNP, Attestation
from strongroom.evidence.dstack_envelope import Envelope
from strongroom.evidence.dstack_log import to_json, view
from strongroom.evidence.nvidia_certs import parse_chain
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.tdx import TDReportBody, TDXQuote
from strongroom.host.foreign import ForeignReport
from strongroom.receipts import legacy
from strongroom.wire.canonical import JSON, b64
from strongroom.wire.pem import pem

NONCE: Final = 32  # bytes
APP_ID: Final = 20  # bytes of the userdata's hash, where userdata names none
_SWITCHES: Final = {"ls10"}  # devices that have no place in this form


def report(
    made: ForeignReport, facts: Facts, *, key: legacy.Key, nonce: bytes, tls_spki: bytes | None
) -> dict[str, JSON]:
    """The whole answer. `tls_spki` is that of version 2."""
    body = td_body(made)
    one: dict[str, JSON] = {
        "signing_address": legacy.address(key),
        "signing_algo": legacy.ED25519 if isinstance(key, Ed25519PrivateKey) else legacy.ECDSA,
        "signing_public_key": public_key(key),
        "request_nonce": nonce.hex(),
        "report_data": made.report_data.hex(),
        "intel_quote": quote(made, body).hex(),
        "nvidia_payload": nvidia_payload(made, facts, nonce),
        "event_log": log(made, body),
        "info": info(made, body, facts),
        "vm_config": "",
        "tee": made.tee,
        **snp_members(made),
    }
    if tls_spki is not None:
        one["tls_cert_fingerprint"] = sha256(tls_spki).hexdigest()
    return {**one, "all_attestations": [one]}


def public_key(key: legacy.Key) -> str:
    """128 hex digits (x, y) of secp256k1, or 64 of ed25519."""
    if isinstance(key, Ed25519PrivateKey):
        return key.public_key().public_bytes_raw().hex()
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:].hex()


def log(made: ForeignReport, body: TDReportBody) -> list[JSON]:
    """Every register's entries. Ours are left out where register 3 does not follow our log."""
    ours = view(made.events) if body.rtmr3 == made.events.head else ()
    return to_json((*made.firmware, *ours))


def snp_members(made: ForeignReport) -> dict[str, JSON]:
    """What an SNP machine has in place of a quote, as its maker's tools read it."""
    if made.tee != "snp":
        return {}
    return {
        "snp_report": made.report.hex(),
        "snp_certificates": [b64(der) for der in _chain(made.certificates)],
    }


def td_body(made: ForeignReport) -> TDReportBody:
    """A TD's body, or what repeats an SNP report in its places."""
    if made.tee == "tdx":
        return TDXQuote.parse(made.report).body
    said = SNPReport.parse(made.report)
    return dstack_envelope.body(
        measurement=said.measurement,
        committed=said.host_data,
        head=made.events.head,
        report_data=made.report_data,
    )


def quote(made: ForeignReport, body: TDReportBody) -> bytes:
    """The TD quote; elsewhere what stands in its place."""
    if made.tee == "tdx":
        return made.report
    platform = SNP(report=made.report, cert_chain=_chain(made.certificates))
    attestation = Attestation(platform=platform, report_data=made.report_data)
    return Envelope(body=body, attestation=attestation.pack_v0()).pack()


def nvidia_payload(made: ForeignReport, facts: Facts, nonce: bytes) -> str | None:
    """JSON text for NVIDIA's attestation service, which takes GPUs of one kind at a time.

    None where there are GPUs and they were not asked: userdata does not let them answer a stranger's nonce.
    """
    if made.devices is None and facts.gpus.count:
        return None
    gpus = [device for device in made.devices or () if device.kind not in _SWITCHES]
    evidence = [
        {
            "certificate": b64(pem(parse_chain(gpu.certificates))),
            "evidence": b64(gpu.report),
            "arch": gpu.kind.upper(),
        }
        for gpu in gpus
    ]
    arch = gpus[0].kind.upper() if gpus else ""
    return json.dumps({"nonce": nonce.hex(), "evidence_list": evidence, "arch": arch})


def info(made: ForeignReport, body: TDReportBody, facts: Facts) -> dict[str, JSON]:
    """What of dstack's Info a stranger may know. Userdata itself is not shown: it names tenants."""
    tdx = made.tee == "tdx"
    snp = registers.mr_aggregated_snp(facts.launched.measurement, facts.launched.committed)
    aggregated = registers.mr_aggregated_tdx(body) if tdx else snp
    userdata = made.events.find("userdata") or b""
    return {
        "app_id": userdata[:APP_ID].hex(),
        "app_name": facts.model.name,
        "compose_hash": userdata.hex(),
        "mr_aggregated": aggregated.hex(),
        "os_image_hash": "",
        "vm_config": "",
        "tcb_info": {
            "mrtd": body.mr_td.hex(),
            **{f"rtmr{n}": register.hex() for n, register in enumerate(body.rtmrs)},
            "mr_aggregated": aggregated.hex(),
            "os_image_hash": "",
            "compose_hash": userdata.hex(),
            "event_log": log(made, body),
            "app_compose": "",
            "strongroom": {
                "tee": made.tee,
                "measurement": facts.launched.measurement.hex(),
                "model": facts.model.to_json(),
                "engine": facts.engine.to_json(),
            },
        },
    }


def _chain(table: bytes) -> tuple[bytes, ...]:
    """DER, leaf first."""
    kept = CertificateTable.parse(table)
    return tuple(der for der in (kept.vcek or kept.vlek, kept.ask, kept.ark) if der is not None)
