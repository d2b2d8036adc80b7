"""Certificates in dstack's profile: X.509 v3, P-256, evidence and identity in extensions of one private arc.

    1.3.6.1.4.1.62397.1.x, none of them critical; each value is an OCTET STRING around the payload
      1   TDX quote, and  2  event log as JSON, perhaps "ELGZv1" and gzip: until 0.5.5
      3   app id, 20 bytes
      4   what the certificate is for: app:custom, app:ca, kms:rpc
      8   attestation (dstack_attestation.py), stripped
      9   app info (dstack_app.py)

report_data of the evidence is SHA-512("ratls-cert:" || DER SubjectPublicKeyInfo). Anybody inside the machine can
ask for evidence with that report_data: a verifier must also see the certificate's key at work.
"""

import ipaddress
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.dstack_app import AppInfo
from strongroom.evidence.dstack_attestation import TDX, Attestation
from strongroom.evidence.dstack_binding import Tag, tagged
from strongroom.evidence.dstack_identity import APP_ID
from strongroom.evidence.dstack_log import parse as parse_log
from strongroom.evidence.tdx import TDXQuote
from strongroom.ratls.certificate import load
from strongroom.wire.der import DER, OCTET_STRING

APP_ROOT: Final = "App Root Cert"  # common name of an authority that no service issued
CUSTOM: Final = "app:custom"
AUTHORITY: Final = "app:ca"
MAX_LOG: Final = 16 * 1024  # bytes of an event log, unpacked
_ARC: Final = "1.3.6.1.4.1.62397.1"
_QUOTE, _LOG, _APP_ID, _USAGE, _ATTESTATION, _APP_INFO = (
    x509.ObjectIdentifier(f"{_ARC}.{n}") for n in (1, 2, 3, 4, 8, 9)
)
_GZIP: Final = b"ELGZv1"
_MAX_NAME: Final = 64  # characters of a common name (X.520)
_DNS_NAME: Final = re.compile(r"(?=.{1,253}$)(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
_SUBJECT: Final = "dstack certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a certificate carries in its extensions; None where it has none of that kind. Nothing is verified."""

    app_id: bytes | None
    usage: str | None
    attestation: Attestation | None
    app_info: AppInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the holder of a key wants certified. FormatError for names or times that no certificate can have."""

    not_before: datetime
    not_after: datetime
    subject: str = ""
    alt_names: tuple[str, ...] = ()  # DNS names or addresses
    server: bool = True
    client: bool = False

    def __post_init__(self) -> None:
        if self.not_before >= self.not_after:
            raise FormatError("not_before must be earlier than not_after")


def report_data(spki: bytes) -> bytes:
    """64 bytes: what evidence in a certificate with this DER SubjectPublicKeyInfo speaks for."""
    return tagged(Tag.CERTIFICATE, spki)


def authority(
    key: ec.EllipticCurvePrivateKey,
    *,
    not_before: datetime,
    not_after: datetime,
    serial: int,
    name: str = APP_ROOT,
    extensions: Sequence[x509.UnrecognizedExtension] = (),
) -> x509.Certificate:
    """A self-signed authority of an application, which signs leaves and one level of authorities."""
    builder = _builder(name, key.public_key(), not_before, not_after, serial).issuer_name(_name(name))
    builder = builder.add_extension(_key_usage(authority=True), critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


def leaf(
    public: ec.EllipticCurvePublicKey,
    request: Request,
    *,
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    serial: int,
    extensions: Sequence[x509.UnrecognizedExtension] = (),
) -> x509.Certificate:
    """A certificate for `public`, by an authority such as the above."""
    builder = _builder(request.subject, public, request.not_before, request.not_after, serial)
    builder = builder.issuer_name(issuer.subject)
    if request.alt_names:
        names = x509.SubjectAlternativeName([_general_name(name) for name in request.alt_names])
        builder = builder.add_extension(names, critical=not request.subject)  # RFC 5280 4.2.1.6
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    if purposes := [
        *([ExtendedKeyUsageOID.SERVER_AUTH] if request.server else []),
        *([ExtendedKeyUsageOID.CLIENT_AUTH] if request.client else []),
    ]:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def carrying(
    *,
    app_id: bytes | None = None,
    usage: str | None = CUSTOM,
    attestation: bytes | None = None,
    app_info: AppInfo | None = None,
) -> list[x509.UnrecognizedExtension]:
    """The extensions for these; `attestation` is one that is stripped and packed."""
    values = (
        (_APP_ID, app_id),
        (_USAGE, None if usage is None else usage.encode()),
        (_ATTESTATION, attestation),
        (_APP_INFO, None if app_info is None else app_info.pack()),
    )
    return [
        x509.UnrecognizedExtension(oid, _octet_string(value)) for oid, value in values if value is not None
    ]


def identity(der: bytes) -> Identity:
    """What a certificate carries. Raises FormatError when an extension is not of its form."""
    certificate = load(der)
    app_id, usage, info = (_payload(certificate, oid) for oid in (_APP_ID, _USAGE, _APP_INFO))
    if app_id is not None and len(app_id) != APP_ID:
        raise FormatError(f"{_SUBJECT}: app id is {len(app_id)} bytes, want {APP_ID}")
    try:
        text = None if usage is None else usage.decode("ascii")
    except UnicodeDecodeError as error:
        raise FormatError(f"{_SUBJECT}: usage is not ASCII") from error
    return Identity(
        app_id=app_id,
        usage=text,
        attestation=_attestation(certificate),
        app_info=None if info is None else AppInfo.parse(info),
    )


def require_bound(der: bytes) -> Attestation:
    """The attestation of a certificate, once it claims to speak for the certificate's key.

    That the claim is in the report, and the report genuine, is for whoever verifies the evidence. Raises VerifyError
    when there is no attestation, or it speaks for another key.
    """
    attestation = identity(der).attestation
    if attestation is None:
        raise VerifyError(f"{_SUBJECT}: it carries no evidence")
    spki = load(der).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if attestation.report_data != report_data(spki):
        raise VerifyError(f"{_SUBJECT}: its evidence speaks for another key")
    return attestation


def _attestation(certificate: x509.Certificate) -> Attestation | None:
    if (packed := _payload(certificate, _ATTESTATION)) is not None:
        return Attestation.parse(packed)
    quote, log = _payload(certificate, _QUOTE), _payload(certificate, _LOG)
    if quote is None:
        return None
    try:
        text = _unpacked(log or b"[]").decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{_SUBJECT}: event log is not UTF-8") from error
    body = TDXQuote.parse(quote).body
    return Attestation(platform=TDX(quote=quote, event_log=parse_log(text)), report_data=body.report_data)


def _unpacked(log: bytes) -> bytes:
    if not log.startswith(_GZIP):
        return log
    unpacker = zlib.decompressobj(wbits=31)
    try:
        data = unpacker.decompress(log[len(_GZIP) :], MAX_LOG + 1)
    except zlib.error as error:
        raise FormatError(f"{_SUBJECT}: event log is no gzip") from error
    if len(data) > MAX_LOG or not unpacker.eof or unpacker.unused_data:
        raise FormatError(f"{_SUBJECT}: event log is cut off, or longer than {MAX_LOG} bytes")
    return data


def _payload(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes | None:
    try:
        extension = certificate.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return None
    if not isinstance(extension, x509.UnrecognizedExtension):
        raise FormatError(f"{_SUBJECT}: extension {oid.dotted_string} is not opaque bytes")
    reader = DER(extension.value, _SUBJECT)
    content = reader.content(OCTET_STRING)
    reader.end()
    return content


def _octet_string(content: bytes) -> bytes:
    size = len(content)
    length = bytes((size,)) if size < 0x80 else size.to_bytes((size.bit_length() + 7) // 8, "big")
    return (
        bytes((OCTET_STRING,)) + (length if size < 0x80 else bytes((0x80 | len(length),)) + length) + content
    )


def _builder(
    subject: str, public: ec.EllipticCurvePublicKey, not_before: datetime, not_after: datetime, serial: int
) -> x509.CertificateBuilder:
    if not isinstance(public.curve, ec.SECP256R1):
        raise FormatError(f"{_SUBJECT}: key is on {public.curve.name}, want secp256r1")
    try:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .public_key(public)
            .serial_number(serial)
            .not_valid_before(not_before)
            .not_valid_after(not_after)
        )
    except ValueError as error:
        raise FormatError(
            f"{_SUBJECT}: a time is before 1950 or after 9999, or the serial is out of range"
        ) from error


def _name(common: str) -> x509.Name:
    if len(common) > _MAX_NAME or not common.isprintable():
        raise FormatError(f"subject: got {ascii(common)[:80]}, want at most {_MAX_NAME} printable characters")
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)] if common else [])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not _DNS_NAME.fullmatch(name):
        raise FormatError(f"alt name: {ascii(name)[:80]} is neither an address nor a DNS name")
    return x509.DNSName(name)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=authority, crl_sign=authority, encipher_only=False, decipher_only=False,
    )  # fmt: skip
