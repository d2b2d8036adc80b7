"""Which collateral to fetch: what the evidence in these files takes, and what is named itself."""

import argparse
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, get_args

from strongroom.errors import ConfigError, FormatError, StrongroomError
from strongroom.evidence.nvidia_json import from_nvidia
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.spdm import SPDMReport
from strongroom.evidence.tdx import TDXQuote
from strongroom.host.collateral.amd import HWID_SIZES, AMDIssuers
from strongroom.host.collateral.intel import CA, IntelPlatform
from strongroom.host.collateral.item import Item
from strongroom.host.collateral.nvidia import NVIDIAManifest
from strongroom.host.collateral.wanted import for_nvidia_device, for_snp_report, for_tdx_quote
from strongroom.verify.amd_chain import LeafKind
from strongroom.verify.nvidia import Kind
from strongroom.verify.roots import Roots
from strongroom.wire.canonical import parse_json

_MAX_EVIDENCE: Final = 1 << 20  # bytes


def add_questions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is to be verified (each may be given several times)")

    def add(option: str, metavar: str, says: str) -> None:
        group.add_argument(option, action="append", default=[], metavar=metavar, help=says)

    add("--snp-report", "FILE", "the chip of this report (1184 bytes), and who vouches for it")
    group.add_argument("--snp-product", choices=tuple(HWID_SIZES), help="of reports too old to name it")
    add("--snp-issuers", "PRODUCT", f"who vouches for every chip of {', '.join(HWID_SIZES)}")
    add("--tdx-quote", "FILE", "the platform of this quote")
    add("--tdx-platform", "FMSPC:CA", "platforms by number, such as 90c06f000000:platform")
    add(
        "--gpus", "FILE", "the GPUs of this evidence (JSON in NVIDIA's form): reference values and revocation"
    )
    add("--switches", "FILE", "the same for NVSwitches")
    add("--rim", "ID", "reference values by name, such as NV_GPU_DRIVER_GH100_550.144.03")


def questions(args: argparse.Namespace, *, roots: Roots, now: datetime) -> list[Item]:
    """The items the options ask for. FormatError for a file that is not the evidence its option says."""
    items: list[Item] = []
    for path in args.snp_report:
        items += _of(path, lambda data: for_snp_report(SNPReport.parse(data), args.snp_product))
    for product in args.snp_issuers:
        items += [AMDIssuers(product, leaf) for leaf in get_args(LeafKind)]
    for path in args.tdx_quote:
        items += _of(path, lambda data: for_tdx_quote(TDXQuote.parse(data)))
    items += map(_platform, args.tdx_platform)
    kinds: tuple[tuple[Kind, list[str]], ...] = (("gpu", args.gpus), ("switch", args.switches))
    for kind, paths in kinds:
        for path in paths:
            items += _of(path, partial(_devices, kind=kind, roots=roots, now=now))
    items += map(NVIDIAManifest, args.rim)
    return items


def _platform(text: str) -> IntelPlatform:
    fmspc, _, ca = text.partition(":")
    if ca not in get_args(CA):
        raise ConfigError(
            f"--tdx-platform: got {text[:64]!a}, want 12 hex digits, a colon and platform or processor"
        )
    return IntelPlatform.from_subject({"fmspc": fmspc.lower(), "ca": ca})


def _devices(data: bytes, *, kind: Kind, roots: Roots, now: datetime) -> list[Item]:
    items: list[Item] = []
    for device in from_nvidia(parse_json(data, f"{kind} evidence", max_bytes=_MAX_EVIDENCE)):
        report = SPDMReport.parse(device.report, trailing="zeros")
        items += for_nvidia_device(report, device.certificates, kind=kind, roots=roots, now=now)
    return items


def _of(path: str, read: Callable[[bytes], list[Item]]) -> list[Item]:
    with Path(path).open("rb") as file:
        data = file.read(_MAX_EVIDENCE + 1)
    try:
        if len(data) > _MAX_EVIDENCE:
            raise FormatError(f"longer than {_MAX_EVIDENCE} bytes")
        return read(data)
    except StrongroomError as error:
        raise type(error)(f"{path}: {error}") from None
