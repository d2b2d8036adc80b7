"""Intel, AMD and NVIDIA at one moment: a machine of theirs, and all that they sign about it just now.

`World.make` makes the bundles of such a machine; `fill` and `collateral` have what the makers say, in a store or bare.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache, cached_property
from typing import Any, Final, Literal

from demo.silicon.mint import CURRENT_TCB
from strongroom.evidence.binding import Purpose, gpu_digest, gpu_nonce, report_data
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.collateral import Collateral
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.host.collateral import supply
from strongroom.host.collateral.amd import AMDChip, AMDIssuers
from strongroom.host.collateral.entry import Entry
from strongroom.host.collateral.intel import IntelPlatform, parts_of
from strongroom.host.collateral.item import Item, Parts
from strongroom.host.collateral.nvidia import NVIDIAManifest, NVIDIAStatus
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.wanted import for_bundle, raised_by
from strongroom.verify.roots import Roots
from strongroom.wire.canonical import JSON
from tests.fakes import accelerated
from tests.fakes.exchange import ENGINE, MODEL, events
from tests.fakes.intel import BODY, Platform, qe_identity, tcb_info
from tests.fakes.nvidia import NVIDIA, Device, answer, nvidia
from tests.fakes.silicon import HOST_DATA, MEASUREMENT, silicon
from tests.fakes.vendors import Vendors, revocation_list

CHIP: Final = silicon()
PCK_SERIAL: Final = 0xC0FFEE
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class World:
    """A machine with GPUs or without; what its makers say of it was said `ago` and holds a month, OCSP 2 days."""

    now: datetime
    tee: Literal["snp", "tdx"] = "tdx"
    gpus: int = 0
    ago: timedelta = _DAY / 2
    revoked: frozenset[int] = frozenset()  # serials of Intel's certificates

    @cached_property
    def platform(self) -> Platform:
        said = self.now - self.ago
        dates = {
            "issueDate": f"{said:%Y-%m-%dT%H:%M:%SZ}",
            "nextUpdate": f"{said + 30 * _DAY:%Y-%m-%dT%H:%M:%SZ}",
        }
        return Platform(
            tcb_info=tcb_info(lambda value: value.update(dates)),
            qe_identity=qe_identity(lambda value: value.update(dates)),
            revoked=self.revoked,
            crl_start=said.replace(microsecond=0),
            crl_end=(said + 30 * _DAY).replace(microsecond=0),
        )

    @cached_property
    def nvidia(self) -> NVIDIA:
        return nvidia(self.now.replace(hour=0, minute=0, second=0, microsecond=0))

    @cached_property
    def roots(self) -> Roots:
        return self.platform.roots.with_insecure([*self.nvidia.roots().insecure, CHIP.pki.ark_sha256])

    @property
    def devices(self) -> list[Device]:
        return _devices(self.nvidia, self.gpus)

    @property
    def events(self) -> EventLog:
        return accelerated.log(self.gpus) if self.gpus else events()

    def make(
        self, *, purpose: Purpose, challenge: bytes, key: bytes, events: EventLog | None = None
    ) -> Bundle:
        """What the machine's agent answers, without collateral; the log is this machine's own."""
        nonce, log = gpu_nonce(challenge, key), self.events
        gpus = tuple(
            GPUEvidence("hopper", b"".join(device.ders), device.report(nonce).pack())
            for device in self.devices
        )
        expected = report_data(
            purpose=purpose, challenge=challenge, key=key, gpu_digest=gpu_digest(gpus), context=log.head
        )
        if self.tee == "snp":
            report, certificates = CHIP.report(expected), CHIP.certificates()
        else:
            body = replace(BODY, report_data=expected, rtmr3=log.head)
            report, certificates = replace(self.platform, body=body).quote().pack(), b""
        return Bundle(
            tee=self.tee,
            report=report,
            certificates=certificates,
            gpus=gpus,
            events=log,
            purpose=purpose,
            challenge=challenge,
        )

    def carrying(
        self, *, purpose: Purpose, challenge: bytes, key: bytes, events: EventLog | None = None
    ) -> Bundle:
        """The same with all that the makers say, good or not."""
        bundle = self.make(purpose=purpose, challenge=challenge, key=key)
        return replace(bundle, collateral=self.collateral)

    @cached_property
    def entries(self) -> list[Entry]:
        """The makers' answers to all that a bundle of this machine takes."""
        bundle = self.make(purpose=Purpose.BOOT, challenge=bytes(32), key=b"key")
        waiting, found = for_bundle(bundle, roots=self.roots, now=self.now), dict[Item, Entry]()
        waiting += [AMDChip.of(SNPReport.parse(bundle.report), "Genoa")] if self.tee == "snp" else []
        while waiting:
            item = waiting.pop()
            entry = found[item] = Entry(item, self._parts(item))
            waiting += [raised for raised in raised_by(item, entry.parts) if raised not in found]
        return list(found.values())

    @cached_property
    def collateral(self) -> Collateral:
        names: dict[str, bytes] = {}
        for entry in self.entries:
            names |= supply.named(entry.item, entry.parts)
        return Collateral.of(names)

    def fill(self, store: Store, *, without: type[Item] | None = None) -> None:
        """Keep it all, as of when it was said."""
        for entry in self.entries:
            if without is None or not isinstance(entry.item, without):
                store.put(entry, roots=self.roots, now=self.now - self.ago + timedelta(minutes=1))

    def play(self, vendors: Vendors) -> None:
        """Let the makers' services give the same answers."""
        vendors.amd(CHIP.pki, CURRENT_TCB, self._crl())
        vendors.intel(self.platform.collateral(), fmspc="90c06f000000")
        for entry in self.entries:
            if isinstance(entry.item, NVIDIAManifest):
                vendors.manifest(entry.item.id, entry.parts["rim"])
        chains = [device.chain for device in self.devices]
        vendors.responder(*chains, self.nvidia.rim[::-1], **self._dates())

    def policy(self) -> dict[str, JSON]:
        """A policy that accepts this machine, when its collateral is there."""
        policy: dict[str, JSON] = {
            "version": 1,
            "insecure_simulated_roots": [root.hex() for root in sorted(self.roots.insecure)],
            "model": {"root": MODEL.root.hex(), "minimum_epoch": MODEL.epoch},
            "engine": {"versions": [ENGINE.version]},
        }
        if self.tee == "snp":
            policy["measurements"] = [{"name": "test image", "value": MEASUREMENT.hex()}]
            policy["host_data"] = [HOST_DATA.hex()]
        else:
            registers = {name: getattr(BODY, name).hex() for name in ("mr_td", "rtmr0", "rtmr1", "rtmr2")}
            policy["tdx"] = {"images": [{"name": "test image", **registers}], "mr_config_id": "any"}
        if self.gpus:
            accepted = accelerated.accepted(accelerated.machine(self.gpus), self.gpus)
            section = accepted["gpu"]
            assert isinstance(section, dict)
            strict: dict[str, JSON] = {"require_measurements": True, "ocsp_hours": 24}
            policy |= {"gpus": self.gpus, "gpu": section | strict}
        return policy

    def _parts(self, item: Item) -> Parts:
        table = CertificateTable.parse(CHIP.certificates())
        vcek, ask, ark = (der or b"" for der in (table.vcek, table.ask, table.ark))
        match item:
            case AMDChip():
                return {"vcek": vcek, "ask": ask, "ark": ark}
            case AMDIssuers():
                return {"ask": ask, "ark": ark, "crl": self._crl()}
            case IntelPlatform():
                return parts_of(self.platform.collateral())
            case NVIDIAManifest():
                return {"rim": self.nvidia.driver_rim() if "DRIVER" in item.id else self.nvidia.vbios_rim()}
            case NVIDIAStatus():
                known = {
                    a.der: a for chain in (*(d.chain for d in self.devices), self.nvidia.rim) for a in chain
                }
                return {"answer": answer(known[item.chain[0]], known[item.chain[1]], **self._dates())}
        raise AssertionError(item.kind)

    def _dates(self) -> dict[str, Any]:
        said = (self.now - self.ago).replace(microsecond=0)
        return {"at": said, "until": said + 2 * _DAY}

    def _crl(self) -> bytes:
        issued = (self.now - self.ago).replace(microsecond=0)
        return revocation_list(CHIP.pki.ark.subject, CHIP.pki.ark_key, issued=issued)


@cache
def _devices(maker: NVIDIA, count: int) -> list[Device]:
    """The same devices whatever is said of them."""
    return [maker.device(n) for n in range(count)]
