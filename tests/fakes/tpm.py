"""A TPM as far as a verifier can see one: quotes, public areas, certificates, boot logs and HCL reports.

Every key is made once per run. The authority's names say INSECURE-SIMULATED.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from strongroom.evidence.hcl import HCLReport, ReportType
from strongroom.evidence.tcglog import EV_NO_ACTION, LogKind, Record, TCGLog
from strongroom.evidence.tpm import (
    Attributes,
    Curve,
    Hash,
    PCRSelection,
    Scheme,
    TPMPublic,
    TPMQuote,
    TPMSignature,
)
from strongroom.verify.roots import SIMULATED_LABEL
from strongroom.wire.canonical import b64u

AK_ATTRIBUTES: Final = (
    Attributes.FIXED_TPM
    | Attributes.FIXED_PARENT
    | Attributes.SENSITIVE_DATA_ORIGIN
    | Attributes.USER_WITH_AUTH
    | Attributes.RESTRICTED
    | Attributes.SIGN
)
NOW: Final = datetime(2026, 11, 20, tzinfo=UTC)
NONCE: Final = bytes(range(32))
PCRS: Final = {pcr: bytes((pcr,)) * 32 for pcr in (0, 1, 2, 3, 4, 7, 11)}
AIK: Final = "2.23.133.8.3"
_ALGORITHMS: Final = {
    Hash.SHA256: hashes.SHA256(),
    Hash.SHA384: hashes.SHA384(),
    Hash.SHA512: hashes.SHA512(),
}


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The key of that name."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(name: str, curve: Curve = Curve.P256) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1() if curve is Curve.P256 else ec.SECP384R1())


@dataclass(frozen=True, slots=True)
class FakeTPM:
    """A TPM with one attestation key."""

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    public: TPMPublic

    def quote(
        self,
        nonce: bytes = NONCE,
        pcrs: Mapping[int, bytes] | None = None,
        *,
        bank: Hash = Hash.SHA256,
        **changes: Any,
    ) -> tuple[TPMQuote, TPMSignature]:
        """A quote over `pcrs`, some fields of it as `changes` say; signed after the change."""
        values = PCRS if pcrs is None else pcrs
        algorithm = self.public.hash or Hash.SHA256
        quote = TPMQuote(
            qualified_signer=b"\0\x0b" + sha256(b"parent" + self.public.name).digest(),
            extra_data=nonce,
            clock=123456,
            reset_count=7,
            restart_count=0,
            safe=True,
            firmware_version=0x2020031200120003,
            pcr_select=(PCRSelection(bank, frozenset(values)),),
            pcr_digest=algorithm.digest(b"".join(values[pcr] for pcr in sorted(values))),
        )
        quote = replace(quote, **changes)
        return quote, self.sign(quote.pack())

    def sign(self, data: bytes) -> TPMSignature:
        scheme, name = self.public.scheme or Scheme.RSASSA, self.public.hash or Hash.SHA256
        algorithm = _ALGORITHMS[name]
        if isinstance(self.key, rsa.RSAPrivateKey):
            pss = padding.PSS(mgf=padding.MGF1(algorithm), salt_length=padding.PSS.MAX_LENGTH)
            number = self.key.sign(data, pss if scheme is Scheme.RSAPSS else padding.PKCS1v15(), algorithm)
            return TPMSignature(scheme, name, (number,))
        r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(algorithm)))
        return TPMSignature(scheme, name, tuple(n.to_bytes((n.bit_length() + 7) // 8, "big") for n in (r, s)))


def rsa_tpm(
    scheme: Scheme = Scheme.RSASSA, hash: Hash = Hash.SHA256, *, attributes: int = AK_ATTRIBUTES
) -> FakeTPM:
    """A TPM whose attestation key is RSA-2048."""
    key = rsa_key("ak")
    public = TPMPublic(
        name_alg=Hash.SHA256,
        attributes=Attributes(attributes),
        auth_policy=b"",
        scheme=scheme,
        hash=hash,
        curve=None,
        key_bits=2048,
        exponent=0,
        unique=(key.public_key().public_numbers().n.to_bytes(256, "big"),),
    )
    return FakeTPM(key, public)


def ec_tpm(curve: Curve = Curve.P256, hash: Hash = Hash.SHA256) -> FakeTPM:
    key = ec_key("ak", curve)
    numbers = key.public_key().public_numbers()
    public = TPMPublic(
        name_alg=Hash.SHA256,
        attributes=AK_ATTRIBUTES,
        auth_policy=b"",
        scheme=Scheme.ECDSA,
        hash=hash,
        curve=curve,
        key_bits=0,
        exponent=0,
        unique=(numbers.x.to_bytes(curve.size, "big"), numbers.y.to_bytes(curve.size, "big")),
    )
    return FakeTPM(key, public)


def certificate(
    subject: str,
    key: Any,
    issuer: str,
    issuer_key: rsa.RSAPrivateKey,
    *,
    is_ca: bool,
    path_length: int | None = None,
    purpose: str | None = AIK,
    signs_certificates: bool | None = None,
    start: datetime = datetime(2026, 1, 1, tzinfo=UTC),
    life: timedelta = timedelta(days=700),
    algorithm: hashes.SHA256 | hashes.SHA3_256 | None = None,
    more: Sequence[x509.ExtensionType] = (),
) -> bytes:
    """One certificate in DER; `more` extensions are critical."""
    issues = is_ca if signs_certificates is None else signs_certificates
    usage = dict.fromkeys(
        "content_commitment key_encipherment data_encipherment key_agreement crl_sign "
        "encipher_only decipher_only".split(),
        False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(int.from_bytes(sha256(subject.encode()).digest()[:8], "big") | 1)
        .not_valid_before(start)
        .not_valid_after(start + life)
        .add_extension(x509.BasicConstraints(is_ca, path_length), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not is_ca, key_cert_sign=issues, **usage), critical=True
        )
    )
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ObjectIdentifier(purpose)]), critical=False)
    for extension in more:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(issuer_key, algorithm or hashes.SHA256()).public_bytes(Encoding.DER)


ROOT_NAME: Final = f"{SIMULATED_LABEL} vTPM root"
ISSUER_NAME: Final = f"{SIMULATED_LABEL} vTPM CA 01"


def ak_chain(**changes: dict[str, Any]) -> list[bytes]:
    """AK, issuer, root; `leaf`, `issuer` and `root` change how `certificate` makes each."""
    root_key, issuer_key = rsa_key("vtpm root"), rsa_key("vtpm issuer")
    leaf: dict[str, Any] = {"subject": "a vtpm", "key": rsa_key("ak"), "is_ca": False}
    issuer: dict[str, Any] = {"subject": ISSUER_NAME, "key": issuer_key, "is_ca": True, "path_length": 0}
    root: dict[str, Any] = {"subject": ROOT_NAME, "key": root_key, "is_ca": True}
    leaf |= {"issuer": ISSUER_NAME, "issuer_key": issuer_key} | changes.get("leaf", {})
    issuer |= {"issuer": ROOT_NAME, "issuer_key": root_key} | changes.get("issuer", {})
    root |= {"issuer": ROOT_NAME, "issuer_key": root_key} | changes.get("root", {})
    return [certificate(**leaf), certificate(**issuer), certificate(**root)]


def log(
    events: Sequence[tuple[int, int, bytes]],
    *,
    kind: LogKind = LogKind.TPM,
    banks: Sequence[Hash] = (Hash.SHA256,),
) -> TCGLog:
    """A log of (register, type, event) whose digests are over the whole event."""
    spec = b"Spec ID Event03\0" + bytes(4) + bytes((0, 2, 0, 2)) + len(banks).to_bytes(4, "little")
    spec += b"".join(bank.to_bytes(2, "little") + bank.size.to_bytes(2, "little") for bank in banks) + b"\0"
    first = Record(kind.registers.start, EV_NO_ACTION, ((int(Hash.SHA1), bytes(20)),), spec, 0)
    records = [first, *(record(*event, banks=banks) for event in events)]
    return TCGLog(
        kind=kind,
        records=tuple(records),
        algorithms=tuple((int(bank), bank.size) for bank in banks),
        is_legacy=False,
        size=0,
    )


def record(register: int, type: int, event: bytes, *, banks: Sequence[Hash] = (Hash.SHA256,)) -> Record:
    digests = tuple((int(bank), bank.digest(event)) for bank in banks)
    return Record(register, type, digests, event, 0)


def runtime_data(tpm: FakeTPM, **changes: Any) -> bytes:
    """The JSON a paravisor would write around the attestation key of `tpm`."""
    modulus = b64u(tpm.public.unique[0])
    key = {"kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": modulus}
    configuration = {"console-enabled": False, "secure-boot": True, "tpm-enabled": True, "vmUniqueId": "A-1"}
    value = {"keys": [key], "vm-configuration": configuration, "user-data": "00" * 64} | changes
    return json.dumps(value, separators=(",", ":")).encode()


def hcl(variable_data: bytes, hardware_report: bytes, report_type: ReportType = ReportType.SNP) -> HCLReport:
    return HCLReport(
        version=2,
        report_type=report_type,
        hash_type=Hash.SHA256,
        hardware_report=hardware_report,
        variable_data=variable_data,
        size=2600,
    )
