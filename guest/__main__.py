"""The agent's process: `python -m guest`, started by strongroom-agent.service and by nothing else."""

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from socket import socket
from types import TracebackType

from guest import evidence
from guest.applications import Applications
from guest.attester import Attester
from guest.boot import boot
from guest.broker import KeyBroker
from guest.collateral import ISSUERS, KeptCollateral
from guest.foreign import ForeignEvidence
from guest.gpus import GPUs
from guest.grants import Grants
from guest.judge import DIRECTORY, judge
from guest.keysock.plan import UNIT as KEYSOCK
from guest.machine import units
from guest.machine.azure import Paravisor
from guest.machine.listeners import inherited, wanted
from guest.machine.rtmr import MEASUREMENTS, RTMR
from guest.machine.sev_guest import silicon
from guest.machine.vtpm import VTPM
from guest.record import Record, sentence
from guest.resources import Resources
from guest.stages.certify import door_keys
from guest.stages.serve import TARGET, UNITS
from guest.system import System
from guest.volumes import UNITS as VOLUMES
from guest.watch import keep_watch
from strongroom.errors import MachineError, StrongroomError
from strongroom.host.notify import notify


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    record = Record(args.run / "boot.json")
    try:
        asyncio.run(_live(args, record, inherited()))
    except asyncio.CancelledError:
        record.end("stopped")
        return 0
    except BaseExceptionGroup as group:
        return _failed(record, _first(group))
    except BaseException as error:  # noqa: BLE001  whatever it was, it ends this boot in one line
        return _failed(record, error)
    return 0


def _failed(record: Record, error: BaseException) -> int:
    record.end("failed", error)
    # No traceback: its frames hold keys.
    print(f"strongroom-agent: {sentence(error)}", file=sys.stderr, flush=True)
    return error.exit_code if isinstance(error, StrongroomError) else 1


async def _live(args: argparse.Namespace, record: Record, listeners: Mapping[str, socket]) -> None:
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    if me is not None:
        loop.add_signal_handler(signal.SIGTERM, me.cancel)
    async with AsyncExitStack() as teardown:
        grants = Grants(KEYSOCK)
        teardown.callback(grants.wipe)
        gpus = GPUs(judge(args.collateral))
        teardown.callback(gpus.close)
        rtmr = RTMR() if MEASUREMENTS.is_dir() else None
        vtpm = await _vtpm(args)
        attester = Attester(
            silicon(args.tsm),
            vtpm,
            paravisor=_paravisor(vtpm),
            rtmr=rtmr,
            devices=gpus.evidence,
            kept=KeptCollateral(args.collateral),
        )
        applications = Applications(attester)
        foreign = ForeignEvidence(
            attester,
            record,
            keys=door_keys(grants),
            units=UNITS,
            programs_quote=lambda: applications.quotes,
        )
        resources = Resources(attester)
        credentials, requests, asking, resourcing = (
            wanted(listeners, name) for name in ("credentials", "evidence", "applications", "resources")
        )
        await teardown.enter_async_context(
            alongside(
                grants.serve(credentials),
                evidence.serve(requests, attester, foreign.reply),
                applications.serve(asking),
                resources.serve(resourcing),
            )
        )
        broker = await teardown.enter_async_context(KeyBroker(attester))
        teardown.push_async_exit(_stop_parts)
        system = System(
            seed=args.seed,
            engine_venv=args.engine,
            attester=attester,
            gpus=gpus,
            grants=grants,
            record=record,
            applications=applications,
            broker=broker,
            tpm=args.tpm,
            resources=resources,
        )
        serving = await boot(system)
        foreign.gpus = serving.ready.tunnel.identity.volumes.workload.config.door.legacy_gpu
        record.end("serving")
        notify("READY=1")
        await keep_watch(system, serving.volumes)


async def _vtpm(args: argparse.Namespace) -> VTPM | None:
    if args.tpm is None:
        return None
    vtpm = VTPM(args.tpm, issuers=args.collateral / ISSUERS)
    if (gap := await asyncio.to_thread(vtpm.prepare)) is not None:
        print(f"strongroom-agent: {gap}", file=sys.stderr, flush=True)
    return vtpm


def _paravisor(vtpm: VTPM | None) -> Paravisor | None:
    report = vtpm.paravisor_report if vtpm is not None else None
    return Paravisor(report) if report is not None else None


async def _stop_parts(
    _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
) -> None:
    """Asked to stop, the parts finish what they are doing; after a failure they get no such chance."""
    with suppress(MachineError):  # what ended the boot is to be told, not that its parts were slow to go
        if error is not None and not isinstance(error, asyncio.CancelledError):
            await units.kill(*UNITS)
        await units.stop(TARGET, *reversed(UNITS))
    # Never killed: what was being written is finished from memory that ends with this machine. systemd stops the
    # programs that are bound to them before.
    with suppress(MachineError):
        await units.stop(VOLUMES)


@asynccontextmanager
async def alongside(*services: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Services that run while the context lasts. One that fails ends what runs inside, with its own error."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(service) for service in services]
        yield
        for task in tasks:
            task.cancel()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="strongroom-agent",
        description="Boots this confidential VM: measure, attest, obtain keys, mount, certify, serve. Needs its units.",
    )
    parser.add_argument("--seed", type=Path, default=Path("/var/lib/cloud/seed/nocloud"), help="NoCloud seed")
    parser.add_argument(
        "--tsm", type=Path, default=Path("/sys/kernel/config/tsm/report"), help="configfs-tsm reports"
    )
    parser.add_argument(
        "--tpm", type=Path, default=None, help="vTPM to extend and to quote, e.g. /dev/tpmrm0"
    )
    parser.add_argument(
        "--engine", type=Path, default=Path("/usr/lib/strongroom/engine"), help="the engine's venv"
    )
    parser.add_argument(
        "--collateral", type=Path, default=DIRECTORY, help="what makers signed about this machine"
    )
    parser.add_argument("--run", type=Path, default=Path("/run/strongroom"), help="where boot.json goes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
