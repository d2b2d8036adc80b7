"""Mirrors guest/gpus.py: one order, and every known way in which GPUs go wrong ends it with the GPUs shut.

The calls are those that the real nvidia-ml-py makes of a compiled library, in the order in which it makes them.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import pytest

from guest.gpus import ATTEST_EVERY, PERSISTENCE, Attested, GPUs, unverifiable
from guest.machine import nscq
from guest.machine.pci import driven_gpus, nvidia_gpus, nvidia_switches
from strongroom.errors import MachineError, PolicyError, StrongroomError, VerifyError
from strongroom.evidence.nvml import NVMLState
from tests.fakes.gpus import ENDED, HOLDER, Machine
from tests.fakes.nscq import double
from tests.fakes.nscq.double import Double as Switches

NONCE = bytes(range(32))
ADMISSION = ["init", "count", "settings", "capabilities", "ready", "driver"]
UNCHANGED = ["count", "settings", "ready"]
EVIDENCE = ["report 0", "certificate 0", "report 1", "certificate 1"]
STATE = NVMLState(environment=2, cc_feature=1, devtools=0, multi_gpu=0, driver="610.43.02", ready=0)


def ready(machine: Machine) -> GPUs:
    """GPUs that work was let into."""
    gpus = machine.gpus()

    async def through() -> None:
        await gpus.admit(2, tee="snp")
        await gpus.let_in(await gpus.attest(NONCE))

    asyncio.run(through())
    return gpus


def shut(machine: Machine) -> bool:
    """Whether no work can reach the GPUs, as the last thing that was done to them."""
    flags = [call for call in machine.double.calls if call.startswith("set-ready")]
    return bool(flags) and flags[-1] == "set-ready 0"


async def opened(gpus: GPUs) -> None:
    await gpus.admit(2, tee="snp")
    await gpus.let_in(await gpus.attest(NONCE))


def refused(machine: Machine, kind: type[StrongroomError], why: str, gpus: GPUs | None = None) -> None:
    """The way to readiness ends in `why`, and the flag was never set."""
    with pytest.raises(kind, match=why):
        asyncio.run(opened(gpus or machine.gpus()))
    assert "set-ready 1" not in machine.double.calls


@pytest.mark.guarantee("G19")
def test_the_order_is_mode_then_evidence_then_verification_then_ready(machine: Machine) -> None:
    gpus = ready(machine)
    asyncio.run(gpus.still_ready())
    gpus.close()
    assert machine.double.calls == [
        *ADMISSION,
        *UNCHANGED, *EVIDENCE, "verify",
        "set-ready 1", "ready",
        *UNCHANGED,
        "set-ready 0", "shutdown",
    ]  # fmt: skip
    ((devices, nonce),) = machine.verified
    assert nonce == NONCE and [device.report[4:36] for device in devices] == [NONCE, NONCE]
    assert machine.double.nonces == [NONCE.hex()] * 2


def test_without_gpus_there_is_no_library(machine: Machine) -> None:
    gpus = machine.gpus()
    asyncio.run(gpus.admit(0, tee="snp"))
    assert asyncio.run(gpus.evidence(NONCE)) == ()
    asyncio.run(gpus.still_ready())
    gpus.close()
    assert machine.double.calls == []


def test_nothing_can_be_attested_before_admission(machine: Machine) -> None:
    gpus = machine.gpus()
    steps: list[Callable[[], Coroutine[None, None, object]]] = [
        lambda: gpus.attest(NONCE),
        lambda: gpus.let_in(Attested((), STATE)),
    ]
    for step in steps:
        with pytest.raises(PolicyError, match="gpu: none were admitted"):
            asyncio.run(step())
    assert machine.double.calls == []


def test_an_empty_list_of_devices_lets_nothing_in(machine: Machine) -> None:
    gpus = machine.gpus()
    asyncio.run(gpus.admit(2, tee="snp"))
    with pytest.raises(PolicyError, match="gpu: no device was attested, want every one"):
        asyncio.run(gpus.let_in(Attested((), STATE)))
    assert shut(machine) and "set-ready 1" not in machine.double.calls


def test_a_version_without_a_verifier_uses_none(machine: Machine) -> None:
    gpus = GPUs(unverifiable, bus=machine.bus, holder=machine.holder)
    refused(machine, PolicyError, "cannot verify GPU evidence and will not use them", gpus)
    assert shut(machine)


@pytest.mark.guarantee("G19")
@pytest.mark.parametrize(
    ("state", "kind", "why"),
    [
        ({"cc": 0}, PolicyError, "gpu: confidential computing is off, want it on"),
        ({"settings": 3, "state": 3}, PolicyError, "confidential computing is off, want it on .*not know it"),
        ({"settings": 3, "cc": 0, "multi": 1}, PolicyError, "confidential computing is off"),
        ({"cc": 2}, PolicyError, "cc feature is 2 and multi-GPU mode 0"),
        ({"multi": 3}, PolicyError, "cc feature is 1 and multi-GPU mode 3"),
        ({"devtools": 1}, PolicyError, "developer tools mode is 1, want 0"),
        ({"devtools": 2}, PolicyError, "developer tools mode is 2, want 0"),
        ({"cc": 0, "multi": 1, "devtools": 1}, PolicyError, "developer tools mode is 1, want 0"),
        ({"environment": 0}, PolicyError, r"environment is 0, want 2 \(production\)"),
        ({"environment": 1}, PolicyError, r"environment is 1, want 2 \(production\)"),
        ({"settings": 999}, MachineError, "nvml settings: unknown error"),
        ({"cpu": 0}, PolicyError, "CPU capability 0, want that of snp"),
        ({"cpu": 1}, PolicyError, "CPU capability 1, want that of snp"),
        ({"cpu": 2}, PolicyError, "CPU capability 2, want that of snp"),
        ({"capabilities": 3}, MachineError, "nvml capabilities: not supported"),
        ({"count": 1}, PolicyError, "the driver shows 1, want the 2 on the bus"),
        ({"count": 0}, PolicyError, "the driver shows 0, want the 2 on the bus"),
        ({"count": 3}, PolicyError, "the driver shows 3, want the 2 on the bus"),
        ({"get_count": 15}, MachineError, "nvml device count: the GPU is lost"),
        ({"ready": 1}, PolicyError, "ready state is 1 before any attestation, want 0"),
        ({"get_ready": 3}, MachineError, "nvml ready state: not supported"),
    ],
)
def test_unfit_gpus_are_not_admitted(
    machine: Machine, state: dict[str, int], kind: type[StrongroomError], why: str
) -> None:
    machine.double.set(**state)
    refused(machine, kind, why)
    assert shut(machine)
    assert not machine.double.nonces


@pytest.mark.parametrize("state", [{"multi": 2}, {"settings": 25}, {"cpu": 4}, {"cc": 0, "multi": 1}])
def test_other_modes_of_production_are_admitted(machine: Machine, state: dict[str, int]) -> None:
    machine.double.set(**state)
    ready(machine)
    assert machine.double.calls[-2:] == ["set-ready 1", "ready"]


def test_the_cpu_is_the_one_that_is_attested(machine: Machine) -> None:
    machine.double.set(cpu=2)
    asyncio.run(machine.gpus().admit(2, tee="tdx"))
    with pytest.raises(PolicyError, match="CPU capability 2, want that of sev"):
        asyncio.run(machine.gpus().admit(2, tee="sev"))


@pytest.mark.parametrize("wanted", [1, 3])
def test_the_bus_shows_as_many_as_configured(machine: Machine, wanted: int) -> None:
    with pytest.raises(PolicyError, match=f"gpu: found 2 on the bus, want {wanted}"):
        asyncio.run(machine.gpus().admit(wanted, tee="snp"))
    assert machine.double.calls == []


def test_a_library_of_another_version_than_the_driver(machine: Machine) -> None:
    machine.double.set(init=18)
    refused(machine, MachineError, "nvml init: library and kernel driver are of different versions")


def test_nothing_is_opened_before_the_persistence_daemon_holds_every_gpu(machine: Machine) -> None:
    machine.holders = [replace(HOLDER, active="inactive")]
    why = rf"the driver has 2 of 2 and {PERSISTENCE} is inactive after 0 s"
    with pytest.raises(MachineError, match=why):
        asyncio.run(machine.gpus().admit(2, tee="snp"))
    assert machine.double.calls == []


def test_a_persistence_daemon_that_comes_up_is_waited_for(machine: Machine) -> None:
    machine.holders = [replace(HOLDER, active="activating"), HOLDER]
    asyncio.run(machine.gpus(patience=5.0).admit(2, tee="snp"))
    assert machine.double.calls == ADMISSION


def test_a_persistence_daemon_that_failed_is_not_waited_for(machine: Machine) -> None:
    machine.holders = [replace(HOLDER, active="failed", result="exit-code", exit_status=1)]
    with pytest.raises(MachineError, match=f"{PERSISTENCE} is failed"):
        asyncio.run(machine.gpus(patience=5.0).admit(2, tee="snp"))
    assert machine.double.calls == []


def test_a_gpu_that_did_not_attach_is_told(machine: Machine) -> None:
    """Eight of which five came up: a second attachment without a reset, or a driver without the kernel's crypto."""
    next(machine.bus.driver.iterdir()).rmdir()
    refused(machine, MachineError, f"the driver has 1 of 2 and {PERSISTENCE} is active after 0 s")
    assert machine.double.calls == []


