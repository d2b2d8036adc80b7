"""A small NVIDIA: roots, devices that sign reports, signed reference values, and an OCSP responder.

Everything matches everything, so the whole path can be accepted; each test breaks one thing. Issuers say
INSECURE-SIMULATED in their names, and no default policy knows their roots. The real vectors are found here too.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256, sha384
from itertools import pairwise
from typing import Any, Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from lxml import etree

from strongroom.evidence.spdm import Measurement, Opaque, OpaqueField, SPDMReport
from strongroom.verify.roots import PRODUCTION, SIMULATED_LABEL, Roots
from tests import VECTORS

NOW: Final = datetime(2026, 11, 20, tzinfo=UTC)
ALWAYS: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
DRIVER: Final = "580.95.05"
VBIOS: Final = "96.00.9F.00.04"
SWITCH_VBIOS: Final = "96.10.55.00.01"
FWID: Final = sha384(b"firmware").digest()
DRIVER_INDICES: Final = (7, *range(21, 41))
VBIOS_INDICES: Final = (*range(7), *range(8, 13))
SWITCH_INDICES: Final = tuple(range(31))
SWID: Final = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
INDEX: Final = VECTORS / "index.json"


@dataclass(frozen=True)
class Authority:
    """A key and its certificate."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def sign(self, data: bytes) -> bytes:
        """r then s, 96 bytes."""
        r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(SHA384())))
        return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def usage(*, signs: bool, issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=issues,
        encipher_only=False,
        decipher_only=False,
    )


def issue(
    name: str,
    by: Authority | None = None,
    *,
    ca: bool = True,
    serial: int | None = None,
    start: datetime = datetime(2022, 1, 1, tzinfo=UTC),
    end: datetime = ALWAYS,
    depth: int | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    key: ec.EllipticCurvePrivateKey | None = None,
    hash: SHA256 | SHA384 | None = None,
) -> Authority:
    """A certificate issued by `by`, or by itself."""
    key = key or ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=by.certificate.subject if by else subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number() if serial is None else serial,
        not_valid_before=start,
        not_valid_after=end,
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
    builder = builder.add_extension(usage(signs=not ca, issues=ca), critical=True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return Authority(key, builder.sign(by.key if by else key, hash or SHA384()))


def simulated(name: str) -> str:
    return f"{name} {SIMULATED_LABEL}"


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = (
        bytes((size,)) if size < 0x80 else bytes((0x81, size)) if size < 0x100 else b"\x82" + size.to_bytes(2)
    )
    return bytes((tag,)) + length + content


def fwid_extension(*digests: bytes, composite: bool = True) -> tuple[x509.ExtensionType, bool]:
    """The DICE extension of Hopper, or (`composite` is False) of Blackwell."""
    sha384_oid = bytes.fromhex("0609608648016503040202")
    found = [der(0x30, sha384_oid + der(0x04, digest)) for digest in digests]
    if composite:
        oid, value = "2.23.133.5.4.1", der(0x30, b"\x02\x01\x01" + der(0x30, b"") + found[0])
    else:
        oid = "2.23.133.5.4.1.1"
        value = der(
            0x30, der(0x80, b"NVIDIA") + der(0x84, b"\0") + der(0xA6, b"".join(found)) + der(0x87, b"\0")
        )
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), False


def golden(chip: str, index: int) -> bytes:
    """What a device of this chip measures at golden index `index`."""
    return sha384(f"{chip} {index}".encode()).digest()


