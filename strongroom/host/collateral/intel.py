"""Intel's collateral for one family of platforms: TCB info, QE identity and the two revocation lists, together.

They are one item because they are used together: levels of one evaluation beside the enclaves of another say
nothing. Source: Intel, "API Documentation for Provisioning Certification Service", version 4.
"""

import re
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Self, cast, get_args
from urllib.parse import unquote

from cryptography import x509

from strongroom.errors import FormatError, ProtocolError, VerifyError
from strongroom.host.collateral.item import (
    Answer,
    Ask,
    Parts,
    Request,
    Signed,
    Subject,
    Vendor,
    check_keys,
    text,
)
from strongroom.verify.intel_json import SignedJSON
from strongroom.verify.qe_identity import QEIdentity
from strongroom.verify.roots import Roots
from strongroom.verify.tdx_chain import (
    PLATFORM_CA,
    PROCESSOR_CA,
    Clock,
    Path,
    ca_path,
    check_revocation,
    check_signature,
    common_name,
    signer_path,
)
from strongroom.verify.tdx_collateral import QE_IDENTITY, TCB_INFO, TDXCollateral
from strongroom.verify.tdx_tcb import TCBInfo

CA = Literal["platform", "processor"]

_NEWS: Final = timedelta(days=1)
_FMSPC: Final = re.compile(r"[0-9a-f]{12}")
_CA_NAMES: Final = {"platform": PLATFORM_CA, "processor": PROCESSOR_CA}
_TCB_INFO_CHAIN: Final = "tcb-info-issuer-chain"  # headers of answers, in lower case
_QE_IDENTITY_CHAIN: Final = "sgx-enclave-identity-issuer-chain"
_PCK_CRL_CHAIN: Final = "sgx-pck-crl-issuer-chain"
_MAX_CRL: Final = 512 << 10  # bytes


@dataclass(frozen=True, slots=True)
class IntelPlatform:
    """What a TDX quote from platforms of this FMSPC takes; the parts are the fields of TDXCollateral."""

    fmspc: bytes  # 6
    ca: CA  # which of Intel's two CAs issued the PCK certificates

    kind = "intel-platform"

    def __post_init__(self) -> None:
        if len(self.fmspc) != 6:
            raise FormatError(f"{self.kind}.fmspc: {len(self.fmspc)} bytes, want 6")
        if self.ca not in get_args(CA):
            raise FormatError(f"{self.kind}.ca: got {self.ca[:32]!a}, want platform or processor")

    @property
    def title(self) -> str:
        return f"Intel platforms {self.fmspc.hex()}, TDX, {self.ca} CA"

    def subject(self) -> Subject:
        return {"fmspc": self.fmspc.hex(), "ca": self.ca}

    @classmethod
    def from_subject(cls, subject: Subject) -> Self:
        check_keys(subject, {"fmspc", "ca"}, cls.kind)
        if not _FMSPC.fullmatch(fmspc := text(subject, "fmspc", cls.kind)):
            raise FormatError(f"{cls.kind}.fmspc: want 12 lowercase hex digits")
        return cls(bytes.fromhex(fmspc), cast(CA, text(subject, "ca", cls.kind)))

    async def fetch(self, ask: Ask) -> Parts:
        def pcs(path: str, max_bytes: int = 256 << 10) -> Request:
            return Request(vendor=Vendor.INTEL_PCS, path=path, max_bytes=max_bytes)

        tcb_info = await ask(pcs(f"/tdx/certification/v4/tcb?fmspc={self.fmspc.hex()}"))
        qe_identity = await ask(pcs("/tdx/certification/v4/qe/identity"))
        crl = await ask(pcs(f"/sgx/certification/v4/pckcrl?ca={self.ca}&encoding=der", _MAX_CRL))
        root_crl = await ask(Request(vendor=Vendor.INTEL_ROOT, path="/IntelSGXRootCA.der"))
        return {
            "tcb_info": tcb_info.body,
            "tcb_info_chain": _chain(tcb_info, _TCB_INFO_CHAIN),
            "qe_identity": qe_identity.body,
            "qe_identity_chain": _chain(qe_identity, _QE_IDENTITY_CHAIN),
            "root_crl": root_crl.body,
            "pck_crl": crl.body,
            "pck_crl_chain": _chain(crl, _PCK_CRL_CHAIN),
        }

    def examine(self, parts: Parts, *, roots: Roots, now: datetime) -> Signed:
        """Keeps lists and levels that revoke: a verifier refuses by them."""
        collateral, clock = collateral_of(parts), Clock(now)
        tcb_signer = signer_path(collateral.tcb_info_chain, roots=roots, clock=clock)
        qe_signer = signer_path(collateral.qe_identity_chain, roots=roots, clock=clock)
        ca = ca_path(collateral.pck_crl_chain, roots=roots, clock=clock)
        if len({path.root.sha256 for path in (tcb_signer, qe_signer, ca)}) != 1:
            raise VerifyError("tdx collateral: ends in more than one root, want the same")
        if not common_name(ca.leaf.subject).startswith(_CA_NAMES[self.ca]):
            raise VerifyError(f"pck crl: issued by {common_name(ca.leaf.subject)}, want {_CA_NAMES[self.ca]}")
        check_revocation(collateral.root_crl, ca.root.certificate, (), clock)
        check_revocation(collateral.pck_crl, ca.leaf, (), clock)

        info = TCBInfo.parse(_signed(collateral.tcb_info, TCB_INFO, tcb_signer))
        clock.check_issue(info.issue_date, info.next_update, "tcb info")
        identity = QEIdentity.parse(_signed(collateral.qe_identity, QE_IDENTITY, qe_signer))
        clock.check_issue(identity.issue_date, identity.next_update, "qe identity")
        if info.fmspc != self.fmspc:
            raise VerifyError(f"tcb info: is for fmspc {info.fmspc.hex()}, want {self.fmspc.hex()}")
        root_crl, pck_crl = _issued(collateral.root_crl), _issued(collateral.pck_crl)
        daily = (info.issue_date, identity.issue_date, pck_crl)  # the root's list comes about once a year
        numbers = (info.evaluation_data_number, identity.evaluation_data_number)
        return Signed(
            issued=min(daily),
            until=clock.valid_until,
            renew_after=_NEWS,
            rank=(*numbers, *(int(moment.timestamp()) for moment in (*daily, root_crl))),
            simulated=ca.root.simulated,
        )


def collateral_of(parts: Parts) -> TDXCollateral:
    """The parts of an IntelPlatform as a verifier takes them."""
    check_keys(parts, set(TDXCollateral.__slots__), IntelPlatform.kind)
    return TDXCollateral(**parts)


def parts_of(collateral: TDXCollateral) -> Parts:
    """The parts of an IntelPlatform, of collateral that came in another way."""
    return asdict(collateral)


def _chain(answer: Answer, header: str) -> bytes:
    if header not in answer.headers:
        raise ProtocolError(f"intel's answer: no header {header}, want the chain of its signer")
    return unquote(answer.headers[header], errors="replace").encode()


def _signed(document: bytes, member: str, signer: Path) -> bytes:
    found = SignedJSON.parse(document, member)
    check_signature(found.signature, found.signed, signer.key, f"{member}: signature is not the tcb signer's")
    return found.signed


def _issued(crl: bytes) -> datetime:
    return x509.load_der_x509_crl(crl).last_update_utc
