"""Mirrors strongroom/appraise/{tdx,tpm,azure,gpu}.py, on claims that come from verified evidence."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, get_args

import pytest

from strongroom.appraise.gpu import GPUPolicy
from strongroom.appraise.policy import Policy
from strongroom.appraise.tdx import TDXPolicy
from strongroom.appraise.tpm import TPMPolicy
from strongroom.appraise.verdict import Verdict, appraise
from strongroom.errors import ConfigError
from strongroom.evidence.bundle import TEEKind
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.verify.claims import Claims
from strongroom.verify.tdx_tcb import TCBStatus
from tests.fakes.composite import GPU_STATE, LOG, NOW, bundle, gpus, roots, verify
from tests.fakes.intel import BODY
from tests.fakes.nvidia import DRIVER, SWITCH_VBIOS, VBIOS
from tests.fakes.silicon import HOST_DATA, MEASUREMENT
from tests.fakes.tpm import PCRS

KINDS: Final = get_args(TEEKind)
ROOTS: Final = sorted(root.hex() for root in roots().insecure)
IMAGE: Final[dict[str, Any]] = {
    "name": "image 7",
    "mr_td": "22" * 48,
    "rtmr0": "any",
    "rtmr1": "31" * 48,
    "rtmr2": "32" * 48,
}
TDX: Final[dict[str, Any]] = {"images": [IMAGE], "mr_config_id": ["00" * 48]}
TPM: Final[dict[str, Any]] = {
    "states": [{"name": "state 7", "pcrs": {f"pcr{n}": PCRS[n].hex() for n in (4, 11)}}]
}
GPU: Final[dict[str, Any]] = {"architectures": ["hopper"], "drivers": [DRIVER], "vbios": [VBIOS]}
SNP: Final[dict[str, Any]] = {
    "version": 1,
    "measurements": [{"name": "image 7", "value": MEASUREMENT.hex()}],
    "host_data": [HOST_DATA.hex()],
    "insecure_simulated_roots": ROOTS,
}
WHOLE: Final[dict[str, Any]] = SNP | {"tdx": TDX, "tpm": TPM, "azure": {}, "gpu": GPU, "gpus": 1}


@cache
def claims(tee: TEEKind = "tdx") -> Claims:
    return verify(bundle(tee, devices=gpus(), tpm=True))


def policy(tee: TEEKind = "tdx", **changes: Any) -> dict[str, Any]:
    """All that a machine of this kind needs; a change to None takes the key away."""
    raw = WHOLE | changes
    if not tee.startswith("azure"):
        raw = {key: value for key, value in raw.items() if key != "azure" or key in changes}
    elif tee == "azure-tdx" and "tdx" not in changes:
        raw["tdx"] = {"images": [IMAGE | {"rtmr3": "any"}], "mr_config_id": "any"}
    return {key: value for key, value in raw.items() if value is not None}


def judged(found: Claims, raw: dict[str, Any], now: datetime = NOW) -> Verdict:
    return appraise(found, Policy.from_raw(raw), now=now)


@pytest.mark.parametrize("tee", KINDS)
def test_every_kind_of_machine_can_pass(tee: TEEKind) -> None:
    verdict = judged(claims(tee), policy(tee))
    verdict.require()
    checks = [result.check for result in verdict.results]
    assert len(set(checks)) == len(checks)


TDX_CHECKS: Final = """
    root; image; mr_config_id; mr_owner; mr_owner_config; debug; reserved attributes; migration; sept_ve_disable;
    xfam; tcb status; advisories; tdx module; tcb date; tcb evaluation; tpm state; gpus; gpu architecture; gpu driver;
    gpu vbios; gpu mode; switches; gpu cc mode; gpu devtools; gpu environment; gpu ready flag; gpu measurements;
    gpu reference values; gpu revocation
