"""Mirrors strongroom/appraise/verdict.py."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, Final

import pytest

from strongroom.appraise.policy import ModelRule, Policy, ReferenceValue
from strongroom.appraise.verdict import Result, Verdict, appraise
from strongroom.errors import PolicyError
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.snp import TCB
from strongroom.verify.claims import Claims
from strongroom.wire.canonical import pack_json

NOW: Final = datetime(2026, 11, 20, tzinfo=UTC)
ROOT: Final = "12" * 32
LEVELS: Final = TCB(bootloader=10, tee=0, snp=23, microcode=84)
LOG: Final = EventLog(
    (
        Event("model", pack_json({"name": "tiny", "root": ROOT, "epoch": 3})),
        Event("engine", pack_json({"name": "vllm", "version": "0.24.0"})),
    )
)
CLAIMS: Final = Claims(
    tee="snp",
    product="Genoa",
    simulated=False,
    root_sha256=bytes(32),
    leaf="vcek",
    csp_id=None,
    measurement=b"\xab" * 48,
    host_data=b"\xcd" * 32,
    debug=False,
    migration=False,
    smt=True,
    vmpl=0,
    reported_tcb=LEVELS,
    committed_tcb=LEVELS,
    chip_id=bytes(range(64)),
    report_version=3,
    platform_info=0x25,
    events=LOG,
    gpus=0,
    not_checked=("revocation of the ask: no revocation list given",),
)
POLICY: Final = Policy(
    measurements=(ReferenceValue(name="image 1", value=b"\xab" * 48),),
    host_data=frozenset({b"\xcd" * 32}),
    minimum_tcb={"bootloader": 10, "snp": 23},
    model=ModelRule(root=bytes.fromhex(ROOT), minimum_epoch=3),
    engine_versions=("0.24.0", "0.24.1"),
)


def test_a_good_machine_passes_and_every_check_is_on_record() -> None:
    verdict = appraise(CLAIMS, POLICY, now=NOW)
    verdict.require()
    assert verdict.passed
    assert verdict.reasons == ()
    assert [result.check for result in verdict.results] == [
        "root",
        "product",
        "signing key",
        "measurement",
        "host_data",
        "debug",
        "migration",
        "vmpl",
        "reported tcb",
        "committed tcb",
        "memory alias check",
        "model root",
        "model epoch",
        "engine version",
        "gpus",
    ]
    assert verdict.not_checked == CLAIMS.not_checked


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"product": "Milan"}, "product is Milan, want Genoa or Turin"),
        ({"leaf": "vlek", "csp_id": "CN=cloud"}, "signing key is of CN=cloud, want the chip's own"),
        ({"measurement": bytes(48)}, f"measurement is {'00' * 48}, want image 1"),
        ({"host_data": bytes(32)}, f"host_data is {'00' * 32}, want {'cd' * 32}"),
        pytest.param({"debug": True}, "debug is on, want off", marks=pytest.mark.guarantee("G6")),
        ({"migration": True}, "migration is possible, want off"),
        ({"vmpl": 1}, "vmpl is 1, want 0"),
        ({"vmpl": 2**32 - 1}, "vmpl is 4294967295, want 0"),
        (
            {"reported_tcb": replace(LEVELS, snp=22)},
            "reported tcb is bootloader=10 tee=0 snp=22 microcode=84, want at least bootloader=10 snp=23",
        ),
        (
            {"committed_tcb": replace(LEVELS, bootloader=9)},
            "committed tcb is bootloader=9 tee=0 snp=23 microcode=84, want at least bootloader=10 snp=23",
        ),
        ({"platform_info": 0x05}, "memory alias check is not complete, want complete"),
        ({"gpus": 1}, "gpus is 1, want 0"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_each_claim_can_refuse(change: dict[str, Any], reason: str) -> None:
    verdict = appraise(replace(CLAIMS, **change), POLICY, now=NOW)
    assert verdict.reasons == (reason,)
    with pytest.raises(PolicyError, match=r"^evidence: "):
        verdict.require()


def test_every_reason_is_given_in_one_line() -> None:
    verdict = appraise(replace(CLAIMS, debug=True, vmpl=2), POLICY, now=NOW)
    with pytest.raises(PolicyError) as caught:
        verdict.require()
    assert str(caught.value) == "evidence: debug is on, want off; vmpl is 2, want 0"


@pytest.mark.guarantee("G6")
def test_no_policy_accepts_debug() -> None:
    loose = Policy(
        measurements=POLICY.measurements, host_data=None, vmpl=(0, 1, 2, 3), require_alias_check=False
    )
    assert appraise(CLAIMS, loose, now=NOW).passed
    assert not appraise(replace(CLAIMS, debug=True), loose, now=NOW).passed


SIMULATED: Final = replace(CLAIMS, simulated=True, root_sha256=b"\xef" * 32)


@pytest.mark.guarantee("G18")
def test_simulated_silicon_passes_only_where_it_is_named_and_never_unseen() -> None:
    refused = appraise(SIMULATED, POLICY, now=NOW)
    with pytest.raises(
        PolicyError, match=r"^evidence \(INSECURE-SIMULATED\): root is INSECURE-SIMULATED efef"
    ):
        refused.require()
    accepted = appraise(
        SIMULATED, replace(POLICY, insecure_simulated_roots=frozenset({b"\xef" * 32})), now=NOW
    )
    accepted.require()
    for verdict in (refused, accepted):
        assert verdict.simulated
        assert verdict.to_json()["silicon"] == "INSECURE-SIMULATED"
        assert "INSECURE-SIMULATED" in verdict.results[0].found


def test_a_named_cloud_may_sign_for_its_chips() -> None:
    vlek = replace(CLAIMS, leaf="vlek", csp_id="CN=cloud")
    assert appraise(vlek, replace(POLICY, vlek_providers=("CN=cloud",)), now=NOW).passed
    assert not appraise(vlek, replace(POLICY, vlek_providers=("CN=other",)), now=NOW).passed


def test_a_measurement_counts_only_on_its_days() -> None:
    old = ReferenceValue(name="image 1", value=CLAIMS.measurement, last_day=date(2026, 11, 19))
    new = ReferenceValue(name="image 2", value=bytes(48))
    verdict = appraise(CLAIMS, replace(POLICY, measurements=(old, new)), now=NOW)
    assert verdict.reasons == ("measurement is image 1 outside its days, want one accepted today",)
    again = replace(old, name="image 1 again", first_day=NOW.date(), last_day=None)
    assert appraise(CLAIMS, replace(POLICY, measurements=(old, again)), now=NOW).passed


def test_any_host_data_is_said_to_be_any() -> None:
    verdict = appraise(replace(CLAIMS, host_data=bytes(32)), replace(POLICY, host_data=None), now=NOW)
    assert Result("host_data", True, "00" * 32, "any") in verdict.results
    assert verdict.passed


def test_a_floor_for_a_component_the_chip_lacks_is_not_met() -> None:
    verdict = appraise(CLAIMS, replace(POLICY, minimum_tcb={"fmc": 0}), now=NOW)
    assert len(verdict.reasons) == 2


@pytest.mark.guarantee("G5")
@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        ({"root": ROOT, "epoch": 4}, []),
        ({"root": ROOT, "epoch": 2}, ["model epoch is 2, want at least 3"]),
        ({"root": ROOT, "epoch": True}, ["model epoch is True, want at least 3"]),
        ({"root": ROOT, "epoch": "3"}, ["model epoch is 3, want at least 3"]),
        ({"root": ROOT}, ["model epoch is None, want at least 3"]),
        ({"root": "00" * 32, "epoch": 3}, [f"model root is {'00' * 32}, want {ROOT}"]),
    ],
)
def test_the_model_in_the_log_is_judged(model: dict[str, Any], reasons: list[str]) -> None:
    log = EventLog((Event("model", pack_json(model)), LOG.events[1]))
    assert list(appraise(replace(CLAIMS, events=log), POLICY, now=NOW).reasons) == reasons


PUSHED = {
    "name": "tiny",
    "epoch": 3,
    "root": ROOT,
    "manifest_sha256": "11" * 32,
    "provider_sha256": "22" * 32,
}


@pytest.mark.parametrize(
    ("rule", "reasons"),
    [
        (ModelRule(manifest=b"\x11" * 32, providers=frozenset([b"\x22" * 32, bytes(32)])), []),
        (ModelRule(manifest=bytes(32)), [f"pushed manifest is {'11' * 32}, want {'00' * 32}"]),
        (ModelRule(providers=frozenset([bytes(32)])), [f"pushed by is {'22' * 32}, want {'00' * 32}"]),
    ],
)
def test_what_was_pushed_and_by_whom_is_judged(rule: ModelRule, reasons: list[str]) -> None:
    log = EventLog((Event("pushed", pack_json(PUSHED)), *LOG.events))  # type: ignore[arg-type]
    policy = replace(POLICY, model=rule)
    assert list(appraise(replace(CLAIMS, events=log), policy, now=NOW).reasons) == reasons
    verdict = appraise(CLAIMS, policy, now=NOW)
    assert verdict.reasons
    assert all("is not in the event log" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("events", "found"),
    [
        (None, "unknown without an event log"),
        (EventLog(), "not in the event log"),
        (EventLog(LOG.events * 2), "unreadable (event log: 2 events named engine, want one)"),
        (
            EventLog((Event("engine", b"no"),)),
            "unreadable (event engine: not JSON at byte 0: expecting value)",
        ),
        (EventLog((Event("engine", b"[]"),)), "unreadable (not an object)"),
    ],
)
def test_without_a_readable_log_the_rule_is_not_met(events: EventLog | None, found: str) -> None:
    policy = replace(POLICY, model=None)
    verdict = appraise(replace(CLAIMS, events=events), policy, now=NOW)
    assert verdict.reasons == (f"engine version is {found}, want 0.24.0 or 0.24.1",)
    assert appraise(replace(CLAIMS, events=None), replace(policy, engine_versions=None), now=NOW).passed


def test_nothing_checked_is_no_pass() -> None:
    empty = Verdict((), simulated=False)
    assert not empty.passed
    with pytest.raises(PolicyError, match="evidence: nothing was checked"):
        empty.require()


def test_json_carries_everything() -> None:
    verdict = appraise(replace(CLAIMS, debug=True), POLICY, now=NOW)
    found: Any = verdict.to_json()
    assert found["passed"] is False
    assert found["silicon"] == "genuine"
    assert {"check": "debug", "passed": False, "found": "on", "wanted": "off"} in found["results"]
    assert found["not_checked"] == list(CLAIMS.not_checked)
    pack_json(found)


def test_no_verdict_names_the_chip() -> None:
    assert CLAIMS.chip_id.hex()[:16] not in str(appraise(CLAIMS, POLICY, now=NOW).to_json())
