"""NVIDIA's evidence in files: one report with its chain, a list of devices, or a manifest of reference values."""

from typing import Final, Literal

from strongroom.cli.question import Answer, Question, freshness
from strongroom.errors import ConfigError, VerifyError
from strongroom.evidence.detect import Kind
from strongroom.evidence.nvidia_json import from_nvidia
from strongroom.evidence.spdm import SPDMReport
from strongroom.verify.gpus import verify_set
from strongroom.verify.nvidia import GPUClaims, verify_device
from strongroom.verify.nvidia import Kind as DeviceKind
from strongroom.verify.rim import GoldenValues, compare, verify_rim
from strongroom.wire.canonical import parse_json

_MAX_JSON: Final = 2 << 20
_SWITCH_BLOCKS: Final = 31


def verify_devices(question: Question) -> Answer:
    """Every device by itself, then all as a set, then each against the manifests that were given."""
    devices = [_device(question, report, chain) for report, chain in _given(question)]
    gpus = [device for device in devices if device.kind == "gpu"]
    switches = [device for device in devices if device.kind == "switch"]
    gaps = [gap for device in devices for gap in device.not_checked]
    _check_distinct(devices)
    if gpus:
        wiring: Literal["require", "skip"] = "require" if switches else "skip"
        gaps += verify_set(gpus, switches, count=len(gpus), topology=wiring).not_checked
    golden = {rim.version: rim for rim in _manifests(question)}
    facts: list[tuple[str, str]] = []
    for n, device in enumerate(devices):
        compared = _compared(device, golden)
        gaps += () if compared else (f"measurements of device {n}: its manifests were not given",)
        facts += _facts(n, device, compared)
    what = f"NVIDIA {len(gpus)} GPU(s), {len(switches)} switch(es)"
    simulated = any(device.simulated for device in devices)
    return Answer(what, tuple(facts), None, simulated, (*dict.fromkeys(gaps), *freshness(question)))


def _check_distinct(devices: list[GPUClaims]) -> None:
    # A set of gpus is checked for this as well; switches may come without any.
    if (distinct := len({device.device_serial for device in devices})) != len(devices):
        raise VerifyError(f"nvidia evidence: {len(devices)} devices are {distinct}, want all distinct")


def verify_manifest(question: Question) -> Answer:
    """Reference values alone."""
    rims = _manifests(question, expired="refuse")
    facts = tuple(
        fact
        for rim in rims
        for fact in (
            ("manifest", f"{rim.product} {rim.version}, {len(rim.values)} measurements"),
            ("root", rim.root_sha256.hex()),
            ("good until", f"{rim.good_until:%Y-%m-%d}"),
        )
    )
    gaps = tuple(dict.fromkeys(gap for rim in rims for gap in rim.not_checked))
    return Answer("NVIDIA reference values", facts, None, any(rim.simulated for rim in rims), gaps)


def _given(question: Question) -> list[tuple[bytes, bytes]]:
    listed = question.pieces.one(Kind.GPUS)
    if listed is not None:
        devices = from_nvidia(parse_json(listed, "nvidia evidence", max_bytes=_MAX_JSON))
        return [(device.report, device.certificates) for device in devices]
    report = question.pieces.need(Kind.GPU)
    chains = [piece.content for piece in question.pieces.of(Kind.CERTIFICATES)]
    if len(chains) != 1:
        raise ConfigError(
            f"nvidia report: {len(chains)} files of certificates given, want one with its chain"
        )
    return [(report, chains[0])]


def _device(question: Question, raw: bytes, chain: bytes) -> GPUClaims:
    report = SPDMReport.parse(raw, trailing="zeros")
    kind: DeviceKind = "switch" if len(report.measurements) == _SWITCH_BLOCKS else "gpu"
    return verify_device(
        report,
        chain,
        nonce=question.nonce if question.nonce is not None else report.nonce,
        roots=question.roots,
        now=question.now,
        kind=kind,
        missing_fwid="accept",  # said among what was not checked; a policy may refuse it
    )


def _manifests(question: Question, expired: Literal["refuse", "accept"] = "accept") -> list[GoldenValues]:
    return [
        verify_rim(piece.content, roots=question.roots, now=question.now, expired_signer=expired)
        for piece in question.pieces.of(Kind.RIM)
    ]


def _compared(device: GPUClaims, golden: dict[str, GoldenValues]) -> int:
    """How many measurements matched; 0 when a manifest is missing. VerifyError when one differs."""
    vbios = golden.get(device.vbios_version)
    driver = golden.get(device.driver_version) if device.driver_version is not None else None
    if vbios is None or (driver is None and device.kind == "gpu"):
        return 0
    return len(compare(device, driver, vbios).matched)


def _facts(n: int, device: GPUClaims, compared: int) -> list[tuple[str, str]]:
    versions = f"driver {device.driver_version or '-'}, vbios {device.vbios_version}"
    return [
        (f"device {n}", f"{device.architecture} {device.chip}, {versions}"),
        (f"device {n} root", device.root_sha256.hex()),
        (f"device {n} mode", "protected pcie" if device.protected_pcie else "single or unprotected"),
        (f"device {n} measured", f"{compared} golden values match" if compared else "not compared"),
    ]