@pytest.mark.guarantee("G19")
@pytest.mark.parametrize(
    "why",
    [
        "rim: none for driver 610.43.02",
        "rim: the service did not answer in time",
        "gpu 0: measurements differ at 3, 9, 31",
        "gpu 1: measurement differs at 9",
        "ocsp: response is older than 24 h",
        "gpu 0: leaf certificate has expired",
    ],
)
def test_evidence_that_is_refused_leaves_the_gpus_shut(machine: Machine, why: str) -> None:
    machine.refusal = VerifyError(why)
    refused(machine, VerifyError, why)
    assert shut(machine)


def test_a_verifier_that_breaks_leaves_the_gpus_shut(machine: Machine) -> None:
    machine.refusal = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(opened(machine.gpus()))
    assert shut(machine) and "set-ready 1" not in machine.double.calls


@pytest.mark.parametrize(
    ("state", "kind", "why"),
    [
        ({"report": 999}, MachineError, "nvml evidence of gpu 0: unknown error"),
        ({"fresh": 0}, MachineError, "gpu 0: report answers another nonce"),
        ({"ready": 1}, PolicyError, "ready state is 1, want 0: somebody else set it"),
        ({"cc": 0}, PolicyError, "confidential computing is off"),
        ({"count": 1}, PolicyError, "the driver shows 1, want the 2 that were admitted"),
    ],
)
def test_what_changes_between_admission_and_attestation_is_seen(
    machine: Machine, state: dict[str, int], kind: type[StrongroomError], why: str
) -> None:
    async def through() -> None:
        gpus = machine.gpus()
        await gpus.admit(2, tee="snp")
        machine.double.set(**state)
        await gpus.attest(NONCE)

    with pytest.raises(kind, match=why):
        asyncio.run(through())
    assert shut(machine) and "verify" not in machine.double.calls


