"""Mirrors strongroom/verify/one_boot.py, on claims that come from verified evidence."""

from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest

from strongroom.errors import VerifyError
from strongroom.evidence.bundle import TEEKind
from strongroom.evidence.collateral import Collateral
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.snp import TCB
from strongroom.verify.claims import Claims
from strongroom.verify.devices import DeviceClaims
from strongroom.verify.one_boot import check_one_boot
from tests.fakes.composite import GPU, LOG, bundle, collateral, gpus, verify
from tests.fakes.nvidia import nvidia

KINDS: Final[tuple[TEEKind, ...]] = ("snp", "tdx", "azure-snp", "azure-tdx")


@cache
def claims(tee: TEEKind = "snp", **changes: Any) -> Claims:
    return verify(bundle(tee, devices=gpus(), tpm=True, **changes))


def refused(earlier: Claims, now: Claims, why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        check_one_boot(earlier, now, "certificate")


@pytest.mark.parametrize("tee", KINDS)
def test_one_boot_is_one(tee: TEEKind) -> None:
    check_one_boot(claims(tee), claims(tee), "certificate")


def test_its_log_only_grows() -> None:
    later = LOG.extend(Event("gpu-ready", b"{}"))
    check_one_boot(claims(), claims(events=later), "certificate")
    refused(
        claims(events=later), claims(), "certificate: event log is another, want a beginning of that of now"
    )
    for other in (EventLog(LOG.events[1:]), EventLog((*LOG.events[:1], Event("x", b""), *LOG.events[1:]))):
        refused(claims(events=other), claims(events=later), "event log is another")
    refused(replace(claims(), events=None), claims(), "event log is another")
    refused(claims(), replace(claims(), events=None), "event log is another")
    check_one_boot(replace(claims(), events=None), replace(claims(), events=None), "certificate")


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"product": "Turin"}, "certificate: product is Turin, want Genoa: one boot of one machine"),
        ({"root_sha256": bytes(32)}, "root is 00000000…, want "),
        ({"measurement": bytes(48)}, "measurement is 00000000…, want 00010203…"),
        ({"host_data": bytes(32)}, "host_data is 00000000…, want 00010203…"),
        ({"chip_id": b"\1" * 64}, "chip id is 01010101…, want "),
        ({"report_id": b"\1" * 32}, "report id is 01010101…, want 00000000…"),
        ({"vmpl": 1}, "vmpl is 1, want 0"),
        ({"debug": True}, "debug is True, want False"),
        ({"migration": True}, "migration is True, want False"),
        ({"smt": False}, "smt is False, want True"),
        ({"tpm": None}, "tpm key is none, want "),
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else "",
)
def test_another_launch_or_another_machine_is_refused(change: dict[str, Any], why: str) -> None:
    refused(replace(claims(), **change), claims(), why)
    with pytest.raises(VerifyError):
        check_one_boot(claims(), replace(claims(), **change), "certificate")


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"td_attributes": 0}, "td_attributes is 0, want "),
        ({"xfam": 3}, "xfam is 3, want "),
        ({"mr_owner": b"\1" * 48}, "mr_owner is 01010101…"),
        ({"mr_owner_config": b"\1" * 48}, "mr_owner_config is 01010101…"),
        ({"rtmr0": b"\1" * 48}, "rtmr0 is 01010101…"),
        ({"rtmr1": b"\1" * 48}, "rtmr1 is 01010101…"),
        ({"rtmr2": b"\1" * 48}, "rtmr2 is 01010101…"),
        ({"rtmr3": b"\1" * 48}, None),  # follows the log
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else "",
)
def test_a_trust_domain_of_another_launch_is_refused(change: dict[str, Any], why: str | None) -> None:
    found = claims("tdx")
    assert found.tdx is not None
    other = replace(found, tdx=replace(found.tdx, body=replace(found.tdx.body, **change)))
    if why is None:
        check_one_boot(other, found, "certificate")
    else:
        refused(other, found, why)


@pytest.mark.guarantee("G8")
def test_a_trust_domain_on_another_platform_is_refused() -> None:
    found = claims("tdx")
    assert found.tdx is not None
    for name, size, shown in (("ppid", 16, "platform"), ("platform_instance_id", 16, "platform instance")):
        changes: dict[str, Any] = {name: b"\1" * size}
        pck = replace(found.tdx.pck, **changes)
        refused(replace(found, tdx=replace(found.tdx, pck=pck)), found, f"{shown} is 01010101…")


@pytest.mark.guarantee("G8")
def test_a_tpm_that_was_reset_is_another_boot() -> None:
    found = claims()
    assert found.tpm is not None
    again = replace(found, tpm=replace(found.tpm, reset_count=found.tpm.reset_count + 1))
    refused(found, again, r"tpm reset count is \d+, want \d+")
    refused(replace(found, tpm=replace(found.tpm, key_sha256=bytes(32))), found, "tpm key is 00000000…")
    check_one_boot(replace(found, tpm=replace(found.tpm, clock=0)), found, "certificate")


@pytest.mark.guarantee("G8")
def test_an_azure_vm_is_the_one_with_this_id() -> None:
    found = claims("azure-snp")
    assert found.azure is not None
    refused(replace(found, azure=replace(found.azure, vm_unique_id="B-2")), found, "vm id is B-2, want A-1")
    refused(claims("azure-snp"), claims("snp"), "certificate: ")


@pytest.mark.guarantee("G8")
def test_gpus_are_the_same_ones_in_any_order() -> None:
    pair = [GPU, nvidia().device(2)]
    manifests = Collateral.of({name: data for name, data in collateral() if name.startswith("nvidia-rim/")})

    def with_gpus(*devices: Any) -> Claims:
        return verify(bundle("snp", devices=gpus(devices)), collateral=manifests)

    check_one_boot(with_gpus(*pair), with_gpus(*pair[::-1]), "certificate")
    for fewer in (with_gpus(GPU), with_gpus(GPU, nvidia().device(3))):
        refused(fewer, with_gpus(*pair), "certificate: gpus is ")
    refused(verify(bundle("snp")), with_gpus(GPU), "certificate: gpus is none, want ")
    found = with_gpus(*pair)
    assert isinstance(found.devices, DeviceClaims)
    set_ = replace(found.devices.devices, switches=found.devices.devices.gpus[:1])
    refused(replace(found, devices=replace(found.devices, devices=set_)), found, "switches is .*, want none")


def test_what_may_change_under_a_running_guest_does_not_count() -> None:
    level = TCB(bootloader=99, tee=0, snp=99, microcode=99, fmc=None)
    renewed = replace(claims(), reported_tcb=level, committed_tcb=level, report_version=5, platform_info=1)
    check_one_boot(claims(), renewed, "certificate")
