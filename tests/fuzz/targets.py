"""What is fuzzed: everything that reads bytes from elsewhere. Each target either returns or raises an error of ours."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final

from cryptography import x509

from strongroom.errors import StrongroomError
from strongroom.evidence import aael, outline, outline_nvidia, outline_tdx, outline_tpm, pck
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.detect import Kind, detect
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.hcl import HCLReport, RuntimeData
from strongroom.evidence.initdata import InitData, delivered_text
from strongroom.evidence.nvidia_certs import parse_chain
from strongroom.evidence.nvidia_json import from_nvidia
from strongroom.evidence.outline import Outline
from strongroom.evidence.pck import PCKExtension
from strongroom.evidence.rim import RIM
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.snp_json import from_kbs, to_kbs
from strongroom.evidence.spdm import SPDMReport
from strongroom.evidence.tcglog import CCELTable, LogKind, TCGLog
from strongroom.evidence.tdx import TDReport, TDXQuote
from strongroom.evidence.tpm import TPMPublic, TPMQuote, TPMSignature
from strongroom.keys.sealed_secret import SealedSecret
from strongroom.measure.ovmf import OVMF
from strongroom.verify.amd_leaf import Leaf
from strongroom.verify.certificates import load
from strongroom.verify.nvidia_chain import certificate
from strongroom.verify.qe_identity import QEIdentity
from strongroom.verify.tdx_collateral import TDXCollateral
from strongroom.verify.tdx_tcb import TCBInfo
from strongroom.verify.tpm_chain import split_der
from strongroom.wire.canonical import parse_json
from strongroom.wire.cbor import parse_cbor
from strongroom.wire.pem import certificates
from tests import VECTORS

Reader = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Target:
    """A reader of bytes, and the kinds of evidence whose specimens are good to start from."""

    read: Reader
    kinds: tuple[Kind, ...] = ()
    part: Callable[[bytes], bytes] = bytes  # of a specimen: what the reader is for

    def seeds(self) -> tuple[bytes, ...]:
        """Specimens of its kinds beside the checkout, and a few of our own; smallest first."""
        found = [
            inner
            for kind in self.kinds
            for content in specimens().get(kind, ())
            if (inner := _part(self.part, content))
        ]
        return (*sorted(found, key=len)[:8], b"", b"{}", bytes(64))

    def try_one(self, data: bytes) -> bool:
        """Whether `data` was accepted; any failure but an error of ours passes through."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.read(data)
        except StrongroomError:
            return False
        return True


@cache
def specimens() -> Mapping[Kind, tuple[bytes, ...]]:
    """Files beside the checkout by their kind; none where there are none."""
    found: dict[Kind, list[bytes]] = {}
    for path in sorted(VECTORS.rglob("*")) if VECTORS.is_dir() else ():
        if not path.is_file() or path.stat().st_size > 64 * 1024:
            continue
        content = path.read_bytes()
        try:
            found.setdefault(detect(content), []).append(content)
        except StrongroomError:
            continue
    return MappingProxyType({kind: tuple(contents) for kind, contents in found.items()})


def _part(part: Callable[[bytes], bytes], content: bytes) -> bytes:
    try:
        return part(content)
    except (StrongroomError, LookupError, ValueError, TypeError):
        return b""  # not one that has the part


def _member(name: str) -> Callable[[bytes], bytes]:
    return lambda content: str(json.loads(content)[name]).encode()


def _pck(quote: bytes) -> bytes:
    leaf = x509.load_pem_x509_certificates(TDXQuote.parse(quote).pck_chain.rstrip(b"\0"))[0]
    value = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier(pck.OID)).value
    return value.value if isinstance(value, x509.UnrecognizedExtension) else b""


def _kbs(report: bytes) -> bytes:
    return json.dumps(to_kbs(report, CertificateTable())).encode()


def _bundled(report: bytes) -> Bundle:
    log = EventLog(()).extend(Event("boot-done", b"{}"))
    purpose, challenge = Purpose.APPLICATION, bytes(16)
    return Bundle(report=report, certificates=b"", events=log, purpose=purpose, challenge=challenge)


def _tabled(der: bytes) -> bytes:
    return CertificateTable(vcek=der, ask=der).pack() if der.startswith(b"\x30") else b""


def _outlined(describe: Callable[[Outline], None]) -> Reader:
    return lambda data: describe(Outline(data, "fuzz"))


def _leaf(data: bytes) -> object:
    leaf = Leaf(load(data, "leaf"), "leaf")
    return leaf.key, leaf.product, leaf.levels(), leaf.hwid(64)


