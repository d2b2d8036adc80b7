"""The authority of simulated silicon: a root and an intermediate like AMD's, under names that warn.

    INSECURE-SIMULATED-ARK   RSA-4096, signs itself
    INSECURE-SIMULATED-ASK   RSA-4096, signed by the ARK
    INSECURE-SIMULATED-VCEK  P-384, one per chip and per TCB, signed by the ASK

Signatures are RSASSA-PSS with SHA-384 and a salt of 48 bytes. As in silicon, the VCEK is not stored: it is
derived from a secret of the chip and the TCB. Source: AMD publication 57230 (VCEK certificate and KDS interface).
"""

import os
import secrets
import shutil
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID, ObjectIdentifier

from strongroom.errors import MachineError
from strongroom.evidence.snp import TCB
from strongroom.verify.roots import SIMULATED_LABEL

PRODUCT: Final = "Genoa"
RSA_BITS: Final = 4096
CA_LIFETIME: Final = timedelta(days=25 * 365)
VCEK_LIFETIME: Final = timedelta(days=7 * 365)
_AMD: Final = "1.3.6.1.4.1.3704.1"
_P384_ORDER: Final = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)
_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)


@dataclass(frozen=True, slots=True)
class PKI:
    """A root, an intermediate, and the one chip they vouch for."""

    ark_key: rsa.RSAPrivateKey = field(repr=False)
    ark: x509.Certificate
    ask_key: rsa.RSAPrivateKey = field(repr=False)
    ask: x509.Certificate
    chip_secret: bytes = field(repr=False)  # 32 bytes
    chip_id: bytes  # 64 bytes, the hwid of the VCEK
    _issued: dict[TCB, tuple[ec.EllipticCurvePrivateKey, x509.Certificate]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def ark_sha256(self) -> bytes:
        return self.ark.fingerprint(hashes.SHA256())

    def vcek_key(self, tcb: TCB) -> ec.EllipticCurvePrivateKey:
        """The chip's signing key at `tcb`: always the same one for the same chip and TCB."""
        return self._at(tcb)[0]

    def vcek(self, tcb: TCB) -> x509.Certificate:
        """The certificate of `vcek_key(tcb)`, as a key distribution service would issue it."""
        return self._at(tcb)[1]

    def _at(self, tcb: TCB) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        """Made once: a host asks for its chip's certificate once, and keeps it."""
        if (issued := self._issued.get(tcb)) is None:
            key = self._derive(tcb)
            issued = self._issued[tcb] = key, self._issue(tcb, key)
        return issued

    def _derive(self, tcb: TCB) -> ec.EllipticCurvePrivateKey:
        info = b"insecure-simulated/vcek/v1" + bytes(_spl(tcb).values())
        wide = HKDF(algorithm=hashes.SHA384(), length=56, salt=None, info=info).derive(self.chip_secret)
        return ec.derive_private_key(int.from_bytes(wide, "big") % (_P384_ORDER - 1) + 1, ec.SECP384R1())

    def _issue(self, tcb: TCB, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        builder = _builder("VCEK", self.ask.subject, self.ask.not_valid_before_utc, VCEK_LIFETIME)
        builder = builder.public_key(key.public_key()).serial_number(1)
        for arc, value in _vcek_extensions(tcb, self.chip_id):
            extension = x509.UnrecognizedExtension(ObjectIdentifier(f"{_AMD}.{arc}"), value)
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.ask_key, hashes.SHA384(), rsa_padding=_PSS)


def make_pki(not_before: datetime) -> PKI:
    """A new authority and chip, valid from `not_before`. Takes seconds: two RSA-4096 keys."""
    ark_key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    ask_key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    ark = _authority("ARK", _name("ARK"), ark_key, ark_key, not_before, path_length=None)
    ask = _authority("ASK", ark.subject, ask_key, ark_key, not_before, path_length=0)
    return PKI(ark_key, ark, ask_key, ask, secrets.token_bytes(32), secrets.token_bytes(64))


def kept_pki(directory: Path, not_before: datetime) -> PKI:
    """The authority kept in `directory`, made there first if it is missing. Files are 0600.

    The directory appears whole or not at all; of two processes that make it at once,
    one wins and both use that.
    """
    if not directory.exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        fresh = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
        fresh.mkdir(mode=0o700)
        try:
            _write_pki(fresh, make_pki(not_before))
            os.rename(fresh, directory)  # fails on a directory that another process has filled meanwhile
        except OSError:
            if not directory.exists():
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return _read_pki(directory)


def _authority(
    role: str,
    issuer: x509.Name,
    key: rsa.RSAPrivateKey,
    issuer_key: rsa.RSAPrivateKey,
    not_before: datetime,
    *,
    path_length: int | None,
) -> x509.Certificate:
    builder = _builder(role, issuer, not_before, CA_LIFETIME).public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=path_length is None,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        builder.serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer_key, hashes.SHA384(), rsa_padding=_PSS)
    )


def _builder(role: str, issuer: x509.Name, start: datetime, life: timedelta) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(role))
        .issuer_name(issuer)
        .not_valid_before(start)
        .not_valid_after(start + life)
    )


def _name(role: str) -> x509.Name:
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Strongroom demo, not a silicon vendor")
    return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, f"{SIMULATED_LABEL}-{role}")])


def _vcek_extensions(tcb: TCB, chip_id: bytes) -> list[tuple[str, bytes]]:
    named = [("1", _integer(0)), ("2", b"\x16" + bytes([len(PRODUCT)]) + PRODUCT.encode("ascii"))]
    spl = [(f"3.{arc}", _integer(value)) for arc, value in _spl(tcb).items()]
    return [*named, *spl, ("4", chip_id)]  # hwid stands raw, as in every certificate AMD issues


def _spl(tcb: TCB) -> dict[int, int]:
    parts = {1: tcb.bootloader, 2: tcb.tee, 3: tcb.snp, 4: 0, 5: 0, 6: 0, 7: 0, 8: tcb.microcode}
    if tcb.fmc is not None:
        raise MachineError(f"tcb: fmc is {tcb.fmc}, want none on {PRODUCT}")
    return parts


def _integer(value: int) -> bytes:
    size = value.bit_length() // 8 + 1  # DER: a high bit needs a zero byte before it
    return bytes([2, size]) + value.to_bytes(size, "big")


def _write_pki(directory: Path, pki: PKI) -> None:
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    files = {
        "ark.key": pki.ark_key.private_bytes(pem, pkcs8, plain),
        "ask.key": pki.ask_key.private_bytes(pem, pkcs8, plain),
        "ark.der": pki.ark.public_bytes(serialization.Encoding.DER),
        "ask.der": pki.ask.public_bytes(serialization.Encoding.DER),
        "chip.secret": pki.chip_secret,
        "chip.id": pki.chip_id,
    }
    for name, contents in files.items():
        file = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(file, "wb") as output:
            output.write(contents)
            os.fsync(file)


def _read_pki(directory: Path) -> PKI:
    try:
        return PKI(
            ark_key=_rsa_key(directory / "ark.key"),
            ark=x509.load_der_x509_certificate((directory / "ark.der").read_bytes()),
            ask_key=_rsa_key(directory / "ask.key"),
            ask=x509.load_der_x509_certificate((directory / "ask.der").read_bytes()),
            chip_secret=(directory / "chip.secret").read_bytes(),
            chip_id=(directory / "chip.id").read_bytes(),
        )
    except (OSError, ValueError) as error:
        raise MachineError(f"silicon state {directory}: cannot be read, remove it to start anew") from error


def _rsa_key(path: Path) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise MachineError(f"silicon state {path}: not an RSA key")
    return key
