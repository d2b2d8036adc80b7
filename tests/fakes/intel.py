"""Intel, in miniature: an authority that certifies one platform, a quoting enclave on it, and what Intel publishes.

Everything is made on the spot from P-256 keys; every name says that it is simulated. Change a field of `Platform`
with `dataclasses.replace` and what follows from it is signed anew, so each refusal can be shown alone.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from strongroom.evidence.enclave import EnclaveReport
from strongroom.evidence.pck import OID
from strongroom.evidence.tdx import SEPT_VE_DISABLE, TDReportBody, TDXQuote
from strongroom.verify.intel_json import SignedJSON
from strongroom.verify.roots import PRODUCTION, SIMULATED_LABEL, Roots
from strongroom.verify.tdx_collateral import TDXCollateral

NOW: Final = datetime(2026, 11, 20, 12, tzinfo=UTC)
START: Final = datetime(2025, 1, 1, tzinfo=UTC)
END: Final = datetime(2033, 1, 1, tzinfo=UTC)
MONTH: Final = timedelta(days=30)
FMSPC: Final = bytes.fromhex("90c06f000000")
QE_SIGNER: Final = bytes(range(32))
COMPONENTS: Final = (3, 3, 2, 2, 4, 1, 0, 5, *(0,) * 8)
PCE_SVN: Final = 13
QE_SVN: Final = 7
AUTH_DATA: Final = bytes(range(32))

BODY: Final = TDReportBody(
    tee_tcb_svn=bytes.fromhex("06010300") + bytes(12),
    mr_seam=b"\x11" * 48,
    mrsigner_seam=bytes(48),
    seam_attributes=0,
    td_attributes=SEPT_VE_DISABLE,
    xfam=0x602E7,
    mr_td=b"\x22" * 48,
    mr_config_id=bytes(48),
    mr_owner=bytes(48),
    mr_owner_config=bytes(48),
    rtmr0=b"\x30" * 48,
    rtmr1=b"\x31" * 48,
    rtmr2=b"\x32" * 48,
    rtmr3=bytes(48),
    report_data=bytes(range(64)),
)
BODY_1_5: Final = replace(BODY, tee_tcb_svn2=BODY.tee_tcb_svn, mr_service_td=bytes(48))
QE_REPORT: Final = EnclaveReport(
    cpu_svn=bytes(16),
    misc_select=0,
    isv_ext_prod_id=bytes(16),
    attributes=bytes.fromhex("1500000000000000e700000000000000"),
    mr_enclave=b"\x44" * 32,
    mr_signer=QE_SIGNER,
    config_id=bytes(64),
    isv_prod_id=2,
    isv_svn=QE_SVN,
    config_svn=0,
    isv_family_id=bytes(16),
    report_data=bytes(64),
)


@cache
def key(name: str) -> ec.EllipticCurvePrivateKey:
    """The test authority's key of this name, the same for a whole run."""
    return ec.generate_private_key(ec.SECP256R1())


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    length = bytes((size,)) if size < 0x80 else size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, *((0x80 | len(length),) if size >= 0x80 else ()))) + length + content


def der_oid(dotted: str) -> bytes:
    """An object identifier below 1.2, as Intel's are."""
    content = bytearray((42,))
    for arc in map(int, dotted.split(".")[2:]):
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(0x80 | arc & 0x7F)
        content += bytes(reversed(septets))
    return der(0x06, bytes(content))


def der_integer(value: int) -> bytes:
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def pair(arc: str, value: bytes) -> bytes:
    return der(0x30, der_oid(f"{OID}.{arc}"), value)