"""


def test_every_check_is_on_record() -> None:
    checks = "; ".join(result.check for result in judged(claims(), policy()).results)
    assert checks.split() == TDX_CHECKS.split()


@pytest.mark.parametrize("tee", KINDS)
@pytest.mark.parametrize("section", ["tdx", "tpm", "azure", "gpu"])
def test_what_is_there_without_a_section_is_refused(tee: TEEKind, section: str) -> None:
    needed = section in ("tpm", "gpu") or section in tee
    verdict = judged(claims(tee), policy(tee, **{section: None}))
    assert verdict.passed is not needed
    if needed:
        assert verdict.reasons[0].endswith(f", want none, or a section {section} in the policy")


def test_an_snp_guest_is_refused_by_a_policy_that_speaks_of_none() -> None:
    verdict = judged(claims("snp"), policy("snp", measurements=None, host_data=None))
    assert verdict.reasons == ("snp is an snp guest, want none, or a section measurements in the policy",)


@pytest.mark.parametrize("tee", KINDS)
def test_a_section_for_what_is_not_there_is_refused(tee: TEEKind) -> None:
    bare = verify(bundle(tee))
    reasons = judged(bare, policy(tee)).reasons
    assert "gpus is 0, want 1" in reasons
    assert "gpu evidence is absent, want that of every gpu" in reasons
    if not tee.startswith("azure"):
        assert "tpm quote is absent, want one" in reasons
        assert "azure is absent, want an azure paravisor" in judged(bare, policy(tee, azure={})).reasons
    assert judged(bare, policy(tee, gpu=None, gpus=0, **({} if "azure" in tee else {"tpm": None}))).passed


def td(**changes: Any) -> Claims:
    """The claims of a trust domain whose body was changed."""
    found = claims()
    assert found.tdx is not None
    return replace(found, tdx=replace(found.tdx, body=replace(found.tdx.body, **changes)))


def standing(**changes: Any) -> Claims:
    found = claims()
    assert found.tdx is not None
    return replace(found, tdx=replace(found.tdx, **changes))


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (td(mr_td=bytes(48)), r"image is mr_td=0{96} .*, want image 7"),
        (td(rtmr1=bytes(48)), r"image is .*rtmr1=0{96} .*, want image 7"),
        (td(rtmr2=bytes(48)), r"image is "),
        (td(rtmr3=bytes(48)), r"image is "),
        (td(mr_config_id=b"\1" * 48), r"mr_config_id is (01){48}, want 0{96}"),
        (td(mr_owner=b"\1" * 48), r"mr_owner is (01){48}, want 0{96}"),
        (td(mr_owner_config=b"\1" * 48), r"mr_owner_config is (01){48}, want 0{96}"),
        pytest.param(
            td(td_attributes=BODY.td_attributes | 1),
            r"debug is on, want off",
            marks=pytest.mark.guarantee("G6"),
        ),
        (td(td_attributes=BODY.td_attributes | 2), r"reserved attributes is 0x2, want 0x0"),
        (td(td_attributes=BODY.td_attributes | 1 << 29), r"migration is possible, want off"),
        (
            td(tee_tcb_svn2=bytes(16), mr_service_td=b"\1" * 48),
            r"migration is a service TD is bound, want off",
        ),
        (td(td_attributes=0), r"sept_ve_disable is clear, want set"),
        (td(xfam=0x602E4), r"xfam is 0x602e4, want bits 0 and 1"),
        (td(xfam=0x602E7 | 1 << 40), r"xfam is 0x100000602e7, want"),
        (
            standing(tcb_status=TCBStatus.SW_HARDENING_NEEDED),
            r"tcb status is SWHardeningNeeded, want UpToDate",
        ),
        (
            standing(advisories=("INTEL-SA-1", "INTEL-SA-2")),
            r"advisories is INTEL-SA-1 and INTEL-SA-2, want nothing",
        ),
    ],
)
def test_each_fact_of_a_trust_domain_can_refuse(found: Claims, reason: str) -> None:
    (only,) = judged(found, policy()).reasons
    assert re.match(reason, only), only


@pytest.mark.parametrize(
    ("found", "change", "passes"),
    [
        (td(mr_config_id=b"\1" * 48), {"mr_config_id": "any"}, True),
        (td(mr_owner=b"\1" * 48), {"mr_owner": ["01" * 48]}, True),
        (td(mr_owner=bytes(48)), {"mr_owner": ["01" * 48]}, False),
        (td(td_attributes=0), {"require_sept_ve_disable": False}, True),
        (standing(tcb_status=TCBStatus.OUT_OF_DATE), {"tcb_statuses": ["UpToDate", "OutOfDate"]}, True),
        (standing(advisories=("INTEL-SA-1",)), {"allowed_advisories": "any"}, True),
        (standing(advisories=("INTEL-SA-1",)), {"allowed_advisories": ["INTEL-SA-1"]}, True),
        (standing(advisories=("INTEL-SA-1",)), {"allowed_advisories": ["INTEL-SA-2"]}, False),
        (
            standing(advisories=("INTEL-SA-1",)),
            {"allowed_advisories": "any", "denied_advisories": ["INTEL-SA-1"]},
            False,
        ),
        (standing(), {"minimum_module": {"version": 1, "svn": 6}}, True),
        (standing(), {"minimum_module": {"version": 1, "svn": 7}}, False),
        (standing(), {"minimum_module": {"version": 2, "svn": 0}}, False),
        (standing(tcb_date=datetime(2025, 5, 1, tzinfo=UTC)), {"minimum_tcb_date": "2025-05-01"}, True),
        (standing(tcb_date=datetime(2025, 5, 1, tzinfo=UTC)), {"minimum_tcb_date": "2025-05-02"}, False),
        (standing(evaluation_data_number=17), {"minimum_evaluation": 17}, True),
        (standing(evaluation_data_number=17), {"minimum_evaluation": 18}, False),
        (td(rtmr3=bytes(48)), {"images": [IMAGE | {"rtmr3": "00" * 48}]}, True),
        (td(rtmr3=bytes(48)), {"images": [IMAGE | {"rtmr3": "any"}]}, True),
        (td(), {"images": [IMAGE | {"until": "2026-11-19"}]}, False),
        (td(), {"images": [IMAGE | {"from": "2026-11-21"}]}, False),
        (td(), {"images": [IMAGE | {"until": "2026-11-19"}, IMAGE | {"from": "2026-11-20"}]}, True),
        # an image is accepted whole
        (td(), {"images": [IMAGE | {"mr_td": "00" * 48}, IMAGE | {"rtmr1": "00" * 48}]}, False),
    ],
)
def test_each_key_of_the_tdx_section_counts(found: Claims, change: dict[str, Any], passes: bool) -> None:
    assert judged(found, policy(tdx=TDX | change)).passed is passes


def test_without_a_log_no_register_is_its_head() -> None:
    assert not judged(replace(claims(), events=None), policy()).passed


def test_a_tpm_state_is_accepted_whole() -> None:
    first, second = PCRS[4].hex(), PCRS[11].hex()
    assert judged(claims(), policy(tpm={"states": [{"name": "s", "pcrs": {"pcr4": first}}]})).passed
    refused: list[list[dict[str, Any]]] = [
        [{"name": "s", "pcrs": {"pcr4": second}}],
        [{"name": "s", "pcrs": {"pcr4": first, "pcr12": "00" * 32}}],  # not in the quote
        [{"name": "s", "pcrs": {"pcr4": first}, "until": "2026-11-19"}],
        [
            {"name": "a", "pcrs": {"pcr4": first, "pcr11": first}},
            {"name": "b", "pcrs": {"pcr4": second, "pcr11": second}},
        ],
    ]
    for states in refused:
        (reason,) = judged(claims(), policy(tpm={"states": states})).reasons
        assert reason.startswith("tpm state is ")


def test_a_pcr_may_have_to_be_what_the_events_make_of_it() -> None:
    states = {"states": [{"name": "s", "pcrs": {"pcr15": "events"}}]}
    good = verify(bundle("snp", devices=gpus(), tpm=True, pcrs={15: LOG.pcr}))
    assert judged(good, policy("snp", tpm=states)).passed
    for other in (EventLog(), LOG.extend(Event("more", b"")), None):
        assert not judged(replace(good, events=other), policy("snp", tpm=states)).passed
    assert EventLog().pcr == bytes(32)


@pytest.mark.parametrize(
    ("fact", "section", "reason"),
    [
        ({"secure_boot": False}, {}, "secure boot is off, want on"),
        ({"secure_boot": False}, {"require_secure_boot": False}, None),
        ({"console_enabled": True}, {}, "console is on, want off"),
        ({"console_enabled": None}, {}, "console is unknown, want off"),
        ({"console_enabled": True}, {"allow_console": True}, None),
        ({}, {"vm_ids": ["A-1", "A-2"]}, None),
        ({}, {"vm_ids": ["A-2"]}, "vm id is A-1, want A-2"),
        ({"vm_unique_id": None}, {"vm_ids": ["A-2"]}, "vm id is unknown, want A-2"),
    ],
)
def test_each_fact_of_a_paravisor_counts(
    fact: dict[str, Any], section: dict[str, Any], reason: str | None
) -> None:
    found = claims("azure-snp")
    assert found.azure is not None
    changed = replace(found, azure=replace(found.azure, **fact))
    assert judged(changed, policy("azure-snp", azure=section)).reasons == ((reason,) if reason else ())


def gpu(*, every: dict[str, Any] | None = None, **changes: Any) -> Claims:
    """Claims whose one GPU has other facts, or whose devices have as a whole."""
    found = claims("snp")
    assert found.devices is not None
    one = found.devices.devices
    changed = replace(one, gpus=tuple(replace(each, **every or {}) for each in one.gpus))
    return replace(found, devices=replace(found.devices, devices=changed, **changes))


@pytest.mark.parametrize(
    ("found", "section", "reason"),
    [
        (gpu(every={"architecture": "blackwell"}), {}, "gpu architecture is blackwell, want hopper"),
        (gpu(every={"driver_version": "1.2"}), {}, f"gpu driver is 1.2, want {DRIVER}"),
        (gpu(every={"vbios_version": "1.2"}), {}, f"gpu vbios is 1.2, want {VBIOS}"),
        (gpu(every={"feature_flag": 1}), {"modes": ["single"]}, "gpu mode is multi, want single"),
        (
            gpu(every={"feature_flag": None}),
            {},
            "gpu mode is unknown, want single or multi or protected-pcie",
        ),
        (gpu(every={"feature_flag": None}), {"modes": ["unknown"]}, None),
        (
            gpu(every={"protected_pcie": True}),
            {"modes": ["single"]},
            "gpu mode is protected-pcie, want single",
        ),
        (gpu(measured=False), {}, "gpu measurements is not compared, want as published"),
        (gpu(measured=False), {"require_measurements": False}, None),
        (
            gpu(expired_signers=("L4",)),
            {},
            "gpu reference values is signed by expired L4, want signed by certificates in time",
        ),
        (gpu(expired_signers=("L4",)), {"allow_expired_signers": True}, None),
        (gpu(answered_at=None), {}, "gpu revocation is unknown, want known, at most 24 hours old"),
        (gpu(answered_at=None), {"ocsp_hours": "any"}, None),
        (gpu(answered_at=NOW - timedelta(hours=25)), {"ocsp_hours": 25}, None),
        (
            gpu(answered_at=NOW - timedelta(hours=25)),
            {},
            "gpu revocation is known as of 2026-11-18T23:00:00+00:00, want known, at most 24 hours old",
        ),
        (gpu(), {"switches": 4, "switch_vbios": [SWITCH_VBIOS]}, "switches is 0, want 4"),
    ],
)
def test_each_fact_of_a_gpu_counts(found: Claims, section: dict[str, Any], reason: str | None) -> None:
    assert judged(found, policy("snp", gpu=GPU | section)).reasons == ((reason,) if reason else ())


def said(**changes: Any) -> Claims:
    """Claims of a machine whose agent says something else of its GPUs."""
    return replace(claims("snp"), gpu_state=replace(GPU_STATE, **changes))


SILENT: Final = replace(claims("snp"), gpu_state=None)
CC_WANTED: Final = "on or protected-pcie or nvle"


@pytest.mark.guarantee("G19")
@pytest.mark.parametrize(
    ("found", "section", "reasons"),
    [
        (said(), {}, []),
        (said(multi_gpu=1), {}, []),
        (said(multi_gpu=2), {}, []),
        (said(multi_gpu=2), {"cc_modes": ["on"]}, ["gpu cc mode is nvle, by the agent's word, want on"]),
        (said(), {"cc_modes": ["nvle"]}, ["gpu cc mode is on, by the agent's word, want nvle"]),
        (said(cc_feature=0), {}, [f"gpu cc mode is off, by the agent's word, want {CC_WANTED}"]),
        (said(multi_gpu=3), {}, [f"gpu cc mode is unknown (1, 3), by the agent's word, want {CC_WANTED}"]),
        (
            said(multi_gpu=3),
            {"cc_modes": ["unknown"]},
            ["gpu cc mode is unknown (1, 3), by the agent's word, want unknown"],
        ),
        (said(devtools=1), {}, ["gpu devtools is on, by the agent's word, want off"]),
        (
            said(devtools=1),
            {"devtools": "unknown", "require_measurements": False},
            ["gpu devtools is on, by the agent's word, want off or unknown"],
        ),
        (said(devtools=2), {}, ["gpu devtools is unknown (2), by the agent's word, want off"]),
        (said(environment=1), {}, ["gpu environment is simulation, by the agent's word, want production"]),
        (said(ready=1), {}, ["gpu ready flag is set, by the agent's word, want clear"]),
        (
            SILENT,
            {},
            [
                f"gpu cc mode is unknown, by the agent's word, want {CC_WANTED}",
                "gpu devtools is unknown, by the agent's word, want off",
                "gpu environment is unknown, by the agent's word, want production",
                "gpu ready flag is unknown, by the agent's word, want clear",
            ],
        ),
        (
            SILENT,
            {"cc_modes": ["on", "unknown"]},
            ["gpu devtools is unknown, by the agent's word, want off"],
        ),
        (SILENT, {"cc_modes": ["on", "unknown"], "devtools": "unknown"}, []),
    ],
)
def test_what_the_agent_says_of_its_gpus_counts(
    found: Claims, section: dict[str, Any], reasons: list[str]
) -> None:
    assert [*judged(found, policy("snp", gpu=GPU | section)).reasons] == reasons


@pytest.mark.guarantee("G18")
@pytest.mark.parametrize("tee", KINDS)
def test_every_simulated_root_must_be_named_by_the_policy_too(tee: TEEKind) -> None:
    for missing in claims(tee).simulated_roots:
        others = [root for root in ROOTS if root != missing.hex()]
        verdict = judged(claims(tee), policy(tee, insecure_simulated_roots=others))
        (reason,) = verdict.reasons
        assert reason.startswith("root is INSECURE-SIMULATED ")
        assert verdict.simulated


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"tdx": []}, "policy.tdx: got a list, want a mapping"),
        ({"tdx": {}}, "policy.tdx.images: missing"),
        ({"tdx": {"images": [IMAGE]}}, "policy.tdx.mr_config_id: missing"),
        ({"tdx": TDX | {"images": []}}, "policy.tdx.images: empty"),
        (
            {"tdx": TDX | {"images": [{"name": "x", "mr_td": "00" * 48}]}},
            r"policy.tdx.images\[0\].rtmr0: missing",
        ),
        ({"tdx": TDX | {"images": [IMAGE | {"rtmr0": "events"}]}}, r"images\[0\].rtmr0: got events, want 96"),
        ({"tdx": TDX | {"tcb_statuses": ["Revoked"]}}, r"tcb_statuses\[0\]: got Revoked, want one of"),
        ({"tdx": TDX | {"tcb_statuses": []}}, "policy.tdx.tcb_statuses: empty"),
        ({"tdx": TDX | {"mr_owner": []}}, "policy.tdx.mr_owner: empty"),
        ({"tdx": TDX | {"denied_advisories": []}}, "policy.tdx.denied_advisories: empty"),
        ({"tdx": TDX | {"minimum_module": {"svn": 1}}}, "policy.tdx.minimum_module.version: missing"),
        ({"tdx": TDX | {"debug": True}}, "policy.tdx.debug: unknown key"),
        ({"tpm": {}}, "policy.tpm.states: missing"),
        ({"tpm": {"states": []}}, "policy.tpm.states: empty"),
        ({"tpm": {"states": [{"name": "x", "pcrs": {}}]}}, r"policy.tpm.states\[0\].pcrs: empty"),
        ({"tpm": {"states": [{"name": "x", "pcrs": {"pcr24": "00" * 32}}]}}, "pcrs.pcr24: unknown key"),
        ({"tpm": {"states": [{"name": "x", "pcrs": {"pcr4": "any"}}]}}, "pcrs.pcr4: got any, want 64"),
        ({"azure": {"vm_ids": []}}, "policy.azure.vm_ids: empty"),
        ({"azure": {"allow_console": "no"}}, "policy.azure.allow_console: got no, want true or false"),
        ({"gpu": {}}, "policy.gpu.architectures: missing"),
        (
            {"gpu": GPU | {"architectures": ["ampere"]}},
            r"architectures\[0\]: got ampere, want one of hopper, blackwell",
        ),
        ({"gpu": GPU | {"drivers": []}}, "policy.gpu.drivers: empty"),
        ({"gpu": GPU | {"switches": 4}}, "policy.gpu.switch_vbios: want it with switches"),
        ({"gpu": GPU | {"switch_vbios": ["x"]}}, "policy.gpu.switch_vbios: want it with switches"),
        ({"gpu": GPU | {"ocsp_hours": "24"}}, "policy.gpu.ocsp_hours: got 24, want a whole number"),
        ({"gpu": GPU | {"allow_devtools": True}}, "policy.gpu.allow_devtools: unknown key"),
        ({"gpu": GPU | {"devtools": "on"}}, "policy.gpu.devtools: got on, want one of off, unknown"),
        ({"gpu": GPU | {"devtools": False}}, "policy.gpu.devtools: got False, want one of off, unknown"),
        ({"gpu": GPU | {"cc_modes": []}}, "policy.gpu.cc_modes: empty"),
        (
            {"gpu": GPU | {"cc_modes": ["off"]}},
            r"policy.gpu.cc_modes\[0\]: got off, want one of on, protected",
        ),
        ({"gpus": 0}, "policy.gpu: gpus is 0, want at least 1"),
        ({"measurements": None}, "policy.measurements: missing"),
        ({"host_data": None}, "policy.host_data: missing"),
    ],
)
def test_what_is_wrong_in_a_section_is_named(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Policy.from_raw(policy("azure-snp", **change))


def test_an_empty_section_cannot_be_built_in_code_either() -> None:
    with pytest.raises(ConfigError, match=r"policy\.tdx\.images: empty"):
        TDXPolicy(images=(), mr_config_id=None)
    with pytest.raises(ConfigError, match=r"policy\.tpm\.states: empty"):
        TPMPolicy(states=())
    with pytest.raises(ConfigError, match=r"policy\.gpu\.drivers: empty"):
        GPUPolicy(architectures=("hopper",), drivers=(), vbios=("x",))
    unsafe: list[dict[str, Any]] = [{"cc_modes": ("on", "off")}, {"devtools": ("off", "on")}]
    for changes in unsafe:
        with pytest.raises(ConfigError, match=r"policy\.gpu: cc off or developer tools on, want neither"):
            GPUPolicy(architectures=("hopper",), drivers=("x",), vbios=("x",), **changes)


def test_the_defaults_are_the_strict_ones() -> None:
    read = Policy.from_raw(policy())
    assert read.tdx is not None
    assert read.gpu is not None
    assert read.tdx.tcb_statuses == (TCBStatus.UP_TO_DATE,)
    assert read.tdx.allowed_advisories == frozenset()
    assert read.tdx.mr_owner == read.tdx.mr_owner_config == frozenset({bytes(48)})
    assert read.tdx.require_sept_ve_disable
    assert read.gpu.require_measurements
    assert not read.gpu.allow_expired_signers
    assert read.gpu.ocsp_age == timedelta(hours=24)
    assert read.gpu.cc_modes == ("on", "protected-pcie", "nvle")
    assert read.gpu.devtools == ("off",)
    assert read.tdx.minimum_tcb_date is None
    assert Policy.from_raw(policy(tdx=TDX | {"minimum_tcb_date": "2025-01-31"})).tdx != read.tdx
