"""Is the enclave that signed the attestation key Intel's TD quoting enclave, and how does it stand?

Without this step a quote means nothing: the PCK signs the report of any enclave with the provisioning key on that
machine.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from strongroom.errors import VerifyError
from strongroom.evidence.enclave import EnclaveReport
from strongroom.verify.intel_json import Member
from strongroom.verify.tdx_tcb import ISVLevel, Standing, standing_of

_SUBJECT: Final = "qe identity"


@dataclass(frozen=True, slots=True, kw_only=True)
class QEIdentity:
    """Intel, "API Documentation for Provisioning Certification Service", enclave identity version 2."""

    issue_date: datetime
    next_update: datetime
    evaluation_data_number: int
    misc_select: bytes
    misc_select_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mr_signer: bytes
    isv_prod_id: int
    levels: tuple[ISVLevel, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the object under the signature; that of the TD quoting enclave alone."""
        identity = Member.parse(data, _SUBJECT)
        identity.want("id", "TD_QE")
        identity.want("version", 2)
        return cls(
            issue_date=identity.moment("issueDate"),
            next_update=identity.moment("nextUpdate"),
            evaluation_data_number=identity.number("tcbEvaluationDataNumber", most=0xFFFF_FFFF),
            misc_select=identity.octets("miscselect", 4),
            misc_select_mask=identity.octets("miscselectMask", 4),
            attributes=identity.octets("attributes", 16),
            attributes_mask=identity.octets("attributesMask", 16),
            mr_signer=identity.octets("mrsigner", 32),
            isv_prod_id=identity.number("isvprodid", most=0xFFFF),
            levels=ISVLevel.read_all(identity),
        )

    def standing(self, qe: EnclaveReport) -> Standing:
        """How this enclave stands, or VerifyError when it is another one."""
        if qe.mr_signer != self.mr_signer:
            raise VerifyError("qe report: mr_signer is not that of Intel's quoting enclave")
        if qe.isv_prod_id != self.isv_prod_id:
            raise VerifyError(f"qe report: isv_prod_id is {qe.isv_prod_id}, want {self.isv_prod_id}")
        if _masked(qe.misc_select.to_bytes(4, "little"), self.misc_select_mask) != self.misc_select:
            raise VerifyError(f"qe report: misc_select is {qe.misc_select:#x}, want the identity's")
        if qe.debug or _masked(qe.attributes, self.attributes_mask) != self.attributes:
            raise VerifyError(
                f"qe report: attributes are {qe.attributes.hex()}, want the identity's, no debug"
            )
        return standing_of(self.levels, qe.isv_svn, "qe report")


def _masked(value: bytes, mask: bytes) -> bytes:
    return bytes(a & b for a, b in zip(value, mask, strict=True))
