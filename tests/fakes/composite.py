"""Bundles of every kind of machine, each with as many GPUs, switches and TPM quotes as a test wants."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from typing import Any, Final

from strongroom.evidence.binding import Purpose, gpu_digest, gpu_nonce, report_data, tpm_nonce
from strongroom.evidence.bundle import Bundle, TEEKind
from strongroom.evidence.collateral import Collateral
from strongroom.evidence.eventlog import PCR, Event, EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.hcl import ReportType
from strongroom.evidence.nvml import NVMLState
from strongroom.evidence.tdx import TDReport
from strongroom.evidence.tpm import Hash
from strongroom.evidence.vtpm import TPMEvidence
from strongroom.verify.bundle import verify_bundle
from strongroom.verify.claims import Claims
from strongroom.verify.roots import PRODUCTION, Roots
from strongroom.verify.tdx_collateral import TDXCollateral
from strongroom.wire.canonical import pack_json
from tests.fakes.intel import BODY, BODY_1_5, Platform
from tests.fakes.nvidia import DRIVER, Device, nvidia
from tests.fakes.silicon import silicon
from tests.fakes.tpm import PCRS, ak_chain, hcl, rsa_tpm, runtime_data

NOW: Final = datetime(2026, 11, 20, tzinfo=UTC)
CHALLENGE: Final = bytes(range(32))
KEY: Final = b"DER of a public key"
GPU_STATE: Final = NVMLState(environment=2, cc_feature=1, devtools=0, multi_gpu=0, driver=DRIVER, ready=0)
LOG: Final = EventLog(
    (
        Event("gpu", pack_json({"count": 1, "nvml": GPU_STATE.to_json()})),
        Event("model", b'{"epoch":1}'),
        Event("boot-done", b"{}"),
    )
)
PLATFORM: Final = Platform()
GPU: Final = nvidia().device(1)
DRIVER_RIM: Final = f"nvidia-rim/NV_GPU_DRIVER_GH100_{DRIVER}"
VBIOS_RIM: Final = "nvidia-rim/NV_GPU_VBIOS_1010_0200_882_96009F0004"


@cache
def roots() -> Roots:
    """The production roots, and the simulated one of every vendor here."""
    vendors = (PLATFORM.roots, nvidia().roots())
    others = {silicon().pki.ark_sha256, sha256(ak_chain()[-1]).digest()}
    return PRODUCTION.with_insecure(others.union(*(vendor.insecure for vendor in vendors)))


@cache
def collateral() -> Collateral:
    """Everything that any of these machines can be verified with."""
    intel = PLATFORM.collateral()
    entries = {f"intel-{f.name.replace('_', '-')}": getattr(intel, f.name) for f in fields(TDXCollateral)}
    entries |= {DRIVER_RIM: nvidia().driver_rim(), VBIOS_RIM: nvidia().vbios_rim()}
    answers = {f"nvidia-ocsp/{n}": der for n, der in enumerate(nvidia().answers(GPU.chain[1:]))}
    return Collateral.of(entries | answers)


def gpus(
    devices: Sequence[Device] = (GPU,), *, nonce: bytes | None = None, **report: Any
) -> tuple[GPUEvidence, ...]:
    """Evidence of `devices` for this challenge and key, or for another `nonce`."""
    asked = gpu_nonce(CHALLENGE, KEY) if nonce is None else nonce
    return tuple(
        GPUEvidence(
            kind={"GH": "hopper", "GB": "blackwell", "LS": "ls10"}[device.chip[:2]],
            report=device.report(asked, **report).pack(),
            certificates=b"".join(device.ders),
        )
        for device in devices
    )


def bundle(
    tee: TEEKind = "snp",
    *,
    devices: tuple[GPUEvidence, ...] = (),
    tpm: bool = False,
    pcrs: Mapping[int, bytes] | None = None,
    events: EventLog = LOG,
    body: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Bundle:
    """A bundle that verifies with `collateral()`; `changes` are made after everything is signed."""
    expected = report_data(
        purpose=Purpose.CHANNEL,
        challenge=CHALLENGE,
        key=KEY,
        gpu_digest=gpu_digest(devices),
        context=events.head,
    )
    report, certificates = _MACHINES[tee](expected, body or {})
    made = Bundle(
        tee=tee,
        report=report,
        certificates=certificates,
        gpus=devices,
        tpm=quoted(expected, pcrs or following(events), is_azure=tee.startswith("azure"))
        if tpm or tee.startswith("azure")
        else None,
        events=events,
        purpose=Purpose.CHANNEL,
        challenge=CHALLENGE,
    )
    return replace(made, **changes)


def following(events: EventLog) -> dict[int, bytes]:
    """The registers of a TPM that followed this log."""
    return PCRS | {PCR: events.pcr}


def quoted(expected: bytes, pcrs: Mapping[int, bytes] = PCRS, *, is_azure: bool = False) -> TPMEvidence:
    """A quote beside a report over `expected`."""
    quote, signature = rsa_tpm().quote(tpm_nonce(expected), pcrs)
    return TPMEvidence(
        attest=quote.pack(),
        signature=signature.pack(),
        public=b"" if is_azure else rsa_tpm().public.pack(),
        certificates=b"" if is_azure else b"".join(ak_chain()),
        pcrs=tuple(sorted(pcrs.items())),
    )


def verify(evidence: Bundle, **changes: Any) -> Claims:
    arguments: dict[str, Any] = {
        "purpose": Purpose.CHANNEL,
        "challenge": CHALLENGE,
        "key": KEY,
        "roots": roots(),
        "now": NOW,
        "collateral": collateral(),
    }
    return verify_bundle(evidence, **arguments | changes)


def _snp(expected: bytes, _body: Mapping[str, Any]) -> tuple[bytes, bytes]:
    return silicon().report(expected), silicon().certificates()


def _tdx(expected: bytes, body: Mapping[str, Any]) -> tuple[bytes, bytes]:
    launched = replace(BODY, **{"report_data": expected, "rtmr3": LOG.head, **body})
    return replace(PLATFORM, body=launched).quote().pack(), b""


def _azure_snp(_expected: bytes, _body: Mapping[str, Any]) -> tuple[bytes, bytes]:
    data = runtime_data(rsa_tpm())
    report = silicon().report(Hash.SHA256.digest(data).ljust(64, b"\0"))
    return hcl(data, report).pack(), silicon().certificates()


def _azure_tdx(_expected: bytes, body: Mapping[str, Any]) -> tuple[bytes, bytes]:
    data = runtime_data(rsa_tpm())
    bound = Hash.SHA256.digest(data).ljust(64, b"\0")
    quote = replace(PLATFORM, body=replace(BODY, **{"report_data": bound, **body})).quote().pack()
    report = TDReport(
        version=0,
        cpu_svn=bytes(16),
        mac=bytes(32),
        valid=b"\xff" * 8,
        body=replace(BODY_1_5, **{"report_data": bound, **body}),
    )
    return hcl(data, report.pack(), ReportType.TDX).pack(), quote


_MACHINES: Final[Mapping[str, Callable[[bytes, Mapping[str, Any]], tuple[bytes, bytes]]]] = {
    "snp": _snp,
    "tdx": _tdx,
    "azure-snp": _azure_snp,
    "azure-tdx": _azure_tdx,
}
