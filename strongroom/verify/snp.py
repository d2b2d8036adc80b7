"""Is an SNP report genuine? Chain to a pinned root, leaf made for this chip and patch level, signature.

What the report says is not judged here: a debug guest with a good signature is genuine.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from strongroom.errors import VerifyError
from strongroom.evidence.snp import FAMILY_ZEN5, SigningKey, SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.verify.amd_chain import LeafKind, check_crl, verify_chain
from strongroom.verify.amd_leaf import Leaf
from strongroom.verify.certificates import load
from strongroom.verify.lacking import LackingError
from strongroom.verify.roots import Roots

_ECDSA_P384_SHA384: Final = 1
_MODELS: Final = (  # family, models, product
    (0x19, range(0x10), "Milan"),
    (0x19, range(0x10, 0x20), "Genoa"),
    (0x19, range(0xA0, 0xB0), "Genoa"),  # Bergamo and Siena share Genoa's root
    (0x1A, range(0x12), "Turin"),
)
_PRODUCTS_BEFORE_CPUID: Final = ("Milan", "Genoa")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that held."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsement:
    """Who vouches for a report, and what was looked at to believe it."""

    product: str
    leaf: LeafKind
    csp_id: str | None  # VLEK only
    simulated: bool
    root_sha256: bytes
    chip_id: bytes
    checks: tuple[Check, ...]
    not_checked: tuple[str, ...]


def verify_report(
    report: SNPReport,
    table: CertificateTable,
    *,
    roots: Roots,
    now: datetime,
    crl: bytes | None = None,
    issuers: CertificateTable | None = None,
) -> Endorsement:
    """Who endorses `report`, or VerifyError at the first step that does not hold.

    `table` came with the evidence. `issuers` is the caller's own ASK and ARK and wins where it has them; a leaf it
    has is used where the table has none. `crl` is the ARK's revocation list in DER. Whatever their source, the pins
    in `roots` decide.
    """
    kind = _leaf_kind(report)
    own = issuers or CertificateTable()
    found = (table.vcek or own.vcek) if kind == "vcek" else (table.vlek or own.vlek)
    certificate = load(_present(found, kind), kind)
    ask = load(_present(own.ask or table.ask, "ask"), "ask")
    ark = load(_present(own.ark or table.ark, "ark"), "ark")
    leaf = Leaf(certificate, kind)

    product = _product(report, leaf)
    root = verify_chain(certificate, ask, ark, kind=kind, product=product, roots=roots, now=now)
    if crl is not None:
        check_crl(crl, ask, ark, now)
    csp_id = _check_holder(report, leaf, kind)
    _check_levels(report, leaf, kind)
    _check_signature(report, leaf)

    return Endorsement(
        product=product,
        leaf=kind,
        csp_id=csp_id,
        simulated=root.simulated,
        root_sha256=root.sha256,
        chip_id=report.chip_id,
        checks=(
            Check("root", f"{'simulated' if root.simulated else product} root {root.sha256.hex()}"),
            Check("chain", f"{kind} under ask under ark, valid at {now.isoformat()}"),
            *((Check("revocation", "the ark's list does not name the ask"),) if crl is not None else ()),
            Check("chip", "hardware id equals chip_id" if kind == "vcek" else f"issued to {csp_id}"),
            Check("patch levels", "every level of the leaf equals reported_tcb"),
            Check("signature", "ECDSA P-384 with SHA-384 over the report"),
        ),
        not_checked=() if crl is not None else ("revocation of the ask: no revocation list given",),
    )


def product_by_cpuid(report: SNPReport) -> str | None:
    """The product a report's own CPUID bytes name; None before version 3, which had none."""
    if report.version < 3:
        return None
    family, model = report.cpuid_family, report.cpuid_model
    for known_family, models, product in _MODELS:
        if family == known_family and model in models:
            return product
    raise VerifyError(f"snp report: processor family {family:#x} model {model:#x} is not known")


def _leaf_kind(report: SNPReport) -> LeafKind:
    if report.signature_algo != _ECDSA_P384_SHA384:
        raise VerifyError(f"snp report: signature_algo is {report.signature_algo}, want 1 (ECDSA P-384)")
    match report.signing_key:
        case SigningKey.VCEK:
            return "vcek"
        case SigningKey.VLEK:
            return "vlek"
        case _:
            raise VerifyError(f"snp report: key_info is {report.key_info:#x}, want a VCEK or VLEK signature")


def _present(der: bytes | None, what: str) -> bytes:
    if der is None:
        raise LackingError(f"{what}: neither the evidence nor the verifier has this certificate, want it")
    return der


def _product(report: SNPReport, leaf: Leaf) -> str:
    found, product = leaf.product, product_by_cpuid(report)
    if product is None and found not in _PRODUCTS_BEFORE_CPUID:  # only these ever made such a report
        raise VerifyError(f"snp report: version 2 of a {found[:32]!a}, want Milan or Genoa")
    if product is not None and found != product:
        raise VerifyError(f"snp report: cpuid says {product}, its certificate {found[:32]!a}")
    return found


def _check_holder(report: SNPReport, leaf: Leaf, kind: LeafKind) -> str | None:
    if kind == "vlek":
        return leaf.csp_id
    if not any(report.chip_id):
        raise VerifyError("snp report: chip_id is masked, want the chip the vcek was made for")
    size = 8 if report.cpuid_family >= FAMILY_ZEN5 else 64
    if leaf.hwid(size).ljust(64, b"\0") != report.chip_id:
        raise VerifyError("vcek: hardware id differs from the report's chip_id")
    return None


def _check_levels(report: SNPReport, leaf: Leaf, kind: LeafKind) -> None:
    # AMD derives the leaf's key from reported_tcb, so the two can only differ in a spliced pair.
    certified, reported = leaf.levels(), report.reported_tcb.levels()
    if certified != reported:
        raise VerifyError(f"{kind}: patch levels are {_words(certified)}, the report says {_words(reported)}")
    current = report.current_tcb.levels()
    if any(current[name] < level for name, level in reported.items()):
        raise VerifyError(f"snp report: current tcb is {_words(current)}, below reported {_words(reported)}")


def _check_signature(report: SNPReport, leaf: Leaf) -> None:
    signature = encode_dss_signature(report.signature_r, report.signature_s)
    try:
        leaf.key.verify(signature, report.signed_part, ECDSA(SHA384()))
    except InvalidSignature as error:
        raise VerifyError("snp report: signature is not its certificate's (ECDSA P-384, SHA-384)") from error


def _words(levels: dict[str, int]) -> str:
    return " ".join(f"{name}={level}" for name, level in sorted(levels.items()))
