"""Evidence for a key broker (KBS protocol): of one CPU, of the devices beside it, and the agent's event log.

    tee            report              certificates                    tpm
    snp            SNP report          certificate table of the host   none
    tdx            quote               empty: a quote brings its chain none
    az-snp-vtpm    HCL report          certificate table               quote over the digest, all 24 PCRs
    az-tdx-vtpm    HCL report          quote made from its TDREPORT    the same
    tpm            empty               empty                           the same; `key` is the quote's own

Two digests of one session bind it all (`strongroom.broker.messages`): devices answer a nonce cut from the first, and
what they answered enters the second, which the CPU's report or the TPM's quote carries.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from strongroom.errors import FormatError
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.vtpm import PCRS, TPMEvidence

KBSTee = Literal["snp", "tdx", "az-snp-vtpm", "az-tdx-vtpm", "tpm"]

TEES: Final[tuple[KBSTee, ...]] = get_args(KBSTee)
DEVICE_NONCE: Final = 32  # bytes: what SPDM takes of the device digest
TPM_NONCE: Final = 32  # bytes: what a quote without a paravisor takes of the digest
AZURE: Final = ("az-snp-vtpm", "az-tdx-vtpm")
_OLD_NAMES: Final[dict[str, KBSTee]] = {"azsnpvtpm": "az-snp-vtpm", "aztdxvtpm": "az-tdx-vtpm"}
_QUOTED: Final = frozenset(range(PCRS))


@dataclass(frozen=True, slots=True, kw_only=True)
class KBSEvidence:
    """One CPU's evidence, as yet unverified. Which fields are filled depends on `tee`, see above."""

    tee: KBSTee
    report: bytes = b""
    certificates: bytes = b""
    tpm: TPMEvidence | None = None
    key: bytes = b""  # DER SubjectPublicKeyInfo of a TPM's key that nothing here vouches for
    log: bytes = b""  # tdx: the firmware's event log (CCEL) and what was appended; may be empty
    binds_user_data: bool = (
        True  # azure: whether the HCL report is to carry the digest too, as since version 2
    )

    def __post_init__(self) -> None:
        has_quote = self.tpm is not None
        if has_quote is not (self.tee not in ("snp", "tdx")) or bool(self.key) is not (self.tee == "tpm"):
            raise FormatError(f"kbs evidence: parts do not fit tee {self.tee}")
        if self.tpm is not None and self.tpm.indices != _QUOTED:
            raise FormatError(f"kbs evidence: {len(self.tpm.pcrs)} pcrs, want all {PCRS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeEvidence:
    """Everything one machine hands a broker in one session."""

    primary: KBSEvidence
    gpus: tuple[GPUEvidence, ...] = ()  # and the switches between them
    events: EventLog | None = None  # None for a broker that does not ask for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """What evidence has to carry to be of one session."""

    primary: bytes  # in the CPU's report, or the TPM's quote
    device: bytes  # its first bytes are the nonce of every GPU and switch
    hash: str = "sha384"  # of the two
    init_data: bytes | None = None  # of the init-data that came along, in the hardware; None where none did


def tee_named(name: str) -> KBSTee | None:
    """The TEE of this name, also as older releases spell it; None for any that is not verified here."""
    return next((tee for tee in TEES if tee == name), _OLD_NAMES.get(name))


def old_name(tee: KBSTee) -> str:
    """How releases before the hyphens spell it."""
    return next((old for old, new in _OLD_NAMES.items() if new == tee), tee)
