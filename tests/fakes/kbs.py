"""Machines of every kind as a key broker meets them: what the broker wants evidence over, to that evidence."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from demo.silicon.mint import Silicon
from strongroom.broker.exchange import Collect
from strongroom.evidence.binding import kbs_report_data
from strongroom.evidence.eventlog import PCR, EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.hcl import ReportType
from strongroom.evidence.initdata import register
from strongroom.evidence.kbs import CompositeEvidence, KBSEvidence, KBSTee
from strongroom.evidence.tdx import TDReport
from strongroom.evidence.tpm import Hash
from strongroom.evidence.vtpm import PCRS, TPMEvidence
from tests.fakes import composite
from tests.fakes.composite import PLATFORM
from tests.fakes.intel import BODY, BODY_1_5, Platform
from tests.fakes.nvidia import Device
from tests.fakes.silicon import silicon
from tests.fakes.tpm import hcl, rsa_tpm, runtime_data

Collector = Callable[[Collect], CompositeEvidence]


@dataclass(frozen=True)
class Machine:
    """One machine. `init_data` is the digest its launcher committed to, `user_data` what its paravisor repeats."""

    tee: KBSTee = "snp"
    chip: Silicon = field(default_factory=silicon)
    devices: Sequence[Device] = ()
    events: EventLog = field(default_factory=EventLog)
    platform: Platform = PLATFORM
    body: Mapping[str, Any] = field(default_factory=dict)  # of the TD report
    pcrs: Mapping[int, bytes] = field(default_factory=dict)
    init_data: bytes | None = None
    user_data: bytes | None = None  # of the HCL report, in place of the digest
    nonce: bytes | None = None  # that the devices answer, in place of the right one
    old: bool = False  # azure: without user data, as agents were once

    def __call__(self, asked: Collect) -> CompositeEvidence:
        gpus = self.gpus(asked) if asked.takes_devices else ()
        events = self.events if asked.takes_events else None
        digest = asked.digest(gpus, events)
        return CompositeEvidence(primary=self.primary(digest, asked.hash), gpus=gpus, events=events)

    def gpus(self, asked: Collect) -> tuple[GPUEvidence, ...]:
        return composite.gpus(self.devices, nonce=self.nonce or asked.device_nonce)

    def primary(self, digest: bytes, hash: str = "sha384") -> KBSEvidence:
        data = kbs_report_data(digest, hash)
        match self.tee:
            case "snp":
                report = self.chip.report(data)
                return KBSEvidence(tee="snp", report=report, certificates=self.chip.certificates())
            case "tdx":
                body = {"report_data": data, "rtmr3": self.events.head, **self.body}
                platform = replace(self.platform, body=replace(BODY, **body))
                return KBSEvidence(tee="tdx", report=platform.quote().pack())
            case "tpm":
                key = rsa_tpm().key.public_key()
                spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
                return KBSEvidence(tee="tpm", tpm=self._quoted(digest[:32]), key=spki)
        return self._azure(digest)

    def registers(self) -> dict[int, bytes]:
        """All 24 PCRs: made-up ones, the one that follows the log, and that of the init-data."""
        values = {index: bytes((index,)) * 32 for index in range(PCRS)}
        values |= {PCR: self.events.pcr, 8: bytes(32)}
        if self.init_data is not None:
            values[8] = register(self.init_data)
        return values | dict(self.pcrs)

    def _quoted(self, nonce: bytes) -> TPMEvidence:
        values = self.registers()
        quote, signature = rsa_tpm().quote(nonce, values)
        return TPMEvidence(
            attest=quote.pack(), signature=signature.pack(), pcrs=tuple(sorted(values.items()))
        )

    def _azure(self, digest: bytes) -> KBSEvidence:
        repeated = (self.user_data or digest).ljust(64, b"\0")
        data = runtime_data(rsa_tpm(), **({} if self.old else {"user-data": repeated.hex().upper()}))
        bound = Hash.SHA256.digest(data).ljust(64, b"\0")
        quoted = self._quoted(digest)
        if self.tee == "az-snp-vtpm":
            report = hcl(data, self.chip.report(bound)).pack()
            return KBSEvidence(
                tee=self.tee, report=report, certificates=self.chip.certificates(), tpm=quoted,
                binds_user_data=not self.old,
            )  # fmt: skip
        body = {"report_data": bound, **self.body}
        td = TDReport(
            version=0, cpu_svn=bytes(16), mac=bytes(32), valid=b"\xff" * 8, body=replace(BODY_1_5, **body)
        )
        quote = replace(self.platform, body=replace(BODY, **body)).quote().pack()
        return KBSEvidence(
            tee=self.tee,
            report=hcl(data, td.pack(), ReportType.TDX).pack(),
            certificates=quote,
            tpm=quoted,
            binds_user_data=not self.old,
        )


MACHINES: Final[tuple[KBSTee, ...]] = ("snp", "tdx", "az-snp-vtpm", "az-tdx-vtpm", "tpm")
