"""Attestation reports of the genuine shape, signed by a chip that exists only as a file.

A Silicon is one guest as its launcher started it: measurement, HOST_DATA and policy are fixed at launch, and
only report_data and the privilege level are the guest's to choose.

Source: AMD 56860, "ATTESTATION_REPORT", version 3.
"""

import secrets
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from demo.silicon.pki import PKI
from strongroom.evidence.snp import TCB, FirmwareVersion, SNPReport
from strongroom.evidence.snp_certs import CertificateTable

POLICY: Final = 0x3001F  # SMT allowed, the bit that must be one, ABI 0.31
DEBUG: Final = 1 << 19
MIGRATION: Final = 1 << 18
PLATFORM_INFO: Final = 0x25  # SMT on, ECC memory, alias check complete
CURRENT_TCB: Final = TCB(bootloader=10, tee=0, snp=23, microcode=84)
FIRMWARE: Final = FirmwareVersion(major=1, minor=55, build=40)
_ECDSA_P384_SHA384: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Silicon:
    """One launched guest on one simulated chip."""

    pki: PKI
    measurement: bytes  # 48
    host_data: bytes = bytes(32)
    policy: int = POLICY
    tcb: TCB = CURRENT_TCB
    report_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))  # new at every launch

    def report(self, report_data: bytes, *, vmpl: int = 0) -> bytes:
        """The 1184 signed bytes over `report_data` (64 bytes)."""
        unsigned = SNPReport(
            version=3,
            guest_svn=0,
            policy=self.policy,
            family_id=bytes(16),
            image_id=bytes(16),
            vmpl=vmpl,
            signature_algo=_ECDSA_P384_SHA384,
            current_tcb=self.tcb,
            platform_info=PLATFORM_INFO,
            key_info=0,  # signed by the VCEK, chip id shown
            report_data=report_data,
            measurement=self.measurement,
            host_data=self.host_data,
            id_key_digest=bytes(48),
            author_key_digest=bytes(48),
            report_id=self.report_id,
            report_id_ma=b"\xff" * 32,  # no migration agent
            reported_tcb=self.tcb,
            cpuid_family=0x19,
            cpuid_model=0x11,
            cpuid_stepping=1,
            chip_id=self.pki.chip_id,
            committed_tcb=self.tcb,
            current=FIRMWARE,
            committed=FIRMWARE,
            launch_tcb=self.tcb,
            launch_mit_vector=0,
            current_mit_vector=0,
            signature_r=0,
            signature_s=0,
        )
        return self.sign(unsigned).pack()

    def sign(self, report: SNPReport) -> SNPReport:
        """The same report under this chip's signature at the silicon's TCB, whatever it says."""
        key = self.pki.vcek_key(self.tcb)
        r, s = decode_dss_signature(key.sign(report.signed_part, ec.ECDSA(hashes.SHA384())))
        return replace(report, signature_r=r, signature_s=s)

    def certificates(self) -> bytes:
        """The certificate table a host hands out beside a report: VCEK, ASK and ARK."""
        return CertificateTable(
            vcek=self.pki.vcek(self.tcb).public_bytes(Encoding.DER),
            ask=self.pki.ask.public_bytes(Encoding.DER),
            ark=self.pki.ark.public_bytes(Encoding.DER),
        ).pack()
