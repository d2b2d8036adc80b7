"""Quotes of TPMs, boot logs, and both of one boot, as Strongroom sees them."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import combinations
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from strongroom.errors import FormatError
from strongroom.evidence.tcglog import LogKind, TCGLog
from strongroom.evidence.tpm import Hash, TPMPublic, TPMQuote, TPMSignature
from strongroom.verify.roots import Anchor, Roots
from strongroom.verify.tcglog import replay
from strongroom.verify.tpm import SigningKey, TPMClaims, public_key, verify_quote
from strongroom.verify.tpm_chain import verify_ak_chain
from tests.vectors.index import Vector, VectorSet, certificates, window
from tests.vectors.judge import Observation

_PHASES: Final = (
    "enter-initrd",
    "leave-initrd",
    "sysinit",
    "ready",
    "shutdown",
    "final",
)  # systemd's, in order


@dataclass(frozen=True, slots=True)
class Quoted:
    """A quote, and the values it is over."""

    attest: bytes
    signature: bytes
    pcrs: Mapping[int, bytes]

    def verify(self, key: TPMPublic | SigningKey) -> tuple[TPMQuote, TPMClaims]:
        quote = TPMQuote.parse(self.attest)
        (selection,) = quote.pcr_select
        claims = verify_quote(
            quote,
            TPMSignature.parse(self.signature),
            key=key,
            nonce=quote.extra_data,
            pcrs={pcr: value for pcr, value in self.pcrs.items() if pcr in selection.pcrs},
            bank=selection.bank,
            wanted=selection.pcrs,
        )
        return quote, claims


def observe_log(vector: Vector, vectors: VectorSet, roots: Roots) -> Observation:
    """A log of either kind, replayed in every bank it has."""
    del roots
    kind = LogKind.CC if vector.kind.startswith("ccel") else LogKind.TPM
    observed = Observation()
    log = observed.attempt(lambda: TCGLog.parse(vectors.read(vector, "log"), kind))
    if log is not None:
        observed.found |= log_fields(log)
    return observed


def log_fields(log: TCGLog) -> dict[str, Any]:
    return {
        "entries": len(log.records),
        "bytes_used": log.size,
        "algorithms": ["sha1 (legacy TCG 1.2 log)"] if log.is_legacy else [str(bank) for bank in log.banks],
        "replayed": {
            str(bank): {str(n): value.hex() for n, value in replay(log, bank).items()} for bank in log.banks
        },
    }


def observe_quote(vector: Vector, vectors: VectorSet, roots: Roots) -> Observation:
    """Quotes in one message of Google's, or one in the JSON of the CoCo project."""
    observed = Observation()
    if "evidence" in vector.paths:
        one, bare = json_quote(json.loads(vectors.read(vector, "evidence")))
        checked = observed.attempt(lambda: one.verify(bare))
        observed.found |= quote_fields(*(checked or (None, None)))
        return observed
    public = TPMPublic.parse(vectors.read(vector, "ak_pub"))
    log = TCGLog.parse(vectors.read(vector, "event_log"), LogKind.TPM)
    (leaf,) = certificates(vectors.read(vector, "ak_cert"))
    same = leaf.public_key() == public_key(public)
    found = observed.found
    found["ak_attributes"] = hex(public.attributes)
    found["ak_matches_cert"] = same
    found["ak_cert_validity"] = [at.isoformat() for at in window(leaf)]
    issuers = [c for path in vector.paths["ca"] for c in certificates(vectors.bytes_at(path))]
    found["ak_chain_valid"] = ak_chain(leaf, issuers, Anchor.GCP_VTPM, observed, vectors, roots)
    message = _fields(vectors.read(vector, "attestation"))
    found["quotes"] = [_google_quote(raw, public, log, observed) for raw in message[2]]
    return observed


def ak_chain(
    leaf: x509.Certificate,
    issuers: list[x509.Certificate],
    anchor: Anchor,
    observed: Observation,
    vectors: VectorSet,
    roots: Roots,
) -> bool:
    """Whether the key's certificate verifies under the authority the vector itself names."""
    chain = [c.public_bytes(Encoding.DER) for c in (leaf, *issuers)]
    pins: dict[str, Any] = {anchor.value: roots.pins(anchor) | {sha256(chain[-1]).digest()}}
    named = replace(roots, **pins)
    now = vectors.moment(window(c) for c in (leaf, *issuers))
    return observed.attempt(lambda: verify_ak_chain(chain, anchor=anchor, roots=named, now=now)) is not None


def quote_fields(quote: TPMQuote | None, claims: TPMClaims | None) -> dict[str, Any]:
    valid = {"signature_valid": claims is not None, "pcr_digest_ok": claims is not None}
    if quote is None:
        return valid
    return valid | {
        "extra_data": quote.extra_data.hex(),
        "firmware_version": hex(quote.firmware_version),
        "clock": quote.clock,
        "reset_count": quote.reset_count,
        "restart_count": quote.restart_count,
        "safe": int(quote.safe),
    }


