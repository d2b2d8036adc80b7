"""The one place in the guest that asks the silicon for evidence, and keeps the event log it commits to.

Registers follow the log where there are any: PCR 15 takes the SHA-256 of every new head; RTMR 3 takes every event's
digest, which makes it equal to the head.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guest.machine import tpm
from guest.machine.rtmr import RTMR
from guest.machine.tsm import Silicon, TSMReport
from strongroom.errors import PolicyError
from strongroom.evidence.binding import MAGIC, SIZE, Purpose, gpu_digest, gpu_nonce, is_reserved, report_data
from strongroom.evidence.bundle import Bundle, TEEKind
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.tdx import TDXQuote

PCR: Final = 15  # free for the operating system; the image masks systemd's own use of it

Devices = Callable[[bytes], Awaitable[tuple[GPUEvidence, ...]]]  # evidence of every GPU over a nonce


async def no_devices(_nonce: bytes) -> tuple[GPUEvidence, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    tee: TEEKind
    measurement: bytes  # the launch digest, or MRTD: 48 bytes
    committed: bytes  # HOST_DATA or MRCONFIGID, which the launcher sets: 32 or 48 bytes


class Attester:
    """Evidence of this machine. One request to the silicon at a time: hosts rate-limit it."""

    def __init__(
        self,
        tsm: Silicon,
        tpm_path: Path | None = None,
        *,
        rtmr: RTMR | None = None,
        devices: Devices = no_devices,
    ) -> None:
        self._tsm, self._tpm_path, self._rtmr, self._devices = tsm, tpm_path, rtmr, devices
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
            if self._tpm_path is not None:
                await asyncio.to_thread(_extend, self._tpm_path, hashlib.sha256(log.head).digest())
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
            made = await asyncio.to_thread(self._tsm.report, wanted)
        return Bundle(
            tee=made.tee,
            report=made.outblob,
            certificates=made.auxblob,
            gpus=gpus,
            events=log,
            purpose=purpose,
            challenge=challenge,
        )

    async def for_broker(self, kbs_report_data: bytes) -> tuple[bytes, bytes]:
        """Report and certificate table over report data of the key broker's shape, and of no other."""
        ours = kbs_report_data.startswith(MAGIC)
        if len(kbs_report_data) != SIZE or ours or not is_reserved(kbs_report_data):
            raise PolicyError(
                "broker report data: not of the key broker's shape, want 33 to 48 significant bytes"
            )
        made = await self._report(kbs_report_data)
        return made.outblob, made.auxblob

    async def launch(self) -> Launch:
        """What the silicon says of this machine before anything else is known (report data: zeros)."""
        made = await self._report(bytes(SIZE))
        if made.tee == "tdx":
            body = TDXQuote.parse(made.outblob).body
            return Launch(tee=made.tee, measurement=body.mr_td, committed=body.mr_config_id)
        report = SNPReport.parse(made.outblob)
        return Launch(tee=made.tee, measurement=report.measurement, committed=report.host_data)

    async def _report(self, data: bytes) -> TSMReport:
        async with self._turn:
            return await asyncio.to_thread(self._tsm.report, data)


def _extend(path: Path, digest: bytes) -> None:
    with tpm.opened(path) as device:
        device.extend(PCR, digest)
