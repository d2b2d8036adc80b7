"""The one place in the guest that asks the silicon for evidence, and keeps the event log it commits to.

Registers follow the log where there are any: PCR 15 takes the SHA-256 of every new head; RTMR 3 takes every event's
digest, which makes it equal to the head. A vTPM whose key somebody vouches for adds a quote to every bundle; on Azure
that quote is the only fresh part, and the paravisor's report takes the place of the hardware's.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Literal

from guest.collateral import KeptCollateral
from guest.machine.azure import Paravisor
from guest.machine.rtmr import RTMR
from guest.machine.tsm import Silicon, TSMReport
from guest.machine.vtpm import VTPM
from strongroom.errors import MachineError, PolicyError
from strongroom.evidence.binding import (
    MAGIC,
    SIZE,
    Purpose,
    gpu_digest,
    gpu_nonce,
    is_reserved,
    report_data,
    tpm_nonce,
)
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.tdx import TDXQuote
from strongroom.evidence.vtpm import TPMEvidence

Devices = Callable[[bytes], Awaitable[tuple[GPUEvidence, ...]]]  # evidence of every GPU over a nonce


async def no_devices(_nonce: bytes) -> tuple[GPUEvidence, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    tee: Literal["snp", "tdx"]
    measurement: bytes  # the launch digest, or MRTD: 48 bytes
    committed: bytes  # HOST_DATA or MRCONFIGID, which the launcher sets: 32 or 48 bytes


class Attester:
    """Evidence of this machine. One request to the silicon at a time: hosts rate-limit it."""

    def __init__(
        self,
        tsm: Silicon,
        vtpm: VTPM | None = None,
        *,
        paravisor: Paravisor | None = None,
        rtmr: RTMR | None = None,
        devices: Devices = no_devices,
        kept: KeptCollateral | None = None,
    ) -> None:
        self._tsm, self._vtpm, self._paravisor, self._rtmr = tsm, vtpm, paravisor, rtmr
        self._devices, self._kept = devices, kept
        self._log = EventLog(())
        self._turn = asyncio.Lock()

    @property
    def log(self) -> EventLog:
        return self._log

    async def extend(self, name: str, payload: bytes) -> None:
        """Append an event: to the log that every bundle commits to, and to the registers where there are any."""
        event = Event(name, payload)
        async with self._turn:
            log = self._log.extend(event)
            if self._vtpm is not None:
                await asyncio.to_thread(self._vtpm.extend, hashlib.sha256(log.head).digest())
            if self._rtmr is not None:
                await asyncio.to_thread(self._rtmr.extend, event.digest)
            self._log = log

    async def evidence(self, *, purpose: Purpose, challenge: bytes, key: bytes) -> Bundle:
        """Evidence that `key` (DER SPKI) and `challenge` belong to this boot and its GPUs, for one purpose."""
        gpus = await self._devices(gpu_nonce(challenge, key))
        async with self._turn:
            log = self._log
            wanted = report_data(
                purpose=purpose, challenge=challenge, key=key, gpu_digest=gpu_digest(gpus), context=log.head
            )
            made, quote = await asyncio.to_thread(self._made, wanted)
        bundle = Bundle(
            tee=made.tee,
            report=made.outblob,
            certificates=made.auxblob,
            gpus=gpus,
            tpm=quote,
            events=log,
            purpose=purpose,
            challenge=challenge,
        )
        return bundle if self._kept is None else await asyncio.to_thread(self._kept.complete, bundle)

    async def for_broker(self, kbs_report_data: bytes) -> tuple[bytes, bytes]:
        """Report and certificate table over report data of the key broker's shape, and of no other."""
        ours = kbs_report_data.startswith(MAGIC)
        if len(kbs_report_data) != SIZE or ours or not is_reserved(kbs_report_data):
            raise PolicyError(
                "broker report data: not of the key broker's shape, want 33 to 48 significant bytes"
            )
        if self._paravisor is not None:
            raise MachineError("broker report data: on azure no report of the hardware can carry it")
        made = await self._report(kbs_report_data)
        if self._kept is None or made.tee != "snp":
            return made.outblob, made.auxblob
        return made.outblob, await asyncio.to_thread(self._kept.table, made.outblob, made.auxblob)

    async def launch(self) -> Launch:
        """What the silicon says of this machine before anything else is known (report data: zeros)."""
        if self._paravisor is not None:
            said = self._paravisor.launched()
        else:
            made = await self._report(bytes(SIZE))
            is_tdx = made.tee == "tdx"
            said = TDXQuote.parse(made.outblob).body if is_tdx else SNPReport.parse(made.outblob)
        if isinstance(said, SNPReport):
            return Launch(tee="snp", measurement=said.measurement, committed=said.host_data)
        return Launch(tee="tdx", measurement=said.mr_td, committed=said.mr_config_id)

    async def _report(self, data: bytes) -> TSMReport:
        async with self._turn:
            return await asyncio.to_thread(self._tsm.report, data)

    def _made(self, wanted: bytes) -> tuple[TSMReport, TPMEvidence | None]:
        """A report that carries these report data, or beside it a quote that commits to them, or both."""
        made = _bare(self._tsm.report(wanted)) if self._paravisor is None else self._paravisor.evidence()
        quote = None if self._vtpm is None else self._vtpm.quote(tpm_nonce(wanted))
        if self._paravisor is not None and quote is None:
            raise MachineError("azure: the vtpm gave no quote, want one: nothing else is fresh")
        return made, quote


def _bare(made: TSMReport) -> TSMReport:
    """Without the zeros that some hosts put behind a quote."""
    if made.tee != "tdx":
        return made
    return replace(made, outblob=replace(TDXQuote.parse(made.outblob), trailing=b"").pack())
