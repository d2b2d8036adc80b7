"""Which GPUs this boot may use, and when work may reach them. Everything here fails closed.

    admit       as many as configured, held by driver and persistence daemon, in confidential mode, not yet ready;
                the switches between them locked
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
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from guest.machine import nscq, pci, units
from guest.machine.device import NONCE_SIZE
from guest.machine.gpu import NVML, CPUCapability, Library, Mode, MultiGPU
from guest.machine.nscq import Protection, Switches
from guest.machine.units import UnitState
from strongroom.errors import MachineError, PolicyError
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.nvml import NVMLState

PERSISTENCE: Final = "nvidia-persistenced.service"
PATIENCE: Final = 120.0  # seconds for driver and persistence daemon to come up: eight GPUs attach one by one
ATTEST_EVERY: Final = 300.0  # seconds between two verifications while serving
_POLL: Final = 0.25  # seconds
_PRODUCTION: Final = 2  # environment
T = TypeVar("T")
_CPUS: Final = {
    "snp": frozenset({CPUCapability.SEV_SNP, CPUCapability.SNP_VTOM}),
    "tdx": frozenset({CPUCapability.TDX}),
}

# Raises when devices asked with this nonce are not all genuine, fresh, consistent and as their maker built them.
Verify = Callable[[Sequence[GPUEvidence], bytes], None]
# The switches, through a library of this driver's version.
AskSwitches = Callable[[str], AbstractContextManager[Switches]]


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
    state: NVMLState  # what the library said, for the log
    holder: UnitState  # the persistence daemon


@dataclass(frozen=True, slots=True)
class Attested:
    """Every device, its evidence verified. The only way to `let_in`."""

    devices: tuple[GPUEvidence, ...]
    state: NVMLState


class GPUs:
    """The GPUs of this machine, as one: they are admitted, attested and let in together or not at all."""

    def __init__(
        self,
        verify: Verify = unverifiable,
        *,
        switches: AskSwitches = nscq.session,
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

    async def admit(self, count: int, *, tee: str) -> NVMLState | None:
        """What the driver says of `count` GPUs that are all there is, under the CPU's `tee`, in confidential mode and
        without work, their switches locked; None where none are wanted.

        Raises PolicyError or MachineError. From here on every bundle carries their evidence.
        """
        if not count:
            return None
        self._count_on_bus(count)
        holder = await self._held(count)
        library = await asyncio.to_thread(self._open)
        with _shut_on_failure(library):
            mode = await asyncio.to_thread(_fit, library, count, tee)
            if (ready := await asyncio.to_thread(library.ready)) != 0:
                raise PolicyError(f"gpu: ready state is {ready} before any attestation, want 0")
            state = _state(mode, await asyncio.to_thread(library.driver))
            await self._locked(state.driver)
        self._admitted = Admitted(library, count, mode, state, holder)
        return state

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
        return Attested(devices, admitted.state)

    def _collect(self, admitted: Admitted, nonce: bytes) -> tuple[GPUEvidence, ...]:
        gpus = [admitted.library.evidence(index, nonce) for index in range(admitted.count)]
        switches = self._ask_switches(admitted.state.driver, lambda found: _evidence(found, nonce))
        devices = (*gpus, *switches)
        if len({device.certificates for device in devices}) != len(devices):
            raise PolicyError("gpu: two devices gave the same certificates, want one chain each")
        return devices

    async def _locked(self, driver: str) -> None:
        """Returns once every switch is. The fabric manager does it, when it has set all routes."""
        until = self._clock() + self._patience
        while True:
            found = await asyncio.to_thread(self._ask_switches, driver, _protections)
            if {*found} - {Protection.LOCKED} != {Protection.ENABLED} or self._clock() >= until:
                return check_locked(found)
            await asyncio.sleep(_POLL)

    def _ask_switches(self, driver: str, ask: Callable[[Switches], list[T]]) -> list[T]:
        """What all switches on the bus answer; where there are none, their library stays closed."""
        wanted = len(pci.nvidia_switches(self._bus.devices))
        if not wanted:
            return []
        with self._switches(driver) as switches:
            if switches.count != wanted:
                raise PolicyError(f"gpu: libnvidia-nscq shows {switches.count} switches, want {wanted}")
            return ask(switches)


def _protections(switches: Switches) -> list[int]:
    return [switches.protection(index) for index in range(switches.count)]


def _evidence(switches: Switches, nonce: bytes) -> list[GPUEvidence]:
    check_locked(_protections(switches))
    return [switches.evidence(index, nonce) for index in range(switches.count)]


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


def check_locked(protections: Sequence[int]) -> None:
    """PolicyError unless nobody but the GPUs can see what passes through these switches, now or later."""
    known = {value.value: value.name.lower() for value in Protection}
    for index, found in enumerate(protections):
        if found != Protection.LOCKED:
            raise PolicyError(f"gpu: protection of switch {index} is {known.get(found, found)}, want locked")


def _state(mode: Mode, driver: str) -> NVMLState:
    """At admission and at attestation alike: what can change in between is an error there."""
    return NVMLState(
        environment=mode.environment,
        cc_feature=mode.cc_feature,
        devtools=mode.devtools,
        multi_gpu=mode.multi_gpu,
        driver=driver,
        ready=0,
    )


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
