"""Evidence as the broker's desk holds it: parsed, tied to one digest, not yet judged."""

from dataclasses import dataclass
from hashlib import sha256

from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable


@dataclass(frozen=True, slots=True)
class Proof:
    """A report, the certificates that came with it, and the digest its report_data has to carry."""

    report: SNPReport
    certificates: CertificateTable
    digest: bytes  # kbs_digest over nonce, tee-pubkey and additional evidence of one session

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the report's 1184 bytes: the name of this evidence in an audit log."""
        return sha256(self.report.pack()).digest()
