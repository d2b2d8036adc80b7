"""Mirrors guest/judge.py: two simulated GPUs, from the C library to the ready flag, judged by kept collateral."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.ocsp import OCSPCertStatus

from guest.gpus import Attested, GPUs
from guest.judge import judge
from strongroom.errors import PolicyError, StrongroomError, VerifyError
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.spdm import Opaque
from strongroom.host.collateral.entry import Entry
from strongroom.host.collateral.item import Item
from strongroom.host.collateral.nvidia import NVIDIAManifest, NVIDIAStatus
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.wanted import for_nvidia_device, raised_by
from strongroom.verify.roots import PRODUCTION
from tests.fakes import nvidia as fake
from tests.fakes.gpus import Machine
from tests.fakes.nscq.double import Double as Switches

NONCE = bytes(range(32))


class Bench:
    """Devices with genuine-shaped evidence over NONCE, and a store with what their maker signed of them."""

    def __init__(self, folder: Path, now: datetime) -> None:
        self.maker = fake.nvidia()
        self.now = now
        self.devices = [self.maker.device(n) for n in (1, 2)]
        self.switches: list[fake.Device] = []
        self.store = Store.create(folder / "collateral")
        self.roots = self.maker.roots()

    def evidence(self, nonce: bytes = NONCE) -> list[GPUEvidence]:
        return [
            GPUEvidence(kind="hopper", certificates=b"".join(d.ders), report=d.report(nonce).pack())
            for d in self.devices
        ]

    def wire(self) -> None:
        """Four switches between the devices, in protected PCIe."""
        self.switches = [self.maker.device(n, kind="switch") for n in range(4)]

    def reports(self, nonce: bytes = NONCE) -> list[bytes]:
        """Of every device and then every switch, each naming all of the others."""
        if not self.switches:
            return [device.report(nonce).pack() for device in self.devices]
        protected = {
            Opaque.PROTECTED_PCIE_STATUS: b"\xaa",
            Opaque.FEATURE_FLAG: b"\2\0",
            Opaque.SWITCH_PDI: b"".join(switch.pdi * 4 for switch in self.switches) + bytes(16),
        }
        gpus = [device.report(nonce, opaque=protected).pack() for device in self.devices]
        return gpus + [self.switch_report(n, nonce=nonce) for n in range(len(self.switches))]

    def switch_report(
        self, index: int, *, nonce: bytes = NONCE, opaque: dict[Opaque, bytes] | None = None, **changes: Any
    ) -> bytes:
        seen = b"".join(device.pdi for device in self.devices).ljust(64, b"\0") + b"\xff" * 64
        every: dict[Opaque, bytes | None] = {Opaque.GPU_PDI: seen, **(opaque or {})}
        return self.switches[index].report(nonce, opaque=every, **changes).pack()

    def fill(
        self, *, without: Callable[[Item], bool] = lambda item: False, answer: dict[str, Any] | None = None
    ) -> None:
        devices = [*self.devices, *self.switches]
        authorities = {a.der: a for d in devices for a in d.chain} | {a.der: a for a in self.maker.rim}
        for device in devices:
            report, chain = device.report(NONCE), b"".join(device.ders)
            waiting = list(for_nvidia_device(report, chain, kind=device.kind, roots=self.roots, now=self.now))
            while waiting:
                item = waiting.pop()
                parts = self._parts(item, authorities, answer or {})
                waiting += raised_by(item, parts)
                if not without(item):
                    self.store.put(Entry(item, parts), roots=self.roots, now=self.now)

    def _parts(
        self, item: Item, authorities: dict[bytes, fake.Authority], changes: dict[str, Any]
    ) -> dict[str, bytes]:
        if isinstance(item, NVIDIAManifest):
            signed = {"GPU_DRIVER": self.maker.driver_rim, "GPU_VBIOS": self.maker.vbios_rim}
            kind = next((kind for kind in signed if kind in item.id), None)
            return {"rim": signed[kind]() if kind is not None else self.maker.switch_rim()}
        assert isinstance(item, NVIDIAStatus)
        return {"answer": fake.answer(authorities[item.chain[0]], authorities[item.chain[1]], **changes)}

    def judge(self, *, later: timedelta = timedelta()) -> Callable[[Sequence[GPUEvidence], bytes], None]:
        return judge(self.store.directory, roots=self.roots, now=lambda: self.now + later)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, fake.NOW)


@pytest.mark.guarantee("G19")
def test_genuine_devices_are_let_in(bench: Bench, machine: Machine) -> None:
    bench.fill()
    machine.double.set(fresh=0)  # a report can only be signed ahead of the question here
    for index, device in enumerate(bench.devices):
        machine.double.device(index, report=device.report(NONCE).pack(), chain=device.pem)
    gpus = GPUs(bench.judge(), bus=machine.bus, holder=machine.holder)

    async def through() -> None:
        await gpus.admit(2, tee="snp")
        await gpus.let_in(await gpus.attest(NONCE))

    asyncio.run(through())
    assert machine.double.calls[-2:] == ["set-ready 1", "ready"]


def wired(bench: Bench, machine: Machine, switches: Switches) -> GPUs:
    """All of them behind the C libraries, with reports that were signed ahead of the question."""
    bench.wire()
    bench.fill()
    machine.plug_switches(4)
    machine.double.set(fresh=0, cc=0, multi=1)
    switches.set(fresh=0)
    reports = bench.reports()
    for index, device in enumerate(bench.devices):
        machine.double.device(index, report=reports[index], chain=device.pem)
    for index, switch in enumerate(bench.switches):
        switches.switch(index, report=reports[len(bench.devices) + index], chain=switch.pem)
    return GPUs(bench.judge(), bus=machine.bus, holder=machine.holder)


@pytest.mark.guarantee("G19")
def test_genuine_devices_and_the_switches_between_them_are_let_in(
    bench: Bench, machine: Machine, switches: Switches
) -> None:
    gpus = wired(bench, machine, switches)

    async def through() -> Attested:
        await gpus.admit(2, tee="snp")
        attested = await gpus.attest(NONCE)
        await gpus.let_in(attested)
        return attested

    attested = asyncio.run(through())
    assert [device.kind for device in attested.devices] == ["hopper"] * 2 + ["ls10"] * 4
    assert machine.double.calls[-2:] == ["set-ready 1", "ready"]


@pytest.mark.guarantee("G19")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"opaque": {Opaque.GPU_PDI: b"stranger" + bytes(56) + b"\xff" * 64}}, "switch 3: linked to 1 gpus"),
        ({"opaque": {Opaque.GPU_PDI: bytes(64) + b"\xff" * 64}}, "switch 3: linked to 0 gpus, want the 2"),
        ({"measured": {9: bytes(48)}}, r"indices \[9\] differ"),
        ({"nonce": bytes(32)}, "switch 3: report answers another nonce"),
    ],
)
def test_a_switch_that_is_not_one_of_this_machine_shuts_the_gpus(
    bench: Bench, machine: Machine, switches: Switches, change: dict[str, Any], why: str
) -> None:
    gpus = wired(bench, machine, switches)
    switches.switch(3, report=bench.switch_report(3, **change), chain=bench.switches[3].pem)

    async def through() -> None:
        await gpus.admit(2, tee="snp")
        await gpus.attest(NONCE)

    with pytest.raises(StrongroomError, match=why):
        asyncio.run(through())
    assert machine.double.calls[-1] == "set-ready 0"


def test_what_is_in_order_is_not_refused(bench: Bench) -> None:
    bench.fill()
    bench.judge()(bench.evidence(), NONCE)


@pytest.mark.guarantee("G19")
@pytest.mark.parametrize(
    ("without", "why"),
    [
        (
            lambda item: isinstance(item, NVIDIAManifest) and "DRIVER" in item.id,
            "reference values NV_GPU_DRIVER",
        ),
        (
            lambda item: isinstance(item, NVIDIAManifest) and "VBIOS" in item.id,
            "reference values NV_GPU_VBIOS",
        ),
        (lambda item: isinstance(item, NVIDIAStatus) and item.use == "device", "NVIDIA's word on"),
        (lambda item: True, "not among the collateral kept"),
    ],
)
def test_collateral_that_is_absent_is_a_refusal(
    bench: Bench, without: Callable[[Item], bool], why: str
) -> None:
    bench.fill(without=without)
    with pytest.raises(VerifyError, match=why):
        bench.judge()(bench.evidence(), NONCE)


def test_a_directory_that_is_not_there_is_a_refusal(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(StrongroomError, match="collateral"):
        judge(tmp_path / "absent", roots=bench.roots, now=lambda: bench.now)(bench.evidence(), NONCE)


@pytest.mark.guarantee("G18")
def test_simulated_devices_are_accepted_by_no_production_root(bench: Bench) -> None:
    bench.fill()
    with pytest.raises(VerifyError):
        judge(bench.store.directory, roots=PRODUCTION, now=lambda: bench.now)(bench.evidence(), NONCE)


def test_evidence_for_another_nonce_is_refused(bench: Bench) -> None:
    bench.fill()
    with pytest.raises(VerifyError, match="another nonce"):
        bench.judge()(bench.evidence(bytes(32)), NONCE)


def test_a_device_that_measures_otherwise_is_refused(bench: Bench) -> None:
    bench.fill()
    first, second = bench.evidence()
    changed = bench.devices[1].report(NONCE, measured={9: bytes(48)}).pack()
    with pytest.raises(VerifyError, match=r"indices \[9\] differ"):
        bench.judge()([first, GPUEvidence("hopper", second.certificates, changed)], NONCE)


@pytest.mark.parametrize("later", [timedelta(days=-400), timedelta(days=30)])
def test_a_clock_that_is_wrong_is_a_refusal(bench: Bench, later: timedelta) -> None:
    bench.fill()
    with pytest.raises((VerifyError, PolicyError)):
        bench.judge(later=later)(bench.evidence(), NONCE)


@pytest.mark.guarantee("G19")
def test_a_revoked_device_is_refused(bench: Bench) -> None:
    bench.fill(answer={"status": OCSPCertStatus.REVOKED})
    with pytest.raises(VerifyError, match="revoked"):
        bench.judge()(bench.evidence(), NONCE)


def test_an_old_word_on_revocation_is_refused_though_it_still_holds(bench: Bench) -> None:
    bench.fill(answer={"until": fake.NOW + timedelta(days=9)})
    bench.judge(later=timedelta(hours=23))(bench.evidence(), NONCE)
    with pytest.raises(
        PolicyError, match="the word on revocation is from 2026-11-19 23:00, want one of at most"
    ):
        bench.judge(later=timedelta(hours=24))(bench.evidence(), NONCE)