@dataclass(frozen=True)
class Device:
    """One GPU or switch: attestation key, device, and the three above."""

    kind: Literal["gpu", "switch"]
    chip: str
    chain: tuple[Authority, ...]

    @property
    def ders(self) -> tuple[bytes, ...]:
        return tuple(link.der for link in self.chain)

    @property
    def pem(self) -> bytes:
        return b"".join(link.certificate.public_bytes(Encoding.PEM) for link in self.chain)

    @property
    def pdi(self) -> bytes:
        return (self.chain[1].certificate.serial_number & (1 << 64) - 1).to_bytes(8, "big")

    def report(
        self,
        nonce: bytes,
        *,
        opaque: Mapping[Opaque, bytes | None] | None = None,
        measured: Mapping[int, bytes] | None = None,
    ) -> SPDMReport:
        """A signed report; `opaque` changes fields by type (None removes), `measured` values by golden index."""
        fields = self._opaque() | dict(opaque or {})
        values = {n: golden(self.chip, n) for n in range(64 if self.kind == "gpu" else 31)} | dict(
            measured or {}
        )
        report = SPDMReport(
            nonce=nonce,
            slot=0,
            measurements=tuple(Measurement(n + 1, 1, value) for n, value in sorted(values.items())),
            responder_nonce=sha256(nonce).digest(),
            opaque=tuple(OpaqueField(kind, value) for kind, value in fields.items() if value is not None),
            signature=bytes(95) + b"\1",
        )
        return self.sign(report)

    def sign(self, report: SPDMReport) -> SPDMReport:
        return replace(report, signature=self.chain[0].sign(report.signed_part))

    def _opaque(self) -> dict[Opaque, bytes | None]:
        if self.kind == "switch":
            return {
                Opaque.VBIOS_VERSION: SWITCH_VBIOS.encode(),
                Opaque.SWITCH_PDI: self.pdi,
                Opaque.GPU_PDI: bytes(64) + b"\xff" * 64,
            }
        first, second, third, fourth, last = bytes.fromhex(VBIOS.replace(".", ""))
        return {
            Opaque.VBIOS_VERSION: bytes((fourth, third, second, first, last, 0, 0, 0)),
            Opaque.BOARD_ID: b"\xb1\3\0\0",
            Opaque.CHIP_SKU: b"882\0\0\0",
            Opaque.PROJECT: b"1010\0",
            Opaque.PROJECT_SKU: b"0200\0",
            Opaque.DRIVER_VERSION: DRIVER.encode() + b"\0",
            Opaque.NVDEC0_STATUS: b"\xaa",
            Opaque.FWID: FWID,
            Opaque.PROTECTED_PCIE_STATUS: b"\x55",
            Opaque.OPAQUE_DATA_VERSION: b"\1\0",
            Opaque.FEATURE_FLAG: b"\0\0",
        }


@dataclass(frozen=True)
class NVIDIA:
    """Both authorities, of devices and of reference values (root first)."""

    device_root: Authority
    identity: Authority
    provisioner: Authority
    rim: tuple[Authority, ...]

    def roots(self) -> Roots:
        """The production roots, and these two simulated ones."""
        return PRODUCTION.with_insecure(sha256(root.der).digest() for root in (self.device_root, self.rim[0]))

    def device(self, n: int = 1, *, kind: Literal["gpu", "switch"] = "gpu", chip: str = "GH100") -> Device:
        """The `n`th device of a chip: "GH100", "GB100", or a switch."""
        name, part = ("LS_10 A01", "FSP") if kind == "switch" else (f"{chip} A01", "GSP")
        brand = 0x50 if kind == "switch" else 0x41
        serial = int.from_bytes(bytes((brand,)) + sha256(f"{name} {n}".encode()).digest()[:8], "big")
        brom = issue(simulated(f"{name} {part} BROM"), self.provisioner, serial=serial)
        fwids = (FWID,) if not chip.startswith("GB") else (FWID, bytes(48))
        extension = fwid_extension(*fwids, composite=not chip.startswith("GB"))
        leaf = issue(f"{name} {part} FMC LF", brom, ca=False, extensions=[extension])
        chain = (leaf, brom, self.provisioner, self.identity, self.device_root)
        return Device(kind, "LS10" if kind == "switch" else chip, chain)

    def driver_rim(self, chip: str = "GH100", version: str = DRIVER, **changes: Any) -> bytes:
        return self.sign_rim(manifest(chip, version, DRIVER_INDICES, 64, **changes))

    def vbios_rim(self, chip: str = "GH100", version: str = VBIOS, **changes: Any) -> bytes:
        return self.sign_rim(manifest(chip, version, VBIOS_INDICES, 64, **changes))

    def switch_rim(self, version: str = SWITCH_VBIOS, **changes: Any) -> bytes:
        return self.sign_rim(manifest("LS10", version, SWITCH_INDICES, 31, **changes))

    def sign_rim(self, text: str, *, chain: Sequence[Authority] | None = None) -> bytes:
        """`text` with an enveloped signature; `chain` (root first) replaces the signers."""
        signers = (chain or self.rim)[::-1]
        content = etree.tostring(etree.fromstring(text.encode()), method="c14n")
        info = signed_info(base64.b64encode(sha384(content).digest()).decode())
        bare = text.replace(
            "</SoftwareIdentity>", f'<ds:Signature xmlns:ds="{DS}">{info}</ds:Signature></SoftwareIdentity>'
        )
        element = etree.fromstring(bare.encode())[-1][0]
        value = base64.b64encode(signers[0].sign(etree.tostring(element, method="c14n"))).decode()
        keys = "".join(
            f"<ds:X509Certificate>{base64.encodebytes(link.der).decode()}</ds:X509Certificate>"
            for link in signers
        )
        tail = f"<ds:SignatureValue>{value}</ds:SignatureValue>"
        tail += f"<ds:KeyInfo><ds:X509Data>{keys}</ds:X509Data></ds:KeyInfo>"
        return bare.replace("</ds:SignedInfo>", "</ds:SignedInfo>" + tail).encode()

    def answers(self, chain: Sequence[Authority], **changes: Any) -> tuple[bytes, ...]:
        """OCSP answers for every certificate of `chain` (leaf first) but its root."""
        return tuple(answer(subject, issuer, **changes) for subject, issuer in pairwise(chain))


