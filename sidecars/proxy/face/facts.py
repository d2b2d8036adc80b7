"""Everything the door says of its machine, as one value. Pure: what is shown was gathered by answers.py.

None of it proves anything: that is for the evidence beside it, and for programs outside. What the evidence commits to
is read out of it here, so that page and evidence cannot disagree.
"""

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final, Self

from sidecars.proxy.face.boot import Boot
from strongroom.errors import FormatError
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.hcl import HCLReport
from strongroom.evidence.nvml import NVMLState
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.tdx import TDReport, TDXQuote
from strongroom.measure.tree import words
from strongroom.receipts.log import SignedHead
from strongroom.receipts.receipt import Engine, Model
from strongroom.verify.roots import SIMULATED_LABEL
from strongroom.wire.canonical import JSON, b64u, parse_json

VERSION: Final = "strongroom/well-known/v1"
HTTPS: Final = 443


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """What the silicon says of the machine that was launched."""

    tee: str  # as in our bundles
    measurement: bytes  # 48 bytes: launch digest or MRTD
    committed: bytes  # HOST_DATA or MRCONFIGID
    simulated: bool  # by an issuer that says so itself

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """FormatError for a bundle whose report is none."""
        simulated = _is_simulated(bundle)
        if bundle.tee == "tdx":
            body = TDXQuote.parse(bundle.report).body
        else:
            azure = bundle.tee.startswith("azure-")
            report = HCLReport.parse(bundle.report).hardware_report if azure else bundle.report
            if bundle.tee != "azure-tdx":
                snp = SNPReport.parse(report)
                return cls(
                    tee=bundle.tee,
                    measurement=snp.measurement,
                    committed=snp.host_data,
                    simulated=simulated,
                )
            body = TDReport.parse(report).body
        return cls(tee=bundle.tee, measurement=body.mr_td, committed=body.mr_config_id, simulated=simulated)


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUs:
    """As the agent wrote it into the event log before it asked for any key."""

    count: int
    nvml: NVMLState | None

    @classmethod
    def of(cls, events: EventLog) -> Self:
        if (payload := events.find("gpu")) is None:
            raise FormatError("event log: no event gpu, want exactly one")
        value = parse_json(payload, "event gpu")
        if not isinstance(value, dict) or type(count := value.get("count")) is not int or count < 0:
            raise FormatError("event gpu: want an object with count")
        state = NVMLState.from_json(value["nvml"], "event gpu.nvml") if "nvml" in value else None
        return cls(count=count, nvml=state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    title: str
    state: str
    at: datetime  # when this was gathered
    host: str  # where clients reach the door, as in a URL
    model: Model
    engine: Engine
    max_model_len: int | None  # tokens
    launched: Launched
    gpus: GPUs
    boot: Boot | None
    tls_spki: bytes  # of the connection that this is shown on
    receipt_key: bytes  # DER SPKI
    not_before: datetime  # of the receipt key
    log: SignedHead  # of the receipts
    signing: Mapping[str, str]  # address by algorithm, of signatures in others' forms
    keyset_digest: str | None  # of aci/1

    @property
    def words(self) -> str:
        return words(self.launched.measurement)

    @property
    def userdata_sha256(self) -> str | None:
        return None if self.boot is None else self.boot.userdata_sha256

    def to_json(self) -> dict[str, JSON]:
        """The document of docs/formats/well-known.md without its evidence."""
        launched, signing = self.launched, dict[str, JSON](self.signing)
        return {
            "version": VERSION,
            "state": self.state,
            "at": int(self.at.timestamp()),
            "machine": {
                "tee": launched.tee,
                "measurement": launched.measurement.hex(),
                "words": self.words,
                "committed": launched.committed.hex(),
                "userdata_sha256": self.userdata_sha256,
                "simulated": launched.simulated,
                "gpus": {
                    "count": self.gpus.count,
                    "nvml": None if self.gpus.nvml is None else self.gpus.nvml.to_json(),
                },
            },
            "model": self.model.to_json(),
            "max_model_len": self.max_model_len,
            "engine": self.engine.to_json(),
            "boot": None if self.boot is None else dict(self.boot.raw),
            "keys": {
                "tls_spki_sha256": sha256(self.tls_spki).hexdigest(),
                "receipt": b64u(self.receipt_key),
                "not_before": int(self.not_before.timestamp()),
                "signing_addresses": signing,
                "aci_keyset_digest": self.keyset_digest,
            },
            "log": self.log.to_json(),
        }


def host_of(name: str, port: int) -> str:
    """Where a client finds a door that listens on `port` (0: on one nobody chose), as in a URL."""
    with suppress(ValueError):  # of a name, which is no address
        name = f"[{name}]" if ipaddress.ip_address(name).version == 6 else name
    return name if port in (0, HTTPS) else f"{name}:{port}"


def _is_simulated(bundle: Bundle) -> bool:
    """Whether an issuer in it says of itself that it is none. For a warning, which an honest machine gives."""
    label = SIMULATED_LABEL.encode()
    signed = bundle.certificates + (b"" if bundle.tpm is None else bundle.tpm.certificates)
    return label in signed
