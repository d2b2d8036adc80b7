"""Evidence over bytes that a caller chose: which bytes it may choose, and what the answer is made of on each machine.

Without raw_quote a caller gets evidence over at most 32 bytes that mean something, such as a nonce or a SHA-256. No
report data that speak for a key are that short: ours begin with a name and have 64, the key broker's have 48, dstack's
have 64. So nobody gets evidence for a TLS key that is not his by asking for its hash.

Of one caller's requests one is at the machine at a time: who asks a hundred times waits for himself.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from guest.keysock.agent import Agent
from guest.keysock.machine import Described
from guest.keysock.plan import SHORT
from guest.keysock.rights import Granted
from strongroom.evidence import dstack_envelope
from strongroom.evidence.binding import is_reserved
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.dstack_attestation import SNP, TDX, Attestation
from strongroom.evidence.dstack_binding import padded
from strongroom.evidence.dstack_envelope import Envelope, pack_bundle
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.snp_certs import CertificateTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    report_data: bytes
    log: EventLog
    attestation: Attestation | None  # None behind a paravisor
    bundle: bytes  # CBOR, behind a paravisor

    def attested(self, version: int = 0, *, stripped: bool = False) -> bytes:
        """The versioned attestation, in dstack's encoding 0 or 1; of the second kind where there is a paravisor."""
        if self.attestation is None:
            return pack_bundle(self.bundle, self.report_data)
        attestation = self.attestation.stripped if stripped else self.attestation
        return attestation.pack_v1() if version else attestation.pack_v0()


class Quotes:
    def __init__(self, agent: Agent, machine: Described) -> None:
        self._agent, self._machine = agent, machine
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    async def chosen(self, granted: Granted, data: bytes) -> Quoted:
        """Evidence over bytes of the caller's choice: PolicyError for such as no rule allows him."""
        report_data = padded(data)
        require_allowed(granted, report_data)
        return await self.over(granted, report_data, raw=granted.rule.raw_quote and is_reserved(report_data))

    async def over(
        self, granted: Granted, report_data: bytes, *, key: bytes = b"", raw: bool = False
    ) -> Quoted:
        """Evidence over 64 bytes that were computed here, for what `key` (DER SPKI) is."""
        caller = granted.caller.name
        async with self._turn(caller):
            if self._machine.machine.tee.startswith("azure-"):
                bundle = await self._agent.evidence(caller=caller, nonce=report_data, key=key)
                return Quoted(
                    report_data=report_data,
                    log=bundle.events,
                    attestation=None,
                    bundle=bundle.bare.pack_cbor(),
                )
            made = await self._agent.report(report_data, raw=raw)
        platform: TDX | SNP
        if made.tee == "tdx":
            platform = TDX(quote=made.report, event_log=self._machine.log(made.log))
        else:
            platform = SNP(report=made.report, cert_chain=_chain(made.certificates))
        attestation = Attestation(platform=platform, report_data=report_data)
        return Quoted(report_data=report_data, log=made.log, attestation=attestation, bundle=b"")

    async def bundle(self, granted: Granted, *, nonce: bytes, key: bytes) -> Bundle:
        """Evidence of our own form, for a key that the caller has."""
        async with self._turn(granted.caller.name):
            return await self._agent.evidence(caller=granted.caller.name, nonce=nonce, key=key)

    async def gpus(self, granted: Granted, nonce: bytes) -> tuple[GPUEvidence, ...]:
        async with self._turn(granted.caller.name):
            return await self._agent.gpus(nonce)

    def quote(self, quoted: Quoted) -> bytes:
        """The TD quote; elsewhere what stands in its place."""
        if quoted.attestation is not None and isinstance(quoted.attestation.platform, TDX):
            return quoted.attestation.platform.quote
        machine = self._machine.machine
        body = dstack_envelope.body(
            measurement=machine.measurement,
            committed=machine.committed,
            head=quoted.log.head,
            report_data=quoted.report_data,
        )
        return Envelope(body=body, attestation=quoted.attested()).pack()

    @asynccontextmanager
    async def _turn(self, caller: str) -> AsyncIterator[None]:
        lock, waiting = self._turns.get(caller, (asyncio.Lock(), 0))
        self._turns[caller] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._turns.pop(caller)
            if waiting > 1:
                self._turns[caller] = lock, waiting - 1


def require_allowed(granted: Granted, report_data: bytes) -> None:
    """Raise PolicyError for report data that only a rule with raw_quote allows; trailing zeros do not count."""
    size = len(report_data.rstrip(b"\0"))
    if size > SHORT:
        granted.require_raw(f"report data of {size} bytes, want at most {SHORT} without it")
    elif is_reserved(report_data):
        granted.require_raw("report data of a shape that is ours")


def _chain(table: bytes) -> tuple[bytes, ...]:
    """DER, leaf first."""
    kept = CertificateTable.parse(table)
    return tuple(der for der in (kept.vcek or kept.vlek, kept.ask, kept.ark) if der is not None)
