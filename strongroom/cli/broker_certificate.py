"""The broker's own TLS certificate: self-signed, P-256, pinned by guests through its key or as their only authority."""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from strongroom.errors import ConfigError

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
_SKEW: Final = timedelta(minutes=5)  # guests' clocks may be behind ours


@dataclass(frozen=True, slots=True)
class TLSCertificate:
    pem: str
    spki_sha256: bytes
    not_after: datetime


def write_certificate(directory: Path, names: Sequence[str], *, days: int) -> TLSCertificate:
    """A new certificate and key (0600) in `directory`; ConfigError when there is a key already."""
    if not 1 <= days <= 3650:
        raise ConfigError(f"--days: got {days}, want 1..3650")
    alternatives = [_general_name(name) for name in names]
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _build(key, alternatives, timedelta(days=days))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(directory / KEY, flags, 0o600)
    except FileExistsError:
        raise ConfigError(f"{directory / KEY}: exists already, guests may be pinned to it") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(private)
    (directory / CERTIFICATE).write_bytes(certificate.public_bytes(Encoding.PEM))
    return _described(certificate)


def read_certificate(path: Path) -> TLSCertificate:
    """The first certificate of a PEM file; ConfigError when there is none."""
    try:
        return _described(x509.load_pem_x509_certificate(path.read_bytes()))
    except (OSError, ValueError):
        raise ConfigError(f"{path}: not a PEM certificate we can read") from None


def _build(
    key: ec.EllipticCurvePrivateKey, names: Sequence[x509.GeneralName], life: timedelta
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "strongroom broker")])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    # Not an authority: a guest that trusts this certificate trusts this one key and nothing it might sign.
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass  # not an address, so a name
    if not name or len(name) > 253 or not all(_is_label(label) for label in name.split(".")):
        raise ConfigError(f"--name: got {name[:260]!r}, want a DNS name or an address")
    return x509.DNSName(name)


def _is_label(label: str) -> bool:
    plain = label.replace("-", "")
    return 1 <= len(label) <= 63 and label[0] != "-" != label[-1] and plain.isascii() and plain.isalnum()


def _described(certificate: x509.Certificate) -> TLSCertificate:
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = certificate.public_bytes(Encoding.PEM).decode()
    return TLSCertificate(pem, sha256(spki).digest(), certificate.not_valid_after_utc)
