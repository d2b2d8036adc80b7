"""A machine with GPUs: a bus, a driver that has them, a persistence daemon, and devices that answer."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from guest.gpus import PERSISTENCE, Bus, GPUs
from guest.machine.units import UnitState
from strongroom.evidence.gpu import GPUEvidence
from tests.fakes.nvml.double import Double

SPEC = bytes.fromhex("11e001ff")  # how a request begins
HOLDER = UnitState(PERSISTENCE, "active", "running", "success", "", 0, 0, 41)
ENDED = replace(HOLDER, active="inactive", sub="dead", main_pid=0)


@cache
def certificate(name: str) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    return builder.not_valid_before(start).not_valid_after(start + timedelta(days=3650)).sign(key, SHA384())


def chain(index: int) -> tuple[x509.Certificate, ...]:
    return certificate(f"device {index}"), certificate("root")


def report(index: int) -> bytes:
    return SPEC + bytes(32) + bytes([index]) * 800


class Machine:
    """Two GPUs, all well; a test changes what it is about."""

    def __init__(self, folder: Path, double: Double, count: int = 2) -> None:
        self.double = double
        self.bus = Bus(folder / "pci", folder / "driver")
        self.holders: list[UnitState] = [HOLDER]  # the last one stays
        self.now = 0.0
        self.refusal: Exception | None = None
        self.verified: list[tuple[Sequence[GPUEvidence], bytes]] = []
        for index in range(count):
            self.plug(f"0000:0{index}:00.0", "0x030200")
            (self.bus.driver / f"0000:0{index}:00.0").mkdir(parents=True)
            pem = b"".join(c.public_bytes(Encoding.PEM) for c in chain(index))
            double.device(index, report=report(index), chain=pem)
        double.set(count=count)

    def plug(self, address: str, kind: str, vendor: str = "0x10de") -> None:
        device = self.bus.devices / address
        device.mkdir(parents=True)
        (device / "vendor").write_text(vendor + "\n")
        (device / "class").write_text(kind + "\n")

    def plug_switches(self, count: int) -> None:
        for index in range(count):
            self.plug(f"0000:8{index}:00.0", "0x068000")

    def gpus(self, *, patience: float = 0.0) -> GPUs:
        return GPUs(
            self.verify,
            bus=self.bus,
            holder=self.holder,
            patience=patience,
            clock=lambda: self.now,
        )

    async def holder(self) -> UnitState:
        return self.holders.pop(0) if len(self.holders) > 1 else self.holders[0]

    def verify(self, devices: Sequence[GPUEvidence], nonce: bytes) -> None:
        self.double.note("verify")
        self.verified.append((devices, nonce))
        if self.refusal is not None:
            raise self.refusal
