"""systemd units, asked and told through systemctl (which reaches PID 1 without a bus daemon)."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from strongroom.errors import (
    ConfigError,
    FormatError,
    MachineError,
    PolicyError,
    ProtocolError,
    StrongroomError,
    TransportError,
    VerifyError,
)
from strongroom.host.run import run

_PROPERTIES: Final = (
    "ActiveState",
    "SubState",
    "Result",
    "StatusText",
    "NRestarts",
    "ExecMainStatus",
    "MainPID",
)


_CLASSES: Final = {
    kind.exit_code: kind
    for kind in (
        ConfigError,
        FormatError,
        VerifyError,
        PolicyError,
        ProtocolError,
        MachineError,
        TransportError,
    )
}


@dataclass(frozen=True, slots=True)
class UnitState:
    name: str
    active: str  # active, activating, failed, inactive, ...
    sub: str
    result: str  # success, exit-code, signal, timeout, start-limit-hit, ...
    status: str  # the unit's own STATUS= text
    restarts: int
    exit_status: int
    main_pid: int  # 0 when nothing runs

    @property
    def running(self) -> bool:
        return self.active == "active"

    def failure(self) -> StrongroomError:
        """Why it does not run, in the unit's own words and error class where it gave them."""
        how = f"{self.name} is {self.active} ({self.result or 'stopped'}, exit status {self.exit_status})"
        kind = _CLASSES.get(self.exit_status, MachineError) if self.result == "exit-code" else MachineError
        return kind(f"{self.status} ({how})" if self.status else how)


async def start(unit: str, *, timeout: float) -> None:
    """Start a unit and wait until it is ready; else raise the error it ended with."""
    try:
        await asyncio.to_thread(run, ["systemctl", "--no-ask-password", "start", unit], timeout=timeout)
    except MachineError as error:
        raise await _explained(unit, error) from None


async def _explained(unit: str, error: MachineError) -> StrongroomError:
    """The unit's own words where systemd has them: they say more than systemctl's."""
    with suppress(MachineError):
        seen = await state(unit)
        if not seen.running:
            return seen.failure()
    return error


async def kill(*units: str) -> None:
    """End every process of the units at once, where there are any."""
    argv = ["systemctl", "--no-ask-password", "kill", "--signal=SIGKILL", *units]
    await asyncio.to_thread(run, argv, timeout=30.0, check=False)


async def stop(*units: str, timeout: float = 60.0) -> None:
    await asyncio.to_thread(
        run, ["systemctl", "--no-ask-password", "stop", *units], timeout=timeout, check=False
    )


async def state(unit: str) -> UnitState:
    return (await states(unit))[0]


async def states(*units: str) -> list[UnitState]:
    """What systemd knows of each unit, in the order asked."""
    argv = ["systemctl", "show", "--property", ",".join(("Id", *_PROPERTIES)), *units]
    done = await asyncio.to_thread(run, argv, timeout=30.0)
    return parse_show(done.stdout.decode(), units)


def parse_show(text: str, units: tuple[str, ...]) -> list[UnitState]:
    found: dict[str, UnitState] = {}
    for block in text.strip().split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        found[values.get("Id", "")] = UnitState(
            name=values.get("Id", ""),
            active=values.get("ActiveState", ""),
            sub=values.get("SubState", ""),
            result=values.get("Result", ""),
            status=values.get("StatusText", ""),
            restarts=int(values.get("NRestarts") or 0),
            exit_status=int(values.get("ExecMainStatus") or 0),
            main_pid=int(values.get("MainPID") or 0),
        )
    if missing := [unit for unit in units if unit not in found]:
        raise MachineError(f"systemctl: said nothing of {missing[0]}")
    return [found[unit] for unit in units]
