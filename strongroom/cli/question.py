"""One question about evidence in files: what was given, believed and asked, and the shape of the answer."""

import re
import warnings
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.cli.pieces import Piece, Pieces
from strongroom.cli.verdicts import said_of_gpus
from strongroom.errors import ConfigError, FormatError, VerifyError
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.collateral import AMD_CRL, Collateral
from strongroom.evidence.detect import Kind
from strongroom.evidence.snp import TCB, SigningKey, SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.tdx import TDXQuote
from strongroom.host.collateral import supply, wanted
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.supply import Supplied
from strongroom.measure.tree import words
from strongroom.verify.bundle import tdx_collateral
from strongroom.verify.certificates import load
from strongroom.verify.claims import Claims
from strongroom.verify.roots import Roots
from strongroom.verify.tdx_collateral import TDXCollateral
from strongroom.wire.canonical import parse_json
from strongroom.wire.line import sentence

MAX_CERTIFICATES: Final = 64
_AMD_NAME: Final = re.compile(r"(ARK|SEV)-")
_MAX_JSON: Final = 2 << 20
_MOST_LINKS: Final = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found genuine; `claims` is None for what is no machine by itself, such as a manifest."""

    what: str
    facts: tuple[tuple[str, str], ...]
    claims: Claims | None
    simulated: bool
    not_checked: tuple[str, ...]

    @property
    def gaps(self) -> tuple[str, ...]:
        """What was not checked, each once."""
        return tuple(dict.fromkeys(self.not_checked))


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`pieces` is evidence and collateral alike: only pins and signatures tell what is worth believing."""

    pieces: Pieces
    roots: Roots
    now: datetime
    nonce: bytes | None = None  # what the asker sent, if it asked
    key: bytes | None = None  # DER SubjectPublicKeyInfo a bundle is to speak for
    store: Store | None = None

    def check_nonce(self, found: bytes, what: str) -> None:
        """Refuse evidence made for another nonce; shorter ones are followed by zeros."""
        if self.nonce is not None and found != self.nonce.ljust(len(found), b"\0"):
            raise VerifyError(f"{what} is {found.hex()}, want the nonce {self.nonce.hex()}")

    def certificates(self) -> tuple[bytes, ...]:
        """The DER of every certificate given, each once."""
        found: list[bytes] = []
        for piece in self.pieces.of(Kind.CERTIFICATES):
            found += ders(piece)
        if len(found) > MAX_CERTIFICATES:
            raise ConfigError(f"evidence: {len(found)} certificates given, want at most {MAX_CERTIFICATES}")
        return tuple(dict.fromkeys(found))

    def amd_issuers(self) -> CertificateTable:
        """The ASK and ARK among the certificates given: the first pair of which one names the other."""
        by_name = {str(name): der for der in self.certificates() if (name := name_of(der))}
        for name, der in by_name.items():
            issuer = _issuer(der)
            if _AMD_NAME.match(name) and issuer != name and issuer in by_name:
                return CertificateTable(ask=der, ark=by_name[issuer])
        return CertificateTable()

    def amd_table(self, report: SNPReport, table: CertificateTable) -> tuple[CertificateTable, bytes | None]:
        """The certificates for one report, and the revocation list where there is one."""
        is_vlek = report.signing_key is SigningKey.VLEK
        leaves = [
            der for der in self.certificates() if name_of(der) == f"SEV-{'VLEK' if is_vlek else 'VCEK'}"
        ]
        if len(leaves) > 1:
            raise ConfigError(f"snp report: {len(leaves)} leaf certificates given, want one")
        leaf = leaves[0] if leaves else None
        own = self._amd_issuers_of(leaf or table.vcek or table.vlek)
        kept = self._kept_amd(report, leaf or table.vcek or table.vlek)
        filled = CertificateTable(
            vcek=table.vcek or (None if is_vlek else leaf) or kept.vcek,
            vlek=table.vlek or (leaf if is_vlek else None),
            ask=own.ask or table.ask or kept.ask,
            ark=own.ark or table.ark or kept.ark,
        )
        return filled, self._amd_crl() or kept.crl

    def _amd_issuers_of(self, leaf: bytes | None) -> CertificateTable:
        if leaf is None:
            return self.amd_issuers()
        by_name = {str(name): der for der in self.certificates() if (name := name_of(der))}
        ask = by_name.get(_issuer(leaf))
        return CertificateTable(ask=ask, ark=by_name.get(_issuer(ask)) if ask is not None else None)

    def _kept_amd(self, report: SNPReport, leaf: bytes | None) -> CertificateTable:
        if self.store is None:
            return CertificateTable()
        product = _product(leaf) if report.version < 3 else None
        items = wanted.for_snp_report(report, product)
        return supply.amd_certificates(items, self.store, roots=self.roots, now=self.now)

    def _amd_crl(self) -> bytes | None:
        crl = self.pieces.one(Kind.CRL)
        if crl is None or not crl.startswith(b"-----"):
            return crl
        try:
            return x509.load_pem_x509_crl(crl).public_bytes(Encoding.DER)
        except ValueError as error:
            raise FormatError("revocation list: not one we can read") from error

    def tdx_collateral(self, quote: TDXQuote) -> TDXCollateral:
        """Intel's word on the platform of a quote: given, or kept."""
        given = self.pieces.one(Kind.TDX_COLLATERAL)
        if given is not None:
            return TDXCollateral.from_json(parse_json(given, "tdx collateral", max_bytes=_MAX_JSON))
        if self.store is None:
            raise VerifyError(
                "tdx quote: no collateral, want --collateral with Intel's (strongroom collateral fill)"
            )
        items = wanted.for_tdx_quote(quote)
        return tdx_collateral(supply.collateral(items, self.store, roots=self.roots, now=self.now))

    def supplied(self, bundle: Bundle) -> Supplied:
        """What goes with a bundle: given, or kept."""
        crl, kept = self._amd_crl(), Supplied()
        if self.store is not None:
            items = wanted.for_bundle(bundle, roots=self.roots, now=self.now)
            kept = supply.at_hand(items, self.store, roots=self.roots, now=self.now)
        given = Collateral.of({AMD_CRL: crl} if crl is not None else {})
        issuers = self.amd_issuers()
        return Supplied(
            collateral=given.over(kept.collateral), certificates=issuers if issuers.ask else kept.certificates
        )

    def path_of(self, leaf: bytes) -> list[bytes]:
        """The leaf and its issuers among the certificates given, by name, as far as they go."""
        by_name = {name_of(der): der for der in self.certificates()}
        chain = [leaf]
        while len(chain) < _MOST_LINKS and (issuer := by_name.get(_issuer(chain[-1]))) not in (
            None,
            chain[-1],
        ):
            chain.append(issuer)
        return chain