def test_one_device_cannot_stand_for_two(machine: Machine) -> None:
    folder = machine.bus.devices.parent
    (folder / "chain1").write_bytes((folder / "chain0").read_bytes())
    refused(machine, PolicyError, "two devices gave the same certificates")
    assert shut(machine)


def test_what_the_driver_said_is_told_at_admission(machine: Machine) -> None:
    gpus = machine.gpus()
    assert asyncio.run(gpus.admit(2, tee="snp")) == STATE
    assert asyncio.run(gpus.attest(NONCE)).state == STATE
    machine.double.set(cc=0, multi=1)
    found = asyncio.run(machine.gpus().admit(2, tee="snp"))
    assert found == replace(STATE, cc_feature=0, multi_gpu=1)


@pytest.mark.guarantee("G19")
def test_switches_are_asked_with_the_gpus(machine: Machine, switches: Switches) -> None:
    machine.plug_switches(4)
    machine.double.set(cc=0, multi=1)
    asyncio.run(opened(machine.gpus()))
    ((devices, _),) = machine.verified
    assert [device.kind for device in devices] == ["hopper"] * 2 + ["ls10"] * 4
    assert [device.report[4:36] for device in devices] == [NONCE] * 6
    modes = [f"mode {n}" for n in range(4)]
    assert switches.calls[:6] == ["create", "uuid", *modes]  # at admission, and no evidence yet
    assert switches.calls[6:13] == ["destroy", "create", "uuid", *modes]
    assert switches.calls[-1] == "destroy"


def test_without_switches_on_the_bus_their_library_stays_closed(machine: Machine, switches: Switches) -> None:
    ready(machine)
    assert switches.calls == []


def unfit_switches(machine: Machine, kind: type[StrongroomError], why: str) -> None:
    """Refused at admission: nothing was attested, and nothing asked of a broker."""
    machine.plug_switches(4)
    machine.double.set(cc=0, multi=1)
    refused(machine, kind, why)
    assert shut(machine) and not machine.double.nonces


