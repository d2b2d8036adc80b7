"""Which GPUs this boot may use, and when work may reach them. Everything here fails closed.

    admit       as many as configured, held by driver and persistence daemon, in confidential mode, not yet ready
    attest      fresh evidence of every device, verified
    let_in      the driver's ready flag, set and read back; before it the GPUs take no work
    still_ready nothing of that has changed; every few minutes the evidence is made and verified anew

A GPU in confidential mode takes one attachment between two resets, and the persistence daemon is the one that has it:
so nothing here opens the library before that daemon runs, and a daemon that ended or began anew ends the machine. The
driver keeps a ready flag that fell to 0 there until it is loaded anew: there is no way back from a failure but a boot.
With no GPUs configured nothing here is ever called on: there is no library to open.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guest.machine import pci, units
from guest.machine.gpu import NONCE_SIZE, NVML, CPUCapability, Library, Mode, MultiGPU
from guest.machine.units import UnitState
from strongroom.errors import MachineError, PolicyError
from strongroom.evidence.gpu import GPUEvidence

PERSISTENCE: Final = "nvidia-persistenced.service"
PATIENCE: Final = 120.0  # seconds for driver and persistence daemon to come up: eight GPUs attach one by one
ATTEST_EVERY: Final = 300.0  # seconds between two verifications while serving
_POLL: Final = 0.25  # seconds
_PRODUCTION: Final = 2  # environment
_CPUS: Final = {
    "snp": frozenset({CPUCapability.SEV_SNP, CPUCapability.SNP_VTOM}),
    "tdx": frozenset({CPUCapability.TDX}),
}

# Raises when devices asked with this nonce are not all genuine, fresh, consistent and as their maker built them.
Verify = Callable[[Sequence[GPUEvidence], bytes], None]
Collect = Callable[[bytes], Sequence[GPUEvidence]]


def unverifiable(_devices: Sequence[GPUEvidence], _nonce: bytes) -> None:
    """The verifier of a version without one."""
    raise PolicyError("gpu: this version cannot verify GPU evidence and will not use them")


@dataclass(frozen=True, slots=True)
class Bus:
    """Where the kernel shows devices and the driver's hold on them."""

    devices: Path = Path("/sys/bus/pci/devices")
    driver: Path = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, slots=True)
class Admitted:
    """What was found at admission, and must stay as it is."""

    library: Library
    count: int
    mode: Mode
    holder: UnitState  # the persistence daemon


@dataclass(frozen=True, slots=True)
class Attested:
    """Every device, its evidence verified. The only way to `let_in`."""

    devices: tuple[GPUEvidence, ...]
    driver: str


