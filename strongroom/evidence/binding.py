"""What goes into report_data. The only place that computes it, for the machine and for every verifier.

    report_data = "strongroom/rd/v1" || SHA-384(enc(purpose) || enc(challenge) || enc(key) || enc(gpu_digest)
                                                || enc(context))                              64 bytes

`purpose` keeps evidence made for one use from being replayed for another; `challenge` makes it fresh; `key`
(DER SubjectPublicKeyInfo) says whom it speaks for; `gpu_digest` commits to the exact GPU evidence, whose own
nonce commits to challenge and key; `context` is the head of the event log. A TPM's quote, where there is one,
commits to report_data as a whole: that binds it to all of these, also where the CPU report cannot be fresh.

The KBS dialect has a shape of its own: a SHA-384 digest and 16 zero bytes. `is_reserved` knows both shapes,
so that bytes chosen by a caller of a local socket can never pass for either.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import sha256, sha384, sha512
from typing import Final

from strongroom.errors import FormatError
from strongroom.evidence.gpu import GPUEvidence
from strongroom.wire.canonical import JSON, pack_json
from strongroom.wire.framing import enc

MAGIC: Final = b"strongroom/rd/v1"
SIZE: Final = 64  # bytes of report_data
MIN_CHALLENGE: Final = 16  # bytes
EXPORTER_LABEL: Final = b"EXPORTER-strongroom-attestation"  # RFC 8446 7.5; context = the nonce, 32 bytes out
_KBS_HASHES: Final = {"sha256": sha256, "sha384": sha384, "sha512": sha512}
_KBS_SIZES: Final = {"sha256": 32, "sha384": 48, "sha512": 64}

_GPU_NONCE_LABEL: Final = b"strongroom/gpu-nonce/v1\0"
_TPM_NONCE_LABEL: Final = b"strongroom/tpm-nonce/v1\0"
_CHANNEL_LABEL: Final = b"strongroom/channel-challenge/v1\0"
_CERTIFICATE_MARKER: Final = b"strongroom/certificate-challenge/v1\0"
_RECEIPT_MARKER: Final = b"strongroom/receipt-challenge/v1\0"
_APPLICATION_LABEL: Final = b"strongroom/application-challenge/v1\0"


class Purpose(StrEnum):
    """Every use evidence may be made for."""

    RA_TLS = "ra-tls"
    CHANNEL = "channel"
    RECEIPT_KEY = "receipt-key"
    SEALED_BODIES = "sealed-bodies"
    APPLICATION = "application"
    BOOT = "boot"


def report_data(
    *, purpose: Purpose, challenge: bytes, key: bytes, gpu_digest: bytes, context: bytes
) -> bytes:
    """The 64 bytes a CPU report must carry to speak for exactly these five things."""
    if len(challenge) < MIN_CHALLENGE:
        raise FormatError(f"challenge: {len(challenge)} bytes, want at least {MIN_CHALLENGE}")
    fields = (Purpose(purpose).encode(), challenge, key, gpu_digest, context)
    return MAGIC + sha384(b"".join(map(enc, fields))).digest()


def gpu_nonce(challenge: bytes, key: bytes) -> bytes:
    """The 32-byte SPDM nonce, the same for every device; `key` is DER SubjectPublicKeyInfo."""
    return sha256(_GPU_NONCE_LABEL + enc(challenge) + enc(sha256(key).digest())).digest()


def tpm_nonce(report_data: bytes) -> bytes:
    """The 32 bytes of extraData in a TPM quote made beside a CPU report with this report_data."""
    if len(report_data) != SIZE or not report_data.startswith(MAGIC):
        raise FormatError("tpm nonce: report_data is not one computed here")
    return sha256(_TPM_NONCE_LABEL + report_data).digest()


def gpu_digest(devices: Iterable[GPUEvidence]) -> bytes:
    """SHA-384 over every device, ordered by kind, certificates, report; empty when there is no device."""
    ordered = sorted(devices)
    if not ordered:
        return b""
    fields = (enc(d.kind.encode()) + enc(d.report) + enc(d.certificates) for d in ordered)
    return sha384(b"".join(fields)).digest()


def channel_challenge(nonce: bytes, exporter: bytes) -> bytes:
    """The challenge of evidence made after a handshake: the client's nonce tied to that TLS exporter."""
    if len(nonce) != 32 or len(exporter) != 32:
        raise FormatError(f"channel: nonce {len(nonce)}, exporter {len(exporter)} bytes, want 32 and 32")
    return sha256(_CHANNEL_LABEL + enc(nonce) + enc(exporter)).digest()


def certificate_challenge(not_before: datetime) -> bytes:
    """The challenge of evidence inside a certificate: marker, then BE64 minutes since 1970."""
    return _CERTIFICATE_MARKER + _minutes(not_before)


def receipt_challenge(not_before: datetime) -> bytes:
    """The challenge of evidence for a receipt key: marker, then BE64 minutes since 1970."""
    return _RECEIPT_MARKER + _minutes(not_before)


def application_challenge(caller: str, nonce: bytes) -> bytes:
    """The challenge of evidence that a program inside the machine asked for; `caller` is what the kernel calls it.

    A unit ("api.service"), or "uid-1000" where there is none: evidence made for one program never passes for another's.
    """
    if len(nonce) < MIN_CHALLENGE:
        raise FormatError(f"challenge: {len(nonce)} bytes, want at least {MIN_CHALLENGE}")
    return sha384(_APPLICATION_LABEL + enc(caller.encode()) + enc(nonce)).digest()


def kbs_digest(members: Mapping[str, JSON], hash: str = "sha384") -> bytes:
    """The digest of KBS runtime data: `members` as canonical JSON (RFC 8785)."""
    if (function := _KBS_HASHES.get(hash)) is None:
        raise FormatError(f"kbs: hash is {hash[:32]!a}, want one of {', '.join(_KBS_HASHES)}")
    return function(pack_json(dict(members))).digest()


def kbs_report_data(digest: bytes, hash: str = "sha384") -> bytes:
    """report_data in the KBS shape: the digest, zero padded to 64 bytes.

    Only that of SHA-384 is reserved: `is_reserved` cannot tell another length from bytes a local caller chose. Whoever
    names another hash here accepts that, for a broker that takes no other.
    """
    if len(digest) != _KBS_SIZES.get(hash):
        raise FormatError(f"kbs: digest is {len(digest)} bytes, want {_KBS_SIZES.get(hash, 48)} ({hash})")
    return digest.ljust(SIZE, b"\0")


def is_reserved(data: bytes) -> bool:
    """Whether `data` has one of our shapes, so that no local caller may choose it as report_data."""
    if len(data) > SIZE:
        raise FormatError(f"report_data: {len(data)} bytes, want at most {SIZE}")
    return data.startswith(MAGIC) or 33 <= len(data.rstrip(b"\0")) <= 48


def _minutes(moment: datetime) -> bytes:
    if moment.tzinfo is None:
        raise FormatError("challenge: time has no zone, want an aware one")
    minutes = int(moment.timestamp()) // 60
    if minutes < 0:
        raise FormatError(f"challenge: time is {moment.isoformat()}, want one after 1970")
    return minutes.to_bytes(8, "big")
