"""Mirrors strongroom/verify/tdx_tcb.py."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.pck import PCKExtension
from strongroom.verify.tdx_tcb import TCBInfo, TCBStatus, worst
from tests.fakes.intel import BODY, COMPONENTS, PCE_SVN, level, module, pck_extension, tcb_info

PCK = PCKExtension.parse(pck_extension())
SVN = BODY.tee_tcb_svn


def info(change: Callable[[dict[str, Any]], object] = lambda value: None) -> TCBInfo:
    return TCBInfo.parse(json.dumps(tcb_info(change)).encode())


def levels(*wanted: dict[str, Any]) -> TCBInfo:
    return info(lambda value: value.update(tcbLevels=list(wanted)))


def test_the_first_level_that_fits_counts() -> None:
    assert info().platform(PCK, SVN).status is TCBStatus.UP_TO_DATE
    older = replace(PCK, pce_svn=PCE_SVN - 1)
    assert info().platform(older, SVN).advisories == ("INTEL-SA-01103", "INTEL-SA-01036")


@pytest.mark.parametrize("n", range(16))
def test_every_component_counts(n: int) -> None:
    want = list(COMPONENTS)
    want[n] += 1
    with pytest.raises(VerifyError, match="no level covers this platform"):
        levels(level(tuple(want), PCE_SVN, None, "UpToDate")).platform(PCK, SVN)


@pytest.mark.parametrize("n", range(16))
def test_tdx_components_count_from_the_third_on_where_the_module_has_an_identity(n: int) -> None:
    want = [*SVN]
    want[n] += 1
    later = levels(level(COMPONENTS, PCE_SVN, tuple(want), "UpToDate"))
    if n < 2:
        later.platform(PCK, SVN)
    else:
        with pytest.raises(VerifyError, match="no level covers"):
            later.platform(PCK, SVN)
    first = bytes((3, 0, *SVN[2:]))  # generation 0: all of them
    want = [*first]
    want[n] += 1
    with pytest.raises(VerifyError, match="no level covers"):
        levels(level(COMPONENTS, PCE_SVN, tuple(want), "UpToDate")).platform(PCK, first)


def test_a_level_without_tdx_components_covers_all() -> None:
    standing = levels(level(COMPONENTS, PCE_SVN, None, "UpToDate")).platform(PCK, bytes(16))
    assert standing.status is TCBStatus.UP_TO_DATE


@pytest.mark.parametrize("other", [replace(PCK, fmspc=bytes(6)), replace(PCK, pce_id=b"\0\1")])
def test_levels_hold_for_their_own_platform(other: PCKExtension) -> None:
    with pytest.raises(VerifyError, match="tcb info: is for fmspc 90c06f000000 pceid 0000, want"):
        info().platform(other, SVN)


@pytest.mark.parametrize(
    ("svn", "status"), [((6, 1), "UpToDate"), ((5, 1), "OutOfDate"), ((3, 3), "UpToDate"), ((0, 0), None)]
)
def test_the_module_stands_by_its_generation(svn: tuple[int, int], status: str | None) -> None:
    standing = info().module_standing(BODY, bytes(svn) + bytes(14))
    assert (standing and standing.status) == status


@pytest.mark.parametrize(
    ("svn", "why"), [((3, 1), "tdx module 1: svn is 3, below every level"), ((9, 2), "generation 2")]
)
def test_other_modules_are_refused(svn: tuple[int, int], why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        info().module_standing(BODY, bytes(svn) + bytes(14))


@pytest.mark.parametrize("generation", [0, 1])
def test_the_modules_signer_and_attributes_must_be_its_own(generation: int) -> None:
    svn = bytes((6, generation)) + bytes(14)
    with pytest.raises(VerifyError, match="mrsigner_seam is not the module's signer"):
        info().module_standing(replace(BODY, mrsigner_seam=b"\1" * 48), svn)
    with pytest.raises(VerifyError, match="seam_attributes are 0x1, unlike"):
        info().module_standing(replace(BODY, seam_attributes=1), svn)


def test_only_masked_module_attributes_count() -> None:
    loose = module(attributesMask="FE" + "FF" * 7)
    standing = info(lambda value: value.update(tdxModule=loose))
    standing.module_standing(replace(BODY, seam_attributes=1), bytes(16))
    with pytest.raises(VerifyError, match="seam_attributes are 0x2"):
        standing.module_standing(replace(BODY, seam_attributes=2), bytes(16))


def test_a_platform_without_module_identities_knows_generation_0_alone() -> None:
    early = info(lambda value: value.pop("tdxModuleIdentities"))
    assert early.module_standing(BODY, bytes(16)) is None
    with pytest.raises(VerifyError, match="no identity for tdx module generation 1"):
        early.module_standing(BODY, SVN)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda v: v.update(id="SGX"), "tcb info.id: is 'SGX', want 'TDX'"),
        (lambda v: v.update(version=2), "tcb info.version"),
        (lambda v: v.update(tcbType=1), "tcb info.tcbType"),
        (lambda v: v.update(fmspc="00"), "tcb info.fmspc: want 6 bytes"),
        (lambda v: v.pop("tcbEvaluationDataNumber"), "tcbEvaluationDataNumber: missing"),
        (lambda v: v.pop("tdxModule"), "tdxModule: missing"),
        (lambda v: v["tcbLevels"][0]["tcb"]["sgxtcbcomponents"].pop(), "15 components, want 16"),
        (lambda v: v["tcbLevels"][0]["tcb"]["tdxtcbcomponents"].append({"svn": 0}), "want at most 16"),
        (
            lambda v: v["tcbLevels"][1]["tcb"]["sgxtcbcomponents"][3].update(svn=256),
            "want a whole number 0..255",
        ),
        (
            lambda v: v["tcbLevels"][0].update(tcbStatus="TDRelaunchAdvised"),
            "tcbStatus is 'TDRelaunchAdvised'",
        ),
        (lambda v: v["tdxModuleIdentities"][0].update(id="TDX_01"), "want TDX_01..TDX_FF, each once"),
        (lambda v: v["tdxModuleIdentities"][0].update(id="TDX_00"), "want TDX_01..TDX_FF"),
    ],
)
def test_other_documents_are_refused(change: Callable[[dict[str, Any]], object], why: str) -> None:
    with pytest.raises((FormatError, VerifyError), match=why):
        info(change)


def test_the_worst_of_some_asks_for_all_they_ask_for() -> None:
    s = TCBStatus
    for statuses, want in (
        ((s.UP_TO_DATE,), s.UP_TO_DATE),
        ((s.SW_HARDENING_NEEDED, s.CONFIGURATION_NEEDED), s.CONFIGURATION_AND_SW_HARDENING_NEEDED),
        ((s.CONFIGURATION_NEEDED, s.OUT_OF_DATE), s.OUT_OF_DATE_CONFIGURATION_NEEDED),
        ((s.SW_HARDENING_NEEDED, s.OUT_OF_DATE), s.OUT_OF_DATE),
        ((s.CONFIGURATION_AND_SW_HARDENING_NEEDED, s.OUT_OF_DATE), s.OUT_OF_DATE_CONFIGURATION_NEEDED),
        ((s.OUT_OF_DATE, s.REVOKED, s.CONFIGURATION_NEEDED), s.REVOKED),
    ):
        assert worst(*statuses) is want
        assert worst(*reversed(statuses)) is want
    order = list(s)
    assert all(order.index(worst(a, b)) >= max(order.index(a), order.index(b)) for a in s for b in s)