def pck_extension(
    *,
    components: tuple[int, ...] = COMPONENTS,
    pce_svn: int = PCE_SVN,
    fmspc: bytes = FMSPC,
    pce_id: bytes = bytes(2),
) -> bytes:
    """The SGX extension of a PCK certificate."""
    return der(
        0x30,
        pair("1", der(0x04, b"\x55" * 16)),
        pair(
            "2",
            der(
                0x30,
                *(pair(f"2.{n}", der_integer(svn)) for n, svn in enumerate(components, 1)),
                pair("2.17", der_integer(pce_svn)),
                pair("2.18", der(0x04, bytes(components))),
            ),
        ),
        pair("3", der(0x04, pce_id)),
        pair("4", der(0x04, fmspc)),
        pair("5", der(0x0A, b"\1")),
        pair("6", der(0x04, b"\x66" * 16)),
        pair(
            "7",
            der(0x30, *(pair(f"7.{n}", der(0x01, b)) for n, b in enumerate((b"\xff", b"\0", b"\xff"), 1))),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """How a certificate is made."""

    name: str
    key: Any
    issuer: str
    issuer_key: Any
    serial: int
    ca: bool = False
    start: datetime = START
    end: datetime = END
    digest: SHA256 | SHA384 = field(default_factory=SHA256)
    extensions: tuple[x509.ExtensionType, ...] = ()
    has_usage: bool = True
    critical: bool = False  # its own extensions

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def certificate(self) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            subject_name=_name(self.name),
            issuer_name=_name(self.issuer),
            public_key=self.key.public_key(),
            serial_number=self.serial,
            not_valid_before=self.start,
            not_valid_after=self.end,
        )
        if self.has_usage:
            usage = dict.fromkeys(
                "content_commitment key_encipherment data_encipherment key_agreement encipher_only "
                "decipher_only".split(),
                False,
            )
            builder = builder.add_extension(
                x509.KeyUsage(
                    digital_signature=not self.ca, key_cert_sign=self.ca, crl_sign=self.ca, **usage
                ),
                critical=True,
            ).add_extension(x509.BasicConstraints(ca=self.ca, path_length=None), critical=True)
        for extension in self.extensions:
            builder = builder.add_extension(extension, critical=self.critical)
        # RFC 6979: the same certificate every time it is asked for
        is_ec = isinstance(self.issuer_key, ec.EllipticCurvePrivateKey)
        return builder.sign(self.issuer_key, self.digest, ecdsa_deterministic=is_ec or None)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Nobody Corporation"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def simulated(name: str) -> str:
    return f"{name} {SIMULATED_LABEL}"


ROOT: Final = simulated("Intel SGX Root CA")
CA: Final = simulated("Intel SGX PCK Platform CA")


def pck(**extension: Any) -> Certified:
    """The platform's own certificate, with another extension."""
    value = x509.UnrecognizedExtension(x509.ObjectIdentifier(OID), pck_extension(**extension))
    return Certified(
        name=simulated("Intel SGX PCK Certificate"),
        key=key("pck"),
        issuer=CA,
        issuer_key=key("ca"),
        serial=0xC0FFEE,
        extensions=(value,),
    )


def level(
    components: tuple[int, ...], pce_svn: int, tdx: tuple[int, ...] | None, status: str, *advisories: str
) -> dict[str, Any]:
    """A platform's level as TCB info writes it; `tdx` is filled up with zeros."""
    tcb: dict[str, Any] = {"sgxtcbcomponents": [{"svn": svn} for svn in components], "pcesvn": pce_svn}
    if tdx is not None:
        tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in (*tdx, *(0,) * (16 - len(tdx)))]
    return {"tcb": tcb} | _standing(status, advisories)


def isv_level(isv_svn: int, status: str, *advisories: str) -> dict[str, Any]:
    return {"tcb": {"isvsvn": isv_svn}} | _standing(status, advisories)


def _standing(status: str, advisories: tuple[str, ...]) -> dict[str, Any]:
    listed = {"advisoryIDs": list(advisories)} if advisories else {}
    return {"tcbDate": "2026-05-01T00:00:00Z", "tcbStatus": status} | listed


def module(*levels: dict[str, Any], **changes: Any) -> dict[str, Any]:
    value = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    return value | changes | ({"tcbLevels": list(levels)} if levels else {})


