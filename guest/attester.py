"""The one place in the guest that asks the silicon for evidence, and keeps the event log it commits to.

Registers follow the log where there are any: PCR 15 takes the SHA-256 of every new head; RTMR 3 takes every event's
digest, which makes it equal to the head. A vTPM whose key somebody vouches for adds a quote to every bundle; on Azure
that quote is the only fresh part, and the paravisor's report takes the place of the hardware's.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from guest.cc_log import cc_log
from guest.collateral import KeptCollateral
from guest.machine.azure import Paravisor
from guest.machine.firmware_log import CCEL
from guest.machine.rtmr import RTMR
from guest.machine.tsm import Silicon, TSMReport
from guest.machine.vtpm import ALL, VTPM
from strongroom.broker.exchange import Collect
from strongroom.errors import MachineError, PolicyError
from strongroom.evidence.binding import (
    MAGIC,
    SIZE,
    Purpose,
    gpu_digest,
    gpu_nonce,
    is_reserved,
    kbs_report_data,
    report_data,
    tpm_nonce,
)
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.kbs import TPM_NONCE, CompositeEvidence, KBSEvidence, KBSTee
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.tdx import TDXQuote
from strongroom.evidence.vtpm import TPMEvidence

_TEES: Final[Mapping[tuple[bool, bool], KBSTee]] = {  # whether Intel's, whether behind a paravisor
    (False, False): "snp",
    (True, False): "tdx",
    (False, True): "az-snp-vtpm",
    (True, True): "az-tdx-vtpm",
}
_QUOTED: Final = 32  # bytes in the quote of every bundle
_CHOSEN: Final = frozenset({"sha256"})  # digests no longer than what a program chooses
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
        tsm: Silicon | None,
        vtpm: VTPM | None = None,
        *,
        paravisor: Paravisor | None = None,
        rtmr: RTMR | None = None,
        devices: Devices = no_devices,
        kept: KeptCollateral | None = None,
        ccel: Path = CCEL,
    ) -> None:
        self._tsm, self._vtpm, self._paravisor, self._rtmr = tsm, vtpm, paravisor, rtmr
        self._devices, self._kept, self._ccel = devices, kept, ccel
        self._tee: Literal["snp", "tdx"] | None = None  # known once asked
        self._log = EventLog(())
        self._turn = asyncio.Lock()
        self._slot = asyncio.Lock()  # of what the paravisor makes its report around; taken before a turn

    @property
    def log(self) -> EventLog:
        return self._log

    async def extend(self, name: str, payload: bytes, *, most: int | None = None) -> None:
        """Append an event: to the log that every bundle commits to, and to the registers where there are any.

        PolicyError where there are `most` of that name already.
        """
        event = Event(name, payload)
        async with self._turn:
            if most is not None and sum(other.name == name for other in self._log.events) >= most:
                raise PolicyError(f"event: there are {most} of programs already, want no more")
            log = self._log.extend(event)
            if self._vtpm is not None:
                await asyncio.to_thread(self._vtpm.extend, hashlib.sha256(log.head).digest())
            if self._rtmr is not None:
                await asyncio.to_thread(self._rtmr.extend, event.digest)
            self._log = log

    async def bind_init_data(self, digest: bytes) -> None:
        """Extend the vTPM's register of init-data, where there is a vTPM: once a boot, before anything is asked."""
        if self._vtpm is not None:
            await asyncio.to_thread(self._vtpm.extend_init_data, digest)

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

    async def broker_tee(self) -> KBSTee:
        """What a key broker calls this machine."""
        if self._tsm is None and self._paravisor is None:
            return "tpm"
        if self._tee is None:
            await self.launch()
        return _TEES[self._tee == "tdx", self._paravisor is not None]

    async def for_broker(self, asked: Collect) -> CompositeEvidence:
        """Evidence for one session of a key broker: of every GPU over its nonce, of this machine over what they said.

        The report carries a digest of the key broker's shape, and no caller of the evidence socket can ask for that.
        """
        if asked.hash in _CHOSEN:
            raise PolicyError(
                f"broker evidence: hash is {asked.hash}, whose digests a program could ask for too"
            )
        gpus = await self._devices(asked.device_nonce) if asked.takes_devices else ()
        async with self._slot, self._turn:
            events = self._log if asked.takes_events else None
            digest = asked.digest(gpus, events)
            primary = await asyncio.to_thread(self._primary, digest, asked.hash, self._log)
        return CompositeEvidence(primary=primary, gpus=gpus, events=events)

    async def over(self, data: bytes, *, raw: bool = False) -> tuple[TSMReport, EventLog]:
        """A report over 64 bytes that a program of this machine chose, and the log of that moment.

        Bytes of a shape of ours are refused, unless `raw`: whoever reads them would take them for our word.
        """
        if len(data) != SIZE or (is_reserved(data) and not raw):
            raise PolicyError(
                "report data: of a shape that is ours, want another one, or raw_quote in a rule"
            )
        if self._paravisor is not None:
            raise MachineError("report data: on azure no report of the hardware can carry them")
        async with self._turn:
            log = self._log
            made = await asyncio.to_thread(self._silicon.report, data)
        made = _bare(made)
        if self._kept is not None and made.tee == "snp":
            table = await asyncio.to_thread(self._kept.table, made.outblob, made.auxblob)
            made = replace(made, auxblob=table)
        return made, log

    async def for_program(self, data: bytes, *, raw: bool = False) -> KBSEvidence:
        """Evidence over at most 64 bytes that a program chose, in the shape that a key broker reads.

        Zeros fill them up, but on Azure, where a quote says exactly them. Bytes of a shape of ours are refused, unless
        `raw`, and on Azure any 32 bytes: as many as our own quotes say.
        """
        padded = data.ljust(SIZE, b"\0")
        if self._paravisor is None:
            made, log = await self.over(padded, raw=raw)
            return await asyncio.to_thread(self._stated, made, log)
        if len(padded) != SIZE or ((len(data) == _QUOTED or is_reserved(padded)) and not raw):
            raise PolicyError(
                f"report data: of a shape that is ours, as {_QUOTED} bytes are on azure, "
                "want a zero byte behind them, or raw_evidence in a rule"
            )
        if not data:
            raise PolicyError("report data: 0 bytes, want at least one on azure: a quote says something")
        # Without a turn: it takes the paravisor seconds, and the door may ask for evidence meanwhile.
        async with self._slot:
            return await asyncio.to_thread(self._by_paravisor, self._paravisor, data)

    async def seen(self) -> tuple[TSMReport, EventLog]:
        """What this machine is, for whoever looks at it here: a report over zeros, or the paravisor's; and the log."""
        if self._paravisor is not None:
            return await asyncio.to_thread(self._paravisor.evidence), self._log
        return await self.over(bytes(SIZE))

    async def devices(self, nonce: bytes) -> tuple[GPUEvidence, ...]:
        """Evidence of every GPU over a nonce, by itself. A nonce of ours commits to challenge and key: not this one."""
        return await self._devices(nonce)

    async def launch(self) -> Launch:
        """What the silicon says of this machine before anything else is known (report data: zeros)."""
        if self._paravisor is not None:
            said = self._paravisor.launched()
        else:
            made = await self._report(bytes(SIZE))
            is_tdx = made.tee == "tdx"
            said = TDXQuote.parse(made.outblob).body if is_tdx else SNPReport.parse(made.outblob)
        self._tee = "snp" if isinstance(said, SNPReport) else "tdx"
        if isinstance(said, SNPReport):
            return Launch(tee="snp", measurement=said.measurement, committed=said.host_data)
        return Launch(tee="tdx", measurement=said.mr_td, committed=said.mr_config_id)

    async def _report(self, data: bytes) -> TSMReport:
        async with self._turn:
            return await asyncio.to_thread(self._silicon.report, data)

    @property
    def _silicon(self) -> Silicon:
        if self._tsm is None:
            raise MachineError("attester: this machine has no confidential hardware, want some")
        return self._tsm

    def _primary(self, digest: bytes, hash: str, log: EventLog) -> KBSEvidence:
        """This machine's evidence over a digest, in the shape that a key broker reads."""
        data = kbs_report_data(digest, hash)
        if data.startswith(MAGIC):
            raise PolicyError("broker report data: of our own evidence's shape, want a digest")
        if self._paravisor is not None:
            return self._by_paravisor(self._paravisor, digest)
        if self._tsm is None:
            return self._by_tpm(digest)
        made = _bare(self._tsm.report(data))
        if self._kept is not None and made.tee == "snp":
            made = replace(made, auxblob=self._kept.table(made.outblob, made.auxblob))
        return self._stated(made, log)

    def _stated(self, made: TSMReport, log: EventLog) -> KBSEvidence:
        """The hardware's report and what belongs to it: its certificates, or the log that a quote's registers hold."""
        if made.tee == "tdx":
            return KBSEvidence(tee="tdx", report=made.outblob, log=cc_log(made.outblob, log, self._ccel))
        return KBSEvidence(tee="snp", report=made.outblob, certificates=made.auxblob)

    def _by_paravisor(self, paravisor: Paravisor, digest: bytes) -> KBSEvidence:
        """A report that the paravisor makes anew around the digest, and a quote over it by the key it vouches for."""
        if self._vtpm is None:
            raise MachineError("azure: there is no vtpm, want the one of this machine")
        renewed = paravisor.renewed(self._vtpm.paravisor_report_with(digest))
        made, quote = renewed.evidence(), self._vtpm.quote(digest, ALL)
        if quote is None:
            raise MachineError("azure: the vtpm gave no quote, want one: nothing else is fresh")
        beside = made.auxblob
        if self._kept is not None and made.tee == "azure-snp":
            beside = self._kept.table(renewed.report.hardware_report, beside)
        return KBSEvidence(
            tee=_TEES[made.tee == "azure-tdx", True], report=made.outblob, certificates=beside, tpm=quote
        )

    def _by_tpm(self, digest: bytes) -> KBSEvidence:
        if self._vtpm is None:
            raise MachineError("attester: neither confidential hardware nor a tpm, want one")
        quote, key = self._vtpm.quote_alone(digest[:TPM_NONCE])
        return KBSEvidence(tee="tpm", tpm=quote, key=key)

    def _made(self, wanted: bytes) -> tuple[TSMReport, TPMEvidence | None]:
        """A report that carries these report data, or beside it a quote that commits to them, or both."""
        made = _bare(self._silicon.report(wanted)) if self._paravisor is None else self._paravisor.evidence()
        quote = None if self._vtpm is None else self._vtpm.quote(tpm_nonce(wanted))
        if self._paravisor is not None and quote is None:
            raise MachineError("azure: the vtpm gave no quote, want one: nothing else is fresh")
        return made, quote


def _bare(made: TSMReport) -> TSMReport:
    """Without the zeros that some hosts put behind a quote."""
    if made.tee != "tdx":
        return made
    return replace(made, outblob=replace(TDXQuote.parse(made.outblob), trailing=b"").pack())