def pcr_values(raw: bytes) -> dict[int, bytes]:
    """A list by index, or an object by number in text; hex."""
    value = json.loads(raw)
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {int(index): bytes.fromhex(text) for index, text in items}


def observe_boot(vector: Vector, vectors: VectorSet, roots: Roots) -> Observation:
    """One measured boot: quote, log, and what was extended after the firmware's log ended."""
    del roots
    observed = Observation()
    log = TCGLog.parse(vectors.read(vector, "event_log"), LogKind.TPM)
    key = load_pem_public_key(vectors.read(vector, "ak"))
    pcrs = pcr_values(vectors.read(vector, "pcrs"))
    quoted = Quoted(vectors.read(vector, "quote"), vectors.read(vector, "sig"), pcrs)
    verified = observed.attempt(lambda: quoted.verify(key))  # type: ignore[arg-type]
    fields = quote_fields(*(verified or (None, None)))
    observed.found |= fields | {"quote_signature_valid": fields["signature_valid"]}
    replayed = replay(log, Hash.SHA256)
    wanted = vector.expect.get("log_replay_matches", {})
    observed.found["log_replay_matches"] = {n: replayed.get(int(n)) == pcrs[int(n)] for n in wanted}
    phases = _phases(replayed[11], pcrs[11])
    observed.found |= {
        "pcr11_from_log": replayed[11].hex(),
        "pcr11_phases": list(phases or ()),
        "pcr11_final": pcrs[11].hex(),
        "pcr11_phase_extension_matches": phases is not None,
    }
    for name in ("kernel_cmdline", "uname"):
        if name in vector.expect and _is_measured(vector.expect[name], log):
            observed.found[name] = vector.expect[name]
    return observed


def _is_measured(text: str, log: TCGLog) -> bool:
    """Whether a digest of the log is of this text: the log of a unified kernel has names, not contents."""
    digests = {record.digest(Hash.SHA256) for record in log.records}
    forms = (text.encode(), text.encode() + b"\n", text.encode("utf-16-le"))
    return any(sha256(form + end).digest() in digests for form in forms for end in (b"", b"\0", b"\0\0"))


def _phases(start: bytes, end: bytes) -> tuple[str, ...] | None:
    """The phases of a boot, in order, that lead from one value of PCR 11 to the other."""
    for count in range(len(_PHASES) + 1):
        for phases in combinations(_PHASES, count):
            value = start
            for phase in phases:
                value = sha256(value + sha256(phase.encode()).digest()).digest()
            if value == end:
                return phases
    return None


def json_quote(evidence: dict[str, Any]) -> tuple[Quoted, Any]:
    """A quote and its key in the JSON of the CoCo project."""
    quote = evidence["tpm_quote"]
    pcrs = [bytes.fromhex(v) if isinstance(v, str) else bytes(v) for v in quote["pcrs"]]
    quoted = Quoted(
        base64.b64decode(quote["message"]), base64.b64decode(quote["signature"]), dict(enumerate(pcrs))
    )
    return quoted, load_der_public_key(base64.b64decode(evidence["ak_public"]))


def _google_quote(raw: bytes, public: TPMPublic, log: TCGLog, observed: Observation) -> dict[str, Any]:
    fields = _fields(raw)
    values = _fields(fields[3][0])
    pcrs = {}
    for entry in values[2]:
        pair = _fields(entry)
        pcrs[_number(pair.get(1, [b"\0"])[0])] = pair[2][0]
    bank = Hash(_number(values[1][0]))
    quoted = Quoted(fields[1][0], fields[2][0], pcrs)
    verified = observed.attempt(lambda: quoted.verify(public))
    replayed = replay(log, bank)
    return quote_fields(*(verified or (None, None))) | {
        "bank": str(bank),
        "pcr_digest_hash": str(TPMSignature.parse(fields[2][0]).hash),
        "log_replay_matches": {str(n): replayed.get(n) == pcrs[n] for n in pcrs},
    }


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """A protocol buffer as raw fields by number; numbers stay in their little-endian bytes."""
    found: dict[int, list[bytes]] = {}
    for number, value in _wire(message):
        found.setdefault(number, []).append(value)
    return found


def _wire(message: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, after = _varint(message, at)
        if tag & 7 == 0:
            yield tag >> 3, value.to_bytes(8, "little")
            at = after
        elif tag & 7 == 2 and after + value <= len(message):
            yield tag >> 3, message[after : after + value]
            at = after + value
        else:
            raise FormatError(f"protobuf: field of wire type {tag & 7} at {at}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (message[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not message[at - 1] & 0x80:
            return value, at


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def spki(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
