"""What a boot acts on: the paths and services of this guest, fixed before userdata is read."""

from dataclasses import dataclass
from pathlib import Path

from guest.applications import Applications
from guest.attester import Attester
from guest.broker import KeyBroker
from guest.gpus import GPUs
from guest.grants import Grants
from guest.record import Record
from guest.resources import Resources


@dataclass(frozen=True, slots=True)
class System:
    seed: Path  # cloud-init NoCloud seed: a directory, or an ISO image or disk
    engine_venv: Path
    attester: Attester
    gpus: GPUs
    grants: Grants
    record: Record
    applications: Applications
    broker: KeyBroker
    tpm: Path | None = None
    resources: Resources | None = None  # None: nothing of Confidential Containers is spoken here
