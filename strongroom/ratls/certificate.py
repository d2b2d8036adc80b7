"""The certificate profile: X.509 v3, P-256, self-signed, with an evidence bundle in one extension.

The extension (2.23.133.5.4.9, tcg-dice-conceptual-message-wrapper; non-critical, because OpenSSL and mbedTLS
refuse unknown critical ones) holds a CMW record (RFC 9999): media type, bundle, and the indicator for evidence.
docs/formats/evidence.md has the profile.
"""

import ipaddress
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID

from strongroom.errors import ConfigError, FormatError
from strongroom.evidence.bundle import Bundle
from strongroom.ratls.cmw import pack_cmw, parse_cmw

OID: Final = x509.ObjectIdentifier("2.23.133.5.4.9")
MAX_BYTES: Final = 96 * 1024  # of the whole certificate: TLS stacks take 100 KiB of them
MAX_JSON: Final = 32 * 1024  # bytes of a bundle; a longer one, such as with several GPUs, is written in CBOR
MIN_LIFETIME: Final = timedelta(minutes=10)
MAX_LIFETIME: Final = timedelta(days=7)
_SUBJECT: Final = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "strongroom")])
_UNREADABLE: Final = (
    ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm,
    CryptographyDeprecationWarning,
)  # fmt: skip
_MAX_SERIAL: Final = 2**159  # RFC 5280: at most 20 octets, positive


def build(
    *,
    key: ec.EllipticCurvePrivateKey,
    bundle: Bundle,
    names: Sequence[str],
    not_before: datetime,
    lifetime: timedelta,
    serial: int,
) -> bytes:
    """DER of a certificate that carries `bundle`, which must already speak for `key` and `not_before`.

    `names` are DNS names or IP addresses, at least one. `not_before` is a whole minute: the evidence commits
    to minutes. Raises ConfigError when an argument is outside the profile.
    """
    if not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError(f"certificate: key is on {key.curve.name}, want secp256r1")
    if not_before.second or not_before.microsecond:
        raise ConfigError("certificate: not_before is not a whole minute")
    if not MIN_LIFETIME <= lifetime <= MAX_LIFETIME:
        raise ConfigError(f"certificate: lifetime is {lifetime}, want {MIN_LIFETIME}..{MAX_LIFETIME}")
    if not 0 < serial < _MAX_SERIAL:
        raise ConfigError("certificate: serial is outside 1..2^159-1")
    if not names:
        raise ConfigError("certificate: no names, want at least one")
    builder = (
        x509.CertificateBuilder()
        .subject_name(_SUBJECT)
        .issuer_name(_SUBJECT)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_before + lifetime)
    )
    for extension, critical in _extensions(names, bundle):
        builder = builder.add_extension(extension, critical)
    der = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    if len(der) > MAX_BYTES:
        raise ConfigError(f"certificate: {len(der)} bytes, want at most {MAX_BYTES}")
    return der


def _extensions(names: Sequence[str], bundle: Bundle) -> list[tuple[x509.ExtensionType, bool]]:
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (usage, True),
        (x509.ExtendedKeyUsage(purposes), False),
        (x509.SubjectAlternativeName([_general_name(name) for name in names]), False),
        (x509.UnrecognizedExtension(OID, pack_cmw(bundle, cbor=len(bundle.pack()) > MAX_JSON)), False),
    ]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise ConfigError(f"certificate: name {name!r} is neither an address nor an ASCII name") from error


def load(der: bytes) -> x509.Certificate:
    """The certificate, decoded within our limits and not verified. Raises FormatError."""
    if len(der) > MAX_BYTES:
        raise FormatError(f"certificate: {len(der)} bytes, want at most {MAX_BYTES}")
    try:
        # a serial that is not positive is a warning to the library; the profile refuses it
        with warnings.catch_warnings():
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(der)
        certificate.extensions, certificate.public_key()  # decoded once, so that errors come here
    except _UNREADABLE as error:
        raise FormatError("certificate: not one DER X.509 certificate") from error
    return certificate


def extract(der: bytes) -> Bundle:
    """The evidence bundle a certificate carries, not verified. Raises FormatError when it carries none."""
    try:
        extension = load(der).extensions.get_extension_for_oid(OID).value
    except x509.ExtensionNotFound as error:
        raise FormatError(f"certificate: no evidence extension {OID.dotted_string}") from error
    if not isinstance(extension, x509.UnrecognizedExtension):
        raise FormatError("certificate: the evidence extension is not opaque bytes")
    return parse_cmw(extension.value)
