"""The one place in the guest that asks the silicon for evidence, and keeps the event log it commits to."""

import asyncio
import hashlib
from pathlib import Path
from typing import Final

from guest.machine import tpm
from guest.machine.tsm import TSM, TSMReport
from strongroom.errors import PolicyError
from strongroom.evidence.binding import MAGIC, SIZE, Purpose, is_reserved, report_data
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.snp import SNPReport

PCR: Final = 15  # free for the operating system; the image masks systemd's own use of it


class Attester:
    """Evidence of this machine. One request to the silicon at a time: hosts rate-limit it."""

    def __init__(self, tsm: TSM, tpm_path: Path | None = None) -> None:
        self._tsm, self._tpm_path = tsm, tpm_path
        self._log = EventLog(())
        self._turn = asyncio.Lock()

    @property
    def log(self) -> EventLog:
        return self._log

    async def extend(self, name: str, payload: bytes) -> None:
        """Append an event: to the log that every bundle commits to, and to the vTPM where there is one."""
        event = Event(name, payload)
        async with self._turn:
            log = self._log.extend(event)
            if self._tpm_path is not None:
                await asyncio.to_thread(_extend, self._tpm_path, hashlib.sha256(log.head).digest())
            self._log = log

    async def evidence(self, *, purpose: Purpose, challenge: bytes, key: bytes) -> Bundle:
        """Evidence that `key` (DER SPKI) and `challenge` belong to this boot, for one purpose."""
        async with self._turn:
            log = self._log
            wanted = report_data(
                purpose=purpose, challenge=challenge, key=key, gpu_digest=b"", context=log.head
            )
            made = await asyncio.to_thread(self._tsm.report, wanted)
        return Bundle(
            tee="snp",
            report=made.outblob,
            certificates=made.auxblob,
            gpus=(),
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

    async def own_report(self) -> SNPReport:
        """What the silicon says of this machine before anything else is known (report data: zeros)."""
        return SNPReport.parse((await self._report(bytes(SIZE))).outblob)

    async def _report(self, data: bytes) -> TSMReport:
        async with self._turn:
            return await asyncio.to_thread(self._tsm.report, data)


def _extend(path: Path, digest: bytes) -> None:
    with tpm.opened(path) as device:
        device.extend(PCR, digest)