def freshness(question: Question) -> tuple[str, ...]:
    """What to say when nobody told which nonce was sent."""
    return () if question.nonce is not None else ("freshness: no --nonce given",)


def claims_facts(claims: Claims) -> tuple[tuple[str, str], ...]:
    """What a machine is, in words."""
    facts = [
        ("machine", f"{claims.tee.upper()} {claims.product}"),
        ("signed by", _signer(claims)),
        ("root", claims.root_sha256.hex()),
        ("measurement", f"{words(claims.measurement)}  ({claims.measurement.hex()})"),
        ("host data", claims.host_data.hex()),
        ("debug", "ALLOWED" if claims.debug else "off"),
        ("migration", "POSSIBLE" if claims.migration else "off"),
    ]
    if claims.reported_tcb is not None:
        facts.append(("tcb", shown_levels(claims.reported_tcb)))
    if claims.vmpl is not None:
        facts.append(("vmpl", str(claims.vmpl)))
    if (td := claims.tdx) is not None:
        facts += [
            ("tcb", f"{td.tcb_status}, level of {td.tcb_date:%Y-%m-%d}"),
            ("advisories", ", ".join(td.advisories) or "none"),
            *((f"rtmr{n}", rtmr.hex()) for n, rtmr in enumerate(td.body.rtmrs)),
            ("collateral", f"good until {td.valid_until:%Y-%m-%d %H:%M}"),
        ]
    if claims.gpus:
        facts.append(("gpus", str(claims.gpus)))
    if said := said_of_gpus(claims):
        facts.append(("gpu modes", said))
    return tuple(facts)


def shown_levels(tcb: TCB) -> str:
    return " ".join(f"{name}={level}" for name, level in tcb.levels().items())


def _signer(claims: Claims) -> str:
    return claims.leaf.upper() + (f" of {claims.csp_id}" if claims.csp_id else "")


def ders(piece: Piece) -> list[bytes]:
    """Every certificate of a file, in DER. Text around those in PEM means nothing, as elsewhere."""
    if piece.content.startswith(b"\x30"):
        return [piece.content]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about a certificate is said by who uses it
            loaded = x509.load_pem_x509_certificates(piece.content.rstrip(b"\0"))
            return [certificate.public_bytes(Encoding.DER) for certificate in loaded]
    except ValueError as error:
        raise FormatError(f"{piece.name}: certificates that cannot be read") from error


def name_of(der: bytes) -> str:
    return _common_name(load(der, "certificate").subject)


def _issuer(der: bytes) -> str:
    return _common_name(load(der, "certificate").issuer)


def _product(leaf: bytes | None) -> str | None:
    """Which of the products that never said so themselves; the chain decides whether it is true."""
    return None if leaf is None else _issuer(leaf).removeprefix("SEV-").removeprefix("VLEK-")


def _common_name(name: x509.Name) -> str:
    values = [str(a.value) for a in name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    return sentence(values[0], most=128) if len(values) == 1 else ""


def spki_of(der: bytes) -> bytes:
    """The public key of a certificate, as DER SubjectPublicKeyInfo."""
    certificate = load(der, "certificate")
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
