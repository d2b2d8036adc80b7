"""Evidence without a machine: the simulated chip of demo/silicon, its authority kept for all tests.

RSA-4096 keys take seconds to make, so they are kept under build/test-pki (ignored by git) for every run.
"""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

from demo.silicon.mint import CURRENT_TCB, POLICY, Silicon
from demo.silicon.pki import PKI, kept_pki
from strongroom.evidence.binding import Purpose, gpu_digest, report_data
from strongroom.evidence.bundle import Bundle, GPUEvidence
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.snp import TCB
from strongroom.verify.roots import PRODUCTION, Roots
from tests import ROOT

KEPT: Final = ROOT / "build" / "test-pki"
NOT_BEFORE: Final = datetime(2025, 1, 1, tzinfo=UTC)  # the VCEK is good for seven years
MEASUREMENT: Final = bytes(range(48))
HOST_DATA: Final = bytes(range(32))


@cache
def pki(directory: Path = KEPT) -> PKI:
    """The test authority and its chip."""
    return kept_pki(directory, NOT_BEFORE)


def silicon(
    directory: Path = KEPT,
    *,
    measurement: bytes = MEASUREMENT,
    host_data: bytes = HOST_DATA,
    policy: int = POLICY,
    tcb: TCB = CURRENT_TCB,
) -> Silicon:
    """One launched guest. `policy=POLICY | DEBUG` (demo.silicon.mint) makes a debug guest."""
    return Silicon(
        pki=pki(directory),
        measurement=measurement,
        host_data=host_data,
        policy=policy,
        tcb=tcb,
        report_id=bytes(32),
    )


def roots(silicon: Silicon) -> Roots:
    """The production roots, and this simulated one."""
    return PRODUCTION.with_insecure([silicon.pki.ark_sha256])


def bundle(
    silicon: Silicon,
    *,
    purpose: Purpose,
    challenge: bytes,
    key: bytes,
    events: EventLog,
    gpus: tuple[GPUEvidence, ...] = (),
) -> Bundle:
    """What the boot agent would answer: evidence for `purpose` that speaks for `key` (DER SPKI) alone."""
    context = report_data(
        purpose=purpose, challenge=challenge, key=key, gpu_digest=gpu_digest(gpus), context=events.head
    )
    return Bundle(
        tee="snp",
        report=silicon.report(context),
        certificates=silicon.certificates(),
        gpus=gpus,
        events=events,
        purpose=purpose,
        challenge=challenge,
    )
