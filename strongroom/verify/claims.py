"""What is known to be true of a machine once its evidence has verified. No judgement is in here."""

from dataclasses import dataclass
from typing import Final, Literal

from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.nvml import NVMLState
from strongroom.evidence.snp import TCB
from strongroom.verify.azure import AzureClaims
from strongroom.verify.devices import DeviceClaims
from strongroom.verify.tdx import TDXClaims
from strongroom.verify.tpm import TPMClaims

ALIAS_CHECK_COMPLETE: Final = 1 << 5  # platform_info: memory aliases were looked for at boot (AMD-SB-3015)
SMT_ENABLED: Final = 1 << 0  # platform_info


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Verified facts. Only the functions of strongroom.verify make these outside of tests.

    The facts that every machine has come first; what only one kind of machine can say is None for the others.
    """

    tee: Literal["snp", "tdx", "tpm"]  # the last: nothing but a TPM, whose key somebody believes by name
    product: str  # "Milan", "Genoa", "Turin", "TDX", "TPM"
    simulated: bool  # some root it depends on was a simulated one
    root_sha256: bytes  # of the DER root certificate the CPU's chain ended in
    leaf: Literal["vcek", "vlek", "pck", "ak"]
    csp_id: str | None  # the cloud provider a VLEK was issued to
    measurement: bytes  # 48: MEASUREMENT, or MRTD
    host_data: bytes  # HOST_DATA (32), or MRCONFIGID (48)
    debug: bool
    migration: bool  # a migration agent or service TD may be, or is, associated
    smt: bool | None  # the guest's policy allows SMT
    vmpl: int | None
    reported_tcb: TCB | None
    committed_tcb: TCB | None
    chip_id: bytes  # 64; all zero when the host masks it; empty for TDX. Identifies a machine: do not log it in full
    report_id: bytes = b""  # 32: this launch of this guest, and no other; empty for TDX, which has none
    report_version: int
    platform_info: int | None
    events: EventLog | None  # None where the binding has no room for a log (KBS)
    gpus: int
    not_checked: tuple[str, ...]  # what could not be checked, in words
    simulated_roots: frozenset[bytes] = (
        frozenset()
    )  # SHA-256 of each; empty where root_sha256 is the only one
    tdx: TDXClaims | None = None
    azure: AzureClaims | None = None
    tpm: TPMClaims | None = None
    devices: DeviceClaims | None = None  # GPUs and the switches between them
    gpu_state: NVMLState | None = (
        None  # their modes, by the measured agent's word; None where it says nothing
    )