class GPUs:
    """The GPUs of this machine, as one: they are admitted, attested and let in together or not at all."""

    def __init__(
        self,
        verify: Verify = unverifiable,
        *,
        switches: Collect | None = None,
        library: Callable[[], Library] = NVML.open,
        bus: Bus = Bus(),
        holder: Callable[[], Awaitable[UnitState]] = lambda: units.state(PERSISTENCE),
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verify, self._switches = verify, switches
        self._open, self._bus, self._holder = library, bus, holder
        self._patience, self._clock = patience, clock
        self._admitted: Admitted | None = None
        self._verified_at = 0.0

    async def admit(self, count: int, *, tee: str) -> None:
        """Hold `count` GPUs to be all there is, under the CPU's `tee`, in confidential mode and without work.

        Raises PolicyError or MachineError. From here on every bundle carries their evidence.
        """
        if not count:
            return
        self._count_on_bus(count)
        holder = await self._held(count)
        library = await asyncio.to_thread(self._open)
        with _shut_on_failure(library):
            mode = await asyncio.to_thread(_fit, library, count, tee)
            if (ready := await asyncio.to_thread(library.ready)) != 0:
                raise PolicyError(f"gpu: ready state is {ready} before any attestation, want 0")
        self._admitted = Admitted(library, count, mode, holder)

    async def evidence(self, nonce: bytes) -> tuple[GPUEvidence, ...]:
        """Fresh evidence of every device, as yet unverified; none where none are admitted."""
        if self._admitted is None:
            return ()
        return await asyncio.to_thread(self._collect, self._admitted, nonce)

    async def attest(self, nonce: bytes) -> Attested:
        """Evidence of every device over `nonce`, verified while the ready flag still reads 0."""
        admitted = self._there()
        with _shut_on_failure(admitted.library):
            await self._unchanged(admitted, ready=0)
            return await asyncio.to_thread(self._verified, admitted, nonce)

    async def let_in(self, attested: Attested) -> None:
        """Let work reach the GPUs that were attested."""
        admitted = self._there()
        with _shut_on_failure(admitted.library):
            if not attested.devices:
                raise PolicyError("gpu: no device was attested, want every one")
            # Not in a thread: one that outlives a cancellation could set the flag after it was cleared.
            admitted.library.set_ready(True)
            if (ready := admitted.library.ready()) != 1:
                raise MachineError(f"gpu: ready state was set to 1 and reads {ready}")
        self._verified_at = self._clock()

    async def still_ready(self) -> None:
        """Raises, with the GPUs shut, as soon as anything is not as it was when work was let in."""
        if (admitted := self._admitted) is None:
            return
        with _shut_on_failure(admitted.library):
            await self._unchanged(admitted, ready=1)
            if self._clock() - self._verified_at >= ATTEST_EVERY:
                await asyncio.to_thread(self._verified, admitted, secrets.token_bytes(NONCE_SIZE))
                self._verified_at = self._clock()

    def close(self) -> None:
        """The end of the boot: no more work for the GPUs."""
        if self._admitted is not None:
            _shut(self._admitted.library)
            with suppress(MachineError):
                self._admitted.library.close()
        self._admitted = None

    def _there(self) -> Admitted:
        if self._admitted is None:
            raise PolicyError("gpu: none were admitted, so none can be attested")
        return self._admitted

    def _count_on_bus(self, count: int) -> None:
        if (found := len(pci.nvidia_gpus(self._bus.devices))) != count:
            raise PolicyError(f"gpu: found {found} on the bus, want {count}")

    async def _held(self, count: int) -> UnitState:
        """The persistence daemon, once it runs and the driver has every GPU."""
        until = self._clock() + self._patience
        while True:
            driven, holder = len(pci.driven_gpus(self._bus.driver)), await self._holder()
            if driven == count and holder.running:
                return holder
            if holder.active == "failed":
                raise holder.failure()
            if self._clock() >= until:
                raise MachineError(
                    f"gpu: the driver has {driven} of {count} and {PERSISTENCE} is "
                    f"{holder.active or 'not there'} after {self._patience:g} s"
                )
            await asyncio.sleep(_POLL)

    async def _unchanged(self, admitted: Admitted, *, ready: int) -> None:
        holder = await self._holder()
        if (holder.running, holder.main_pid) != (True, admitted.holder.main_pid):
            raise MachineError(f"gpu: {PERSISTENCE} ended, and with it the session that was attested")
        self._count_on_bus(admitted.count)
        await asyncio.to_thread(_same, admitted, ready)

    def _verified(self, admitted: Admitted, nonce: bytes) -> Attested:
        devices = self._collect(admitted, nonce)
        self._verify(devices, nonce)
        return Attested(devices, admitted.library.driver())

    def _collect(self, admitted: Admitted, nonce: bytes) -> tuple[GPUEvidence, ...]:
        devices = [admitted.library.evidence(index, nonce) for index in range(admitted.count)]
        if len({device.certificates for device in devices}) != len(devices):
            raise PolicyError("gpu: two devices gave the same certificates, want one chain each")
        return (*devices, *self._collect_switches(admitted, nonce))

    def _collect_switches(self, admitted: Admitted, nonce: bytes) -> Sequence[GPUEvidence]:
        wanted = len(pci.nvidia_switches(self._bus.devices))
        if not wanted:
            return ()
        if self._switches is None:
            raise PolicyError(
                f"gpu: {wanted} switches on the bus, whose evidence this version cannot collect"
            )
        if len(found := self._switches(nonce)) != wanted:
            raise MachineError(
                f"gpu: {len(found)} of {wanted} switches gave evidence (is libnvidia-nscq of the version of the "
                f"driver, {admitted.library.driver()}?)"
            )
        return found


def _fit(library: Library, count: int, tee: str) -> Mode:
    if (found := library.count()) != count:
        raise PolicyError(f"gpu: the driver shows {found}, want the {count} on the bus")
    mode = check_mode(library.mode())
    capability = library.cpu_capability()
    if capability not in _CPUS.get(tee, ()):
        raise PolicyError(f"gpu: the driver found CPU capability {capability}, want that of {tee}")
    return mode


def _same(admitted: Admitted, wanted: int) -> None:
    library = admitted.library
    if (found := library.count()) != admitted.count:
        raise PolicyError(f"gpu: the driver shows {found}, want the {admitted.count} that were admitted")
    if (mode := library.mode()) != admitted.mode:
        check_mode(mode)  # says it in words where it can
        raise PolicyError(f"gpu: modes are {mode}, want those at admission, {admitted.mode}")
    if (ready := library.ready()) != wanted:
        raise PolicyError(
            f"gpu: ready state is {ready}, want {wanted}: somebody else set it, or the session is new"
        )


def check_mode(mode: Mode | None) -> Mode:
    """The modes, if they are those of production and nobody can look inside; else PolicyError."""
    if mode is None:
        raise PolicyError("gpu: confidential computing is off, want it on (the driver does not know it)")
    if mode.cc_feature not in (0, 1) or mode.multi_gpu not in {*MultiGPU}:
        raise PolicyError(
            f"gpu: cc feature is {mode.cc_feature} and multi-GPU mode {mode.multi_gpu}, want 0..1 and 0..2"
        )
    # With protected PCIe the feature itself may read 0.
    if not mode.cc_feature and not mode.multi_gpu:
        raise PolicyError("gpu: confidential computing is off, want it on")
    if mode.devtools != 0:
        raise PolicyError(
            f"gpu: developer tools mode is {mode.devtools}, want 0: it lets the host look inside"
        )
    if mode.environment != _PRODUCTION:
        raise PolicyError(f"gpu: environment is {mode.environment}, want {_PRODUCTION} (production)")
    return mode


@contextmanager
def _shut_on_failure(library: Library) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _shut(library)
        raise


def _shut(library: Library) -> None:
    with suppress(MachineError):  # the failure that brought us here is the one to tell
        library.set_ready(False)