DS: Final = "http://www.w3.org/2000/09/xmldsig#"


def signed_info(digest: str) -> str:
    c14n = "http://www.w3.org/2006/12/xml-c14n11"
    return (
        f'<ds:SignedInfo><ds:CanonicalizationMethod Algorithm="{c14n}"/>'
        '<ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"/>'
        f'<ds:Reference URI=""><ds:Transforms><ds:Transform Algorithm="{DS}enveloped-signature"/>'
        f'<ds:Transform Algorithm="{c14n}"/></ds:Transforms>'
        '<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#sha384"/>'
        f"<ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>"
    )


def manifest(
    chip: str,
    version: str,
    active: Sequence[int],
    count: int,
    *,
    values: Mapping[int, Sequence[bytes]] | None = None,
) -> str:
    """An unsigned manifest in which `active` indices have their golden value, or those of `values`."""
    rows = []
    for index in range(count):
        digests = (values or {}).get(index) or ([golden(chip, index)] if index in active else [bytes(48)])
        hashes = " ".join(f'ns2:Hash{n}="{digest.hex()}"' for n, digest in enumerate(digests))
        rows.append(
            f'<ns0:Resource type="Measurement" index="{index}" active="{index in active}" '
            f'alternatives="{len(digests)}" {hashes} name="Measurement_{index}" size="48"/>'
        )
    return (
        f'<SoftwareIdentity xmlns="{SWID}" xmlns:ns0="{SWID}" '
        f'xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" name="{chip}" version="1.0" tagId="t">\n'
        '    <ns0:Entity name="Simulated" role="softwareCreator tagCreator"/>\n'
        f'    <ns0:Meta colloquialVersion="{version}" edition="GPU" product="{chip}"/>\n'
        f"    <ns0:Payload>{''.join(rows)}</ns0:Payload>\n</SoftwareIdentity>"
    )


def answer(
    subject: Authority,
    issuer: Authority,
    *,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    reason: x509.ReasonFlags | None = None,
    at: datetime = NOW - timedelta(hours=1),
    until: datetime | None = NOW + timedelta(hours=23),
    delegate: Authority | Literal["issuer"] | None = None,
    hash: HashAlgorithm | None = None,
    responder_id: ocsp.OCSPResponderEncoding = ocsp.OCSPResponderEncoding.HASH,
) -> bytes:
    """One response about `subject`, by a responder `issuer` certified unless said otherwise."""
    by = issuer if delegate == "issuer" else delegate or responder(issuer)
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=subject.certificate,
            issuer=issuer.certificate,
            algorithm=hash or SHA384(),
            cert_status=status,
            this_update=at,
            next_update=until,
            revocation_time=NOW - timedelta(days=9) if status is ocsp.OCSPCertStatus.REVOKED else None,
            revocation_reason=reason,
        )
        .responder_id(responder_id, by.certificate)
    )
    if delegate != "issuer":
        builder = builder.certificates([by.certificate])
    return builder.sign(by.key, SHA384()).public_bytes(Encoding.DER)


def responder(issuer: Authority, **changes: Any) -> Authority:
    """A responder certified by `issuer`."""
    extensions = [
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False),
        (x509.OCSPNoCheck(), False),
    ]
    return issue("OCSP responder", issuer, ca=False, **{"extensions": extensions} | changes)


@cache
def nvidia(now: datetime = NOW) -> NVIDIA:
    """The one simulated NVIDIA of a test run, whose signers of reference values are in time at `now`."""
    root = issue(simulated("Device Identity CA"))
    identity = issue(simulated("GH100 Identity"), root)
    rim_root = issue(simulated("CoRIM signing Root CA"), end=now + timedelta(days=9999))
    rim_ca = issue(simulated("Reference Value CA"), rim_root, end=now + timedelta(days=999))
    rim_l3 = issue(simulated("Reference Value L3"), rim_ca, depth=0, end=now + timedelta(days=99))
    start, end = now - timedelta(days=700), now + timedelta(days=30)
    signer = issue("RIM signer", rim_l3, ca=False, start=start, end=end)
    provisioner = issue(simulated("GH100 Provisioner ICA 1"), identity)
    return NVIDIA(root, identity, provisioner, (rim_root, rim_ca, rim_l3, signer))


def key_bits(authority: Authority) -> bytes:
    return authority.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def vectors(*kinds: str) -> list[dict[str, Any]]:
    """The real vectors of these kinds from index.json; none where they are absent."""
    if not INDEX.exists():
        return []
    return [vector for vector in json.loads(INDEX.read_text())["vectors"] if vector["kind"] in kinds]


def content(vector: dict[str, Any], file: str) -> bytes:
    path: str = vector["files"][file]
    return (VECTORS / path).read_bytes()
