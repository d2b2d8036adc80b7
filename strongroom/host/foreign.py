"""What the door asks of the agent besides our own evidence: reports whose report data others defined, and the boot.

    {"purpose": "dstack-report", "signing_algo", "nonce", "tls_spki_sha256"}
    {"purpose": "aci-report", "subject", "not_after", "receipt_key_id", "tls_spki_sha256", "tls_domain", "nonce"}
        {"tee", "report", "certificates", "report_data", "events", "firmware", "devices"}
    {"purpose": "boot-record"}
        {"boot": {...}}

The first is what a client of dstack's vllm-proxy expects, the second what a client of aci/1 does. The same socket and
the same frames as evidence.py. Bytes are base64url; the nonce of a keyset, its subject and its domain, and the TLS key
of a dstack report may be null. As there, report data are computed by the agent alone, in a shape that never is ours,
and the signing keys in them are those it gave the door: nobody can name another.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from strongroom.errors import FormatError, MachineError, ProtocolError, TransportError
from strongroom.evidence.dstack_log import Log
from strongroom.evidence.dstack_log import from_json as log_from_json
from strongroom.evidence.dstack_log import to_json as log_to_json
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.host.evidence import MAX_BYTES, TIMEOUT
from strongroom.receipts.aci import Keyset
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u
from strongroom.wire.framing import FrameReader, frame

MAX_GPUS: Final = 16  # switches included
_MAX_SENTENCE: Final = 200  # characters of the agent's sentence that we repeat
_READ: Final = 64 * 1024
_SUBJECT: Final = "foreign report"
_KEYS: Final = {"tee", "report", "certificates", "report_data", "events", "firmware", "devices"}


class Foreign(StrEnum):
    """What may be asked here. None of these is a purpose of our own evidence."""

    DSTACK = "dstack-report"
    ACI = "aci-report"
    BOOT = "boot-record"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignReport:
    """What the silicon says over report data in somebody else's shape, and all that belongs to it, unverified."""

    tee: str  # "snp" or "tdx"
    report: bytes
    certificates: bytes  # certificate table of the host
    report_data: bytes  # 64 bytes
    events: EventLog
    firmware: Log = ()  # what firmware measured into registers 0 to 2 of a TD
    devices: tuple[GPUEvidence, ...] | None = None  # over the very nonce that was asked with; None: not asked

    def to_json(self) -> dict[str, JSON]:
        return {
            "tee": self.tee,
            "report": b64u(self.report),
            "certificates": b64u(self.certificates),
            "report_data": b64u(self.report_data),
            "events": self.events.to_json(),
            "firmware": log_to_json(self.firmware),
            "devices": None if self.devices is None else [device.to_json() for device in self.devices],
        }

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        if not isinstance(value, dict) or value.keys() != _KEYS:
            raise FormatError(f"{_SUBJECT}: want exactly {', '.join(sorted(_KEYS))}")
        tee, devices = value["tee"], value["devices"]
        if tee not in ("snp", "tdx") or not isinstance(devices, list | None) or len(devices or ()) > MAX_GPUS:
            raise FormatError(f"{_SUBJECT}: want tee snp or tdx, and at most {MAX_GPUS} devices, or null")
        if len(data := _octets(value, "report_data")) != 64:
            raise FormatError(f"{_SUBJECT}: report_data is {len(data)} bytes, want 64")
        return cls(
            tee=str(tee),
            report=_octets(value, "report"),
            certificates=_octets(value, "certificates"),
            report_data=data,
            events=EventLog.from_json(value["events"]),
            firmware=log_from_json(value["firmware"]),
            devices=None
            if devices is None
            else tuple(
                GPUEvidence.from_json(device, f"{_SUBJECT}.devices[{n}]") for n, device in enumerate(devices)
            ),
        )


def dstack_question(*, signing_algo: str, nonce: bytes, tls_spki_sha256: bytes | None) -> dict[str, JSON]:
    """For evidence that the door's key of this algorithm, and in version 2 a TLS key, are this machine's."""
    return {
        "purpose": str(Foreign.DSTACK),
        "signing_algo": signing_algo,
        "nonce": b64u(nonce),
        "tls_spki_sha256": None if tls_spki_sha256 is None else b64u(tls_spki_sha256),
    }


def aci_question(keyset: Keyset, *, nonce: bytes | None) -> dict[str, JSON]:
    """For evidence that a keyset is this machine's: all of it but the receipt key, which the agent knows.

    FormatError for one without a TLS key, or with an encryption key: the agent knows of none.
    """
    if keyset.tls is None or keyset.encryption is not None:
        raise FormatError("aci keyset: want a TLS key and no encryption key")
    return {
        "purpose": str(Foreign.ACI),
        "subject": keyset.subject,
        "not_after": keyset.not_after,
        "receipt_key_id": keyset.receipt_key_id,
        "tls_spki_sha256": b64u(keyset.tls.spki_sha256),
        "tls_domain": keyset.tls.domain,
        "nonce": None if nonce is None else b64u(nonce),
    }


async def request_report(
    path: Path, question: Mapping[str, JSON], *, timeout: float = TIMEOUT
) -> ForeignReport:
    """What the agent at `path` has to say. MachineError repeats a refusal, TransportError when nobody answers."""
    return ForeignReport.from_json(await _asked(path, question, timeout=timeout))


async def request_boot(path: Path, *, timeout: float = TIMEOUT) -> dict[str, JSON]:
    """What the agent shows of this boot: members of its boot record. Errors as of request_report()."""
    match await _asked(path, {"purpose": str(Foreign.BOOT)}, timeout=timeout):
        case {"boot": dict(boot), **rest} if not rest:
            return boot
    raise ProtocolError("boot record: the answer is none")


async def _asked(path: Path, question: Mapping[str, JSON], *, timeout: float) -> dict[str, JSON]:
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(frame(pack_json(dict(question))))
                await writer.drain()
                payload = await _one_frame(reader)
            finally:
                writer.close()
    except TimeoutError as error:
        raise TransportError(f"evidence socket {path}: no answer in {timeout:g} s") from error
    except OSError as error:
        raise TransportError(f"evidence socket {path}: {error.strerror}") from error
    answer = parse_json(payload, "evidence socket", max_bytes=MAX_BYTES)
    if not isinstance(answer, dict):
        raise ProtocolError("evidence socket: the answer is no object")
    if isinstance(sentence := answer.get("error"), str):
        printable = "".join(c if c.isprintable() else "?" for c in sentence[:_MAX_SENTENCE])
        raise MachineError(f"evidence socket: refused: {printable}")
    return answer


async def _one_frame(reader: asyncio.StreamReader) -> bytes:
    frames = FrameReader(max_frame=MAX_BYTES)
    while data := await reader.read(_READ):
        if payloads := frames.feed(data):
            return payloads[0]
    raise TransportError("evidence socket: closed before it answered")


def _octets(value: Mapping[str, JSON], name: str) -> bytes:
    if not isinstance(text := value[name], str):
        raise FormatError(f"{_SUBJECT}.{name}: got {type(text).__name__}, want base64url text")
    return unb64u(text, f"{_SUBJECT}.{name}")