@pytest.mark.guarantee("G19")
@pytest.mark.parametrize(
    ("state", "kind", "why"),
    [
        ({"mode_value": 0}, PolicyError, "protection of switch 0 is disabled, want locked"),
        ({"mode_value2": 1}, PolicyError, "protection of switch 2 is enabled, want locked"),
        ({"mode_value3": 2}, PolicyError, "protection of switch 3 is failure, want locked"),
        ({"mode_value1": -1}, PolicyError, "protection of switch 1 is unknown, want locked"),
        ({"mode_value1": 7}, PolicyError, "protection of switch 1 is 7, want locked"),
        ({"count": 3}, PolicyError, "libnvidia-nscq shows 3 switches, want 4"),
        ({"count": 0}, PolicyError, "libnvidia-nscq shows 0 switches, want 4"),
        ({"count": 5}, PolicyError, "libnvidia-nscq shows 5 switches, want 4"),
        ({"create": 1}, MachineError, "nscq session: it came up in part only"),
        ({"mode_times3": 0}, MachineError, "nscq protection of switch 3: 0 answers, want one"),
    ],
)
def test_unfit_switches_are_not_admitted(
    machine: Machine, switches: Switches, state: dict[str, int], kind: type[StrongroomError], why: str
) -> None:
    switches.set(**state)
    unfit_switches(machine, kind, why)


def test_switches_that_the_fabric_manager_locks_are_waited_for(machine: Machine, switches: Switches) -> None:
    machine.plug_switches(4)
    machine.double.set(cc=0, multi=1)
    switches.set(mode_value2=1)

    async def through() -> None:
        admission = asyncio.create_task(machine.gpus(patience=5.0).admit(2, tee="snp"))
        for _ in range(1000):
            if switches.calls.count("destroy") >= 2:
                break
            await asyncio.sleep(0.01)
        switches.set(mode_value2=3)
        await admission

    asyncio.run(through())
    assert machine.double.calls == ADMISSION


def test_switches_without_their_library_are_refused(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nscq, "LIBRARY", str(tmp_path / "absent"))
    unfit_switches(
        machine, MachineError, "nscq: .*absent cannot be loaded, want the driver's own in the image"
    )


def test_switches_behind_a_library_of_another_version_are_refused(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    library = double.build(tmp_path / "other", version="595.71.05")
    with double.bound(library, tmp_path / "other") as other:
        why = r"nscq: library is of version 595.71.05, want the driver's, 610.43.02"
        unfit_switches(machine, MachineError, why)
        assert other.calls == []


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"report_times2": 0}, "nscq report of switch 2: 0 answers, want one"),
        ({"fresh1": 0}, "switch 1: report answers another nonce than it was asked with"),
        ({"report_size3": 8193}, "switch 3: report: 8193 bytes, want 1..8192"),
        ({"mode_value2": 1}, "protection of switch 2 is enabled, want locked"),
    ],
)
def test_a_switch_that_fails_after_admission_leaves_the_gpus_shut(
    machine: Machine, switches: Switches, state: dict[str, int], why: str
) -> None:
    machine.plug_switches(4)
    machine.double.set(cc=0, multi=1)

    async def through() -> None:
        gpus = machine.gpus()
        await gpus.admit(2, tee="snp")
        switches.set(**state)
        await gpus.let_in(await gpus.attest(NONCE))

    with pytest.raises((MachineError, PolicyError), match=why):
        asyncio.run(through())
    assert shut(machine) and "set-ready 1" not in machine.double.calls


def test_one_switch_cannot_stand_for_two(machine: Machine, switches: Switches, tmp_path: Path) -> None:
    machine.plug_switches(4)
    machine.double.set(cc=0, multi=1)
    folder = tmp_path / "nscq"
    (folder / "chain3").write_bytes((folder / "chain0").read_bytes())
    refused(machine, PolicyError, "two devices gave the same certificates")
    assert shut(machine)


@pytest.mark.guarantee("G10")
def test_a_switch_that_is_unlocked_while_serving_shuts_the_gpus(machine: Machine, switches: Switches) -> None:
    machine.plug_switches(4)
    machine.double.set(cc=0, multi=1)
    gpus = ready(machine)
    switches.set(mode_value1=1)
    machine.now += ATTEST_EVERY
    with pytest.raises(PolicyError, match="protection of switch 1 is enabled, want locked"):
        asyncio.run(gpus.still_ready())
    assert shut(machine)