TCB_INFO: Final[Mapping[str, Any]] = {
    "id": "TDX",
    "version": 3,
    "issueDate": "2026-11-10T00:00:00Z",
    "nextUpdate": "2026-12-10T00:00:00Z",
    "fmspc": FMSPC.hex().upper(),
    "pceId": "0000",
    "tcbType": 0,
    "tcbEvaluationDataNumber": 21,
    "tdxModule": module(),
    "tdxModuleIdentities": [
        module(isv_level(3, "UpToDate"), id="TDX_03"),
        module(isv_level(6, "UpToDate"), isv_level(4, "OutOfDate", "INTEL-SA-01036"), id="TDX_01"),
    ],
    "tcbLevels": [
        level(COMPONENTS, PCE_SVN, (5, 0, 3), "UpToDate"),
        level((2,) * 4 + (0,) * 12, 5, (5, 0, 2), "OutOfDate", "INTEL-SA-01103", "INTEL-SA-01036"),
    ],
}
QE_IDENTITY: Final[Mapping[str, Any]] = {
    "id": "TD_QE",
    "version": 2,
    "issueDate": "2026-11-11T00:00:00Z",
    "nextUpdate": "2026-12-11T00:00:00Z",
    "tcbEvaluationDataNumber": 20,
    "miscselect": "00000000",
    "miscselectMask": "FFFFFFFF",
    "attributes": "11000000000000000000000000000000",
    "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
    "mrsigner": QE_SIGNER.hex().upper(),
    "isvprodid": 2,
    "tcbLevels": [isv_level(6, "UpToDate"), isv_level(4, "OutOfDate", "INTEL-SA-00990")],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """One machine under a simulated authority."""

    root: Certified = Certified(
        name=ROOT, key=key("root"), issuer=ROOT, issuer_key=key("root"), serial=1, ca=True
    )
    ca: Certified = Certified(name=CA, key=key("ca"), issuer=ROOT, issuer_key=key("root"), serial=2, ca=True)
    signer: Certified = Certified(
        name=simulated("Intel SGX TCB Signing"),
        key=key("signer"),
        issuer=ROOT,
        issuer_key=key("root"),
        serial=3,
    )
    pck: Certified = field(default_factory=pck)
    body: TDReportBody = BODY
    version: int = 4
    qe_report: EnclaveReport = QE_REPORT
    auth_data: bytes = AUTH_DATA
    tcb_info: Mapping[str, Any] = field(default_factory=lambda: TCB_INFO)
    qe_identity: Mapping[str, Any] = field(default_factory=lambda: QE_IDENTITY)
    revoked: frozenset[int] = frozenset()  # serials, on both lists
    crl_start: datetime = NOW - MONTH / 2
    crl_end: datetime = NOW + MONTH / 2
    crl_critical: bool = False

    @property
    def roots(self) -> Roots:
        """The production roots, and this simulated one."""
        return PRODUCTION.with_insecure([sha256(self.root.der).digest()])

    def quote(self, **changes: Any) -> TDXQuote:
        """What the quoting enclave answers; `changes` are made after everything is signed."""
        numbers = key("attestation").public_key().public_numbers()
        attestation_key = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        bound = sha256(attestation_key + self.auth_data).digest().ljust(64, b"\0")
        qe_report = replace(self.qe_report, report_data=bound)
        quote = TDXQuote(
            version=self.version,
            user_data=bytes(20),
            body=self.body,
            signature=bytes(64),
            attestation_key=attestation_key,
            qe_report=qe_report,
            qe_report_signature=sign(self.pck.key, qe_report.pack()),
            qe_auth_data=self.auth_data,
            pck_chain=self.pck.pem + self.ca.pem + self.root.pem + b"\0",
        )
        quote = replace(quote, signature=sign(key("attestation"), quote.signed_part))
        return replace(quote, **changes)

    def collateral(self, **changes: Any) -> TDXCollateral:
        """What Intel publishes of this platform; `changes` are made after everything is signed."""
        collateral = TDXCollateral(
            tcb_info=self.signed("tcbInfo", self.tcb_info),
            tcb_info_chain=self.signer.pem + self.root.pem,
            qe_identity=self.signed("enclaveIdentity", self.qe_identity),
            qe_identity_chain=self.signer.pem + self.root.pem,
            root_crl=self.crl(self.root),
            pck_crl=self.crl(self.ca),
            pck_crl_chain=self.ca.pem + self.root.pem,
        )
        return replace(collateral, **changes)

    def signed(self, member: str, value: Mapping[str, Any] | bytes) -> bytes:
        data = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
        return SignedJSON(data, sign(self.signer.key, data)).pack(member)

    def crl(self, issuer: Certified) -> bytes:
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=_name(issuer.name), last_update=self.crl_start, next_update=self.crl_end
        )
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(x509.CRLNumber(1), critical=False)
        builder = builder.add_extension(authority, critical=False)
        for serial in self.revoked:
            entry = x509.RevokedCertificateBuilder(serial_number=serial, revocation_date=START).build()
            builder = builder.add_revoked_certificate(entry)
        if self.crl_critical:
            builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
        return builder.sign(issuer.key, SHA256()).public_bytes(Encoding.DER)


def sign(private: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """r || s, as quotes and Intel's documents write it."""
    r, s = decode_dss_signature(private.sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def tcb_info(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """TCB info after `change` was made to a copy of it."""
    value = json.loads(json.dumps(TCB_INFO))
    change(value)
    return value  # type: ignore[no-any-return]


def qe_identity(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The QE identity after `change` was made to a copy of it."""
    value = json.loads(json.dumps(QE_IDENTITY))
    change(value)
    return value  # type: ignore[no-any-return]
