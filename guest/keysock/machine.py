"""What this machine says of itself in dstack's words: identities, registers, and where its keys come from.

    register      TDX                      elsewhere
    mrtd          MRTD                     the launch digest
    rtmr0..2      the quote's              zeros: there are none
    rtmr3         head of the event log    head of the event log

Replaying the log we hand out gives every one of them; on TDX where firmware left a log that does, and the kernel lets
the agent extend register 3. Where it does not, that register is shown as it is and our events are left out.
"""

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from cryptography import x509

from guest.keysock.plan import Plan
from strongroom.errors import FormatError
from strongroom.evidence import dstack_registers as registers
from strongroom.evidence.dstack_app import NO_REGISTER, TCB, AppInfo, Info
from strongroom.evidence.dstack_identity import APP_ID, instance_id
from strongroom.evidence.dstack_log import Log, replay, view
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.hcl import HCLReport
from strongroom.evidence.pck import OID, PCKExtension
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.tdx import TDReport, TDReportBody, TDXQuote
from strongroom.wire.canonical import JSON, pack_json

_DMI: Final = Path("/sys/class/dmi/id")
_MAX_DMI: Final = 256  # bytes
_PROVIDERS: Final = {"broker": "kms", "vtpm": "tpm", "ephemeral": "none"}  # what dstack calls ours
_INSTANCE: Final = b"strongroom/instance/v1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    tee: str  # as in our bundles
    measurement: bytes  # 48 bytes
    committed: bytes  # HOST_DATA or MRCONFIGID
    device: bytes  # what the maker calls this machine: CHIP_ID or PPID; empty where it does not say
    body: TDReportBody | None  # of a TD that makes quotes itself

    @classmethod
    def of(cls, tee: str, report: bytes) -> Self:
        """The machine that made this report or quote; FormatError when it is none."""
        if tee == "tdx":
            quote = TDXQuote.parse(report)
            body = quote.body
            return cls(
                tee=tee,
                measurement=body.mr_td,
                committed=body.mr_config_id,
                device=_ppid(quote.pck_chain),
                body=body,
            )
        hardware = HCLReport.parse(report).hardware_report if tee.startswith("azure-") else report
        if tee == "azure-tdx":
            td = TDReport.parse(hardware).body
            return cls(tee=tee, measurement=td.mr_td, committed=td.mr_config_id, device=b"", body=None)
        snp = SNPReport.parse(hardware)
        return cls(
            tee=tee, measurement=snp.measurement, committed=snp.host_data, device=snp.chip_id, body=None
        )

    @property
    def firmware(self) -> tuple[bytes, bytes, bytes]:
        """Registers 0 to 2."""
        return (NO_REGISTER,) * 3 if self.body is None else self.body.rtmrs[:3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """This machine and what runs on it; everything but the log is as it was at boot."""

    machine: Machine
    plan: Plan
    root_public: bytes  # the app root key, compressed; empty where there are no keys
    certificate: str  # PEM of the authority that signs here, or ""
    vendor: str
    product: str
    follows: bool = True  # register 3 follows our log

    @property
    def app_id(self) -> bytes:
        return self.plan.app_id or self.plan.userdata_sha256[:APP_ID]

    def log(self, log: EventLog) -> Log:
        """Every register's entries."""
        return (*self.plan.firmware, *(view(log) if self.follows else ()))

    def body(self, log: EventLog) -> TDReportBody | None:
        """The TD's body as it would be quoted now; None where there is none."""
        body = self.machine.body
        return replace(body, rtmr3=log.head) if body is not None and self.follows else body

    def gaps(self) -> tuple[int, ...]:
        """The registers that firmware's log does not lead to."""
        return tuple(
            n for n, found in enumerate(self.machine.firmware) if replay(self.plan.firmware, n) != found
        )

    def app(self, log: EventLog) -> AppInfo:
        provider, machine, body = self._provider(), self.machine, self.body(log)
        if body is None:
            system = registers.mr_system_snp(machine.measurement)
            aggregated = registers.mr_aggregated_snp(machine.measurement, machine.committed)
        else:
            system = registers.mr_system_tdx(body, key_provider=provider)
            aggregated = registers.mr_aggregated_tdx(body)
        return AppInfo(
            app_id=self.app_id,
            compose_hash=self.plan.userdata_sha256,
            instance_id=self._instance(),
            device_id=registers.device_id(self.machine.device),
            mr_system=system,
            mr_aggregated=aggregated,
            os_image_hash=b"",  # the measurement stands for it, and is longer than its 32 bytes
            key_provider_info=provider,
        )

    def info(self, log: EventLog) -> Info:
        (rtmr0, rtmr1, rtmr2), body = self.machine.firmware, self.body(log)
        tcb = TCB(
            mrtd=self.machine.measurement,
            rtmrs=(rtmr0, rtmr1, rtmr2, log.head if body is None else body.rtmr3),
            event_log=self.log(log),
            app_compose=self.plan.userdata,
            more={"strongroom": self.ours()},
        )
        return Info(
            app=self.app(log),
            tcb=tcb,
            app_name=self.plan.name,
            app_cert=self.certificate,
            cloud_vendor=self.vendor,
            cloud_product=self.product,
        )

    def ours(self) -> dict[str, JSON]:
        """What dstack has no word for."""
        origin = self.plan.origin
        return {
            "tee": self.machine.tee,
            "measurement": self.machine.measurement.hex(),
            "committed": self.machine.committed.hex(),
            "keys": None
            if origin is None
            else {**origin.to_json(), "app_root_public": self.root_public.hex()},
        }

    def _provider(self) -> bytes:
        origin = self.plan.origin
        if origin is None:
            return pack_json({"name": "none", "id": ""})
        return pack_json({"name": _PROVIDERS[origin.kind], "id": origin.provider.hex(), "root": origin.kind})

    def _instance(self) -> bytes:
        """The same for this machine as long as its root is: nothing where there are no keys."""
        if not self.root_public:
            return b""
        seed = sha256(_INSTANCE + self.root_public).digest()[:APP_ID]
        return instance_id(seed=seed, app=self.app_id, platform=self.machine.device)


def described(
    plan: Plan, machine: Machine, log: EventLog, *, root_public: bytes, certificate: str, dmi: Path = _DMI
) -> Described:
    """What can be told of this machine, whose log is now `log`. Reads what the firmware says of its maker."""
    return Described(
        machine=machine,
        plan=plan,
        root_public=root_public,
        certificate=certificate,
        vendor=_said(dmi / "sys_vendor"),
        product=_said(dmi / "product_name"),
        follows=machine.body is None or machine.body.rtmr3 == log.head,
    )


def _ppid(chain: bytes) -> bytes:
    """What Intel calls this platform, from the first certificate of a quote's chain; empty where it is none."""
    try:
        leaf = x509.load_pem_x509_certificates(chain.rstrip(b"\0"))[0]
        value = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier(OID)).value
    except (ValueError, IndexError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return b""
    if not isinstance(value, x509.UnrecognizedExtension):
        return b""
    try:
        return PCKExtension.parse(value.value).ppid
    except FormatError:
        return b""


def _said(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_DMI).decode("utf-8", "replace").strip()
    except OSError:
        return ""