def _spdm(data: bytes) -> object:
    report = SPDMReport.parse(data)
    return report.vbios_version, report.driver_version, report.switch_pdis, report.gpu_pdis, report.fwid


_CERTIFICATES: Final = (Kind.CERTIFICATES,)
_SNP: Final = (Kind.SNP,)
_TDX_JSON: Final = (Kind.TDX_COLLATERAL,)

TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    {
        "detect": Target(detect, tuple(Kind)),
        "json": Target(lambda data: parse_json(data, "fuzz"), (Kind.GPUS, Kind.TDX_COLLATERAL)),
        "cbor": Target(
            lambda data: parse_cbor(data, "fuzz", max_bytes=1 << 16),
            _SNP,
            lambda raw: _bundled(raw).pack_cbor(),
        ),
        "pem": Target(lambda data: certificates(data, "fuzz"), _CERTIFICATES),
        "bundle": Target(Bundle.parse, _SNP, lambda raw: _bundled(raw).pack()),
        "bundle-cbor": Target(Bundle.parse_cbor, _SNP, lambda raw: _bundled(raw).pack_cbor()),
        "snp-report": Target(SNPReport.parse, (Kind.SNP,)),
        "snp-table": Target(CertificateTable.parse, _CERTIFICATES, _tabled),
        "snp-kbs": Target(lambda data: from_kbs(parse_json(data, "fuzz")), _SNP, _kbs),
        "snp-leaf": Target(_leaf, _CERTIFICATES),
        "tdx-quote": Target(TDXQuote.parse, (Kind.TDX,)),
        "tdx-report": Target(TDReport.parse, (Kind.TDREPORT,)),
        "tdx-collateral": Target(lambda data: TDXCollateral.from_json(parse_json(data, "fuzz")), _TDX_JSON),
        "tcb-info": Target(TCBInfo.parse, _TDX_JSON, _member("tcb_info")),
        "qe-identity": Target(QEIdentity.parse, _TDX_JSON, _member("qe_identity")),
        "pck-extension": Target(PCKExtension.parse, (Kind.TDX,), _pck),
        "tpm-quote": Target(TPMQuote.parse, (Kind.TPM_QUOTE,)),
        "tpm-signature": Target(TPMSignature.parse, (Kind.TPM_SIGNATURE,)),
        "tpm-key": Target(TPMPublic.parse, (Kind.TPM_KEY,)),
        "event-log": Target(lambda data: TCGLog.parse(data, LogKind.TPM), (Kind.EVENT_LOG,)),
        "cc-log": Target(lambda data: TCGLog.parse(data, LogKind.CC), (Kind.CC_LOG,)),
        "ccel-table": Target(CCELTable.parse),
        "aael": Target(aael.AAELEntry.parse),
        "aael-log": Target(aael.parse_records),
        "init-data": Target(lambda data: InitData.of(delivered_text(data)).broker()),
        "sealed-secret": Target(lambda data: SealedSecret.parse(data.decode("latin-1"))),
        "hcl": Target(HCLReport.parse, (Kind.HCL,)),
        "hcl-json": Target(RuntimeData.parse, (Kind.HCL,), lambda raw: HCLReport.parse(raw).variable_data),
        "ak-certificates": Target(split_der, _CERTIFICATES),
        "nvidia-report": Target(_spdm, (Kind.GPU,)),
        "nvidia-chain": Target(parse_chain, _CERTIFICATES),
        "nvidia-certificate": Target(lambda data: certificate(data, "fuzz"), _CERTIFICATES),
        "nvidia-json": Target(lambda data: from_nvidia(parse_json(data, "fuzz")), (Kind.GPUS,)),
        "rim": Target(RIM.parse, (Kind.RIM,)),
        "ovmf": Target(OVMF.parse),
        "outline-snp": Target(_outlined(outline.snp_report), (Kind.SNP,)),
        "outline-table": Target(_outlined(outline.certificate_table), _CERTIFICATES, _tabled),
        "outline-tdx": Target(_outlined(outline_tdx.quote), (Kind.TDX,)),
        "outline-log": Target(_outlined(outline_tpm.event_log), (Kind.EVENT_LOG, Kind.CC_LOG)),
        "outline-hcl": Target(_outlined(outline_tpm.hcl), (Kind.HCL,)),
        "outline-tpm": Target(_outlined(outline_tpm.attest), (Kind.TPM_QUOTE,)),
        "outline-nvidia": Target(_outlined(outline_nvidia.report), (Kind.GPU,)),
    }
)
