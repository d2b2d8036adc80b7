"""Which collateral a piece of evidence takes to be verified.

The evidence is read here, not believed: what it asks for wrongly is public, and does not help to verify it.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from cryptography import x509

from strongroom.errors import ConfigError, FormatError, VerifyError
from strongroom.evidence import pck
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.hcl import HCLReport
from strongroom.evidence.kbs import AZURE, CompositeEvidence, KBSEvidence
from strongroom.evidence.nvidia_certs import parse_chain
from strongroom.evidence.pck import PCKExtension
from strongroom.evidence.rim import RIM
from strongroom.evidence.snp import SigningKey, SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.spdm import SPDMReport
from strongroom.evidence.tdx import TDXQuote
from strongroom.host.collateral.amd import AMDChip, AMDIssuers
from strongroom.host.collateral.intel import CA, IntelPlatform
from strongroom.host.collateral.item import Item, Parts
from strongroom.host.collateral.nvidia import NVIDIAManifest, statuses
from strongroom.verify.amd_leaf import Leaf
from strongroom.verify.certificates import load
from strongroom.verify.nvidia import Kind, verify_device
from strongroom.verify.roots import Roots
from strongroom.verify.snp import product_by_cpuid
from strongroom.verify.tdx_chain import PCK, PLATFORM_CA, common_name
from strongroom.wire.pem import certificates

SWITCH: Final = "ls10"  # what evidence of an NVSwitch is called
_EXTENSION: Final = x509.ObjectIdentifier(pck.OID)


def for_snp_report(report: SNPReport, product: str | None = None) -> list[Item]:
    """What AMD signed about the chip of a report.

    `product` is asked for only by reports of version 2, which do not name it: ConfigError without.
    """
    product = product_by_cpuid(report) or product
    if product is None:
        raise ConfigError("snp report: version 2 does not name its product, want it given (Milan or Genoa)")
    if report.signing_key is SigningKey.VLEK:  # the leaf comes from the cloud provider, with the evidence
        return [AMDIssuers(product, "vlek")]
    return [AMDChip.of(report, product), AMDIssuers(product, "vcek")]


def for_tdx_quote(quote: TDXQuote) -> list[Item]:
    """What Intel signed about the platforms a quote comes from. FormatError when its chain names none."""
    for der in certificates(quote.pck_chain.removesuffix(b"\0"), "pck chain", most=3):
        try:
            certificate = x509.load_der_x509_certificate(der)
            if not common_name(certificate.subject).startswith(PCK):
                continue
            value = certificate.extensions.get_extension_for_oid(_EXTENSION).value
            issuer = common_name(certificate.issuer)
        except (ValueError, TypeError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.InvalidVersion):
            continue  # said below
        if isinstance(value, x509.UnrecognizedExtension):
            ca: CA = "platform" if issuer.startswith(PLATFORM_CA) else "processor"
            return [IntelPlatform(PCKExtension.parse(value.value).fmspc, ca)]
    raise FormatError("pck chain: no pck certificate that names its platform, want one")


def for_nvidia_device(
    report: SPDMReport, chain: bytes, *, kind: Kind, roots: Roots, now: datetime
) -> list[Item]:
    """What NVIDIA signed about the firmware and driver of a GPU or switch, and its word on the chain.

    The names of reference values are put together from verified claims: VerifyError when it is not genuine.
    """
    claims = verify_device(
        report, chain, nonce=report.nonce, roots=roots, now=now, kind=kind, missing_fwid="accept"
    )
    names = [name for name in (claims.driver_rim_id, claims.vbios_rim_id) if name is not None]
    return [*map(NVIDIAManifest, names), *statuses(parse_chain(chain), "device")]


def for_bundle(bundle: Bundle, *, roots: Roots, now: datetime) -> list[Item]:
    """What the whole machine of a bundle takes. A part that cannot be read takes nothing: its verifier will say so."""
    found: list[Item] = []
    with suppress(ConfigError, FormatError, VerifyError):
        found += _for_cpu(bundle)
    for device in bundle.gpus:
        found += for_device(device, roots=roots, now=now)
    return list(dict.fromkeys(found))


def for_kbs(evidence: CompositeEvidence, *, roots: Roots, now: datetime) -> list[Item]:
    """What evidence for a key broker takes. A part that cannot be read takes nothing: its verifier will say so."""
    found: list[Item] = []
    with suppress(ConfigError, FormatError, VerifyError):
        found += _for_primary(evidence.primary)
    for device in evidence.gpus:
        found += for_device(device, roots=roots, now=now)
    return list(dict.fromkeys(found))


def for_device(device: GPUEvidence, *, roots: Roots, now: datetime) -> list[Item]:
    """What one GPU or switch of a bundle takes; nothing when it is not genuine."""
    kind: Kind = "switch" if device.kind == SWITCH else "gpu"
    try:
        report = SPDMReport.parse(device.report)
        return for_nvidia_device(report, device.certificates, kind=kind, roots=roots, now=now)
    except (FormatError, VerifyError):
        return []


def _for_cpu(bundle: Bundle) -> Iterator[Item]:
    match bundle.tee:
        case "tdx":
            yield from for_tdx_quote(TDXQuote.parse(bundle.report))
        case "azure-tdx":
            yield from for_tdx_quote(TDXQuote.parse(bundle.certificates))
        case "snp" | "azure-snp":
            is_azure = bundle.tee == "azure-snp"
            report = HCLReport.parse(bundle.report).hardware_report if is_azure else bundle.report
            yield from _for_snp(SNPReport.parse(report), CertificateTable.parse(bundle.certificates))


def _for_primary(evidence: KBSEvidence) -> Iterator[Item]:
    match evidence.tee:
        case "tdx":
            yield from for_tdx_quote(TDXQuote.parse(evidence.report))
        case "az-tdx-vtpm":
            yield from for_tdx_quote(TDXQuote.parse(evidence.certificates))
        case "snp" | "az-snp-vtpm":
            is_azure = evidence.tee in AZURE
            report = HCLReport.parse(evidence.report).hardware_report if is_azure else evidence.report
            yield from _for_snp(SNPReport.parse(report), CertificateTable.parse(evidence.certificates))


def _for_snp(report: SNPReport, table: CertificateTable) -> Iterator[Item]:
    product = Leaf(load(table.vcek, "vcek"), "vcek").product if table.vcek is not None else None
    is_whole = table.vcek is not None and table.ask is not None and table.ark is not None
    for item in for_snp_report(report, product):
        if not (is_whole and isinstance(item, AMDChip)):
            yield item


def raised_by(item: Item, parts: Parts) -> Sequence[Item]:
    """What a genuine answer takes itself: for reference values, the responder's word on who signed them."""
    if isinstance(item, NVIDIAManifest):
        return statuses(RIM.parse(parts["rim"]).certificates, "rim")
    return ()
