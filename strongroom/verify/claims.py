"""What is known to be true of a machine once its evidence has verified. No judgement is in here."""

from dataclasses import dataclass
from typing import Final, Literal

from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.snp import TCB

ALIAS_CHECK_COMPLETE: Final = 1 << 5  # platform_info: memory aliases were looked for at boot (AMD-SB-3015)
SMT_ENABLED: Final = 1 << 0  # platform_info


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Verified facts. Only the functions of strongroom.verify make these outside of tests."""

    tee: Literal["snp"]
    product: str  # "Milan", "Genoa", "Turin"
    simulated: bool  # the root of the chain was simulated silicon, not AMD
    root_sha256: bytes  # of the DER root certificate the chain ended in
    leaf: Literal["vcek", "vlek"]
    csp_id: str | None  # the cloud provider a VLEK was issued to
    measurement: bytes  # 48
    host_data: bytes  # 32
    debug: bool
    migration: bool  # a migration agent may be, or is, associated
    smt: bool  # the guest's policy allows SMT
    vmpl: int
    reported_tcb: TCB
    committed_tcb: TCB
    chip_id: bytes  # 64; all zero when the host masks it. Identifies a machine: do not log it in full
    report_version: int
    platform_info: int
    events: EventLog | None  # None where the binding has no room for a log (KBS)
    gpus: int
    not_checked: tuple[str, ...]  # what could not be checked, in words