@pytest.mark.parametrize(
    ("state", "kind", "why"),
    [
        ({"set_sticks": 0}, MachineError, "ready state was set to 1 and reads 0"),
        ({"set_ready": 4}, MachineError, "nvml set ready 1: permission denied"),
    ],
)
def test_a_flag_that_does_not_hold_is_told(
    machine: Machine, state: dict[str, int], kind: type[StrongroomError], why: str
) -> None:
    machine.double.set(**state)
    with pytest.raises(kind, match=why):
        asyncio.run(opened(machine.gpus()))
    assert shut(machine)


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize(
    ("state", "kind", "why"),
    [
        ({"ready": 0}, PolicyError, "ready state is 0, want 1: somebody else set it, or the session is new"),
        ({"cc": 0}, PolicyError, "confidential computing is off, want it on"),
        ({"settings": 3, "state": 3}, PolicyError, "confidential computing is off"),
        ({"devtools": 1}, PolicyError, "developer tools mode is 1"),
        ({"multi": 2}, PolicyError, "want those at admission"),
        ({"count": 1}, PolicyError, "the driver shows 1, want the 2 that were admitted"),
        ({"get_count": 15}, MachineError, "the GPU is lost"),
    ],
)
def test_what_changes_while_serving_shuts_the_gpus(
    machine: Machine, state: dict[str, int], kind: type[StrongroomError], why: str
) -> None:
    gpus = ready(machine)
    asyncio.run(gpus.still_ready())
    machine.double.set(**state)
    with pytest.raises(kind, match=why):
        asyncio.run(gpus.still_ready())
    assert shut(machine)


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize("holder", [ENDED, replace(HOLDER, main_pid=42)], ids=["ended", "began anew"])
def test_a_new_attachment_shuts_the_gpus(machine: Machine, holder: object) -> None:
    gpus = ready(machine)
    machine.holders = [holder]  # type: ignore[list-item]
    with pytest.raises(MachineError, match=f"{PERSISTENCE} ended, and with it the session that was attested"):
        asyncio.run(gpus.still_ready())
    assert shut(machine)


@pytest.mark.guarantee("G10")
def test_a_gpu_plugged_in_while_serving_shuts_them_all(machine: Machine) -> None:
    gpus = ready(machine)
    machine.plug("0000:09:00.0", "0x030200")
    with pytest.raises(PolicyError, match="gpu: found 3 on the bus, want 2"):
        asyncio.run(gpus.still_ready())
    assert shut(machine)


def test_a_flag_that_fell_stays_down(machine: Machine) -> None:
    gpus = ready(machine)
    machine.double.set(cc=0)
    with pytest.raises(PolicyError):
        asyncio.run(gpus.still_ready())
    machine.double.set(cc=1)
    with pytest.raises(MachineError, match="nvml set ready 1: invalid argument"):
        asyncio.run(opened(machine.gpus()))


def test_evidence_is_verified_again_and_again_each_time_over_a_new_nonce(machine: Machine) -> None:
    gpus = ready(machine)
    for seconds in (0, ATTEST_EVERY - 1, 1, ATTEST_EVERY):
        machine.now += seconds
        asyncio.run(gpus.still_ready())
    nonces = [nonce for _, nonce in machine.verified]
    assert len(nonces) == len({*nonces}) == 3
    machine.refusal = VerifyError("ocsp: gpu 0 is revoked")
    machine.now += ATTEST_EVERY
    with pytest.raises(VerifyError, match="ocsp: gpu 0 is revoked"):
        asyncio.run(gpus.still_ready())
    assert shut(machine)


def test_the_bus_is_told_from_what_else_is_on_it(machine: Machine) -> None:
    machine.plug("0000:0a:00.0", "0x040300")  # a GPU's audio function
    machine.plug("0000:0b:00.0", "0x030000", vendor="0x1002")
    machine.plug("0000:0c:00.0", "0x068000")
    assert (
        nvidia_gpus(machine.bus.devices)
        == driven_gpus(machine.bus.driver)
        == ("0000:00:00.0", "0000:01:00.0")
    )
    assert nvidia_switches(machine.bus.devices) == ("0000:0c:00.0",)
    assert driven_gpus(machine.bus.devices / "absent") == ()
