"""GPU evidence judged inside the guest, before any work reaches the devices: genuine, fresh, measured, not revoked.

Reference values and revocation answers come from a directory that `strongroom collateral fill` or `import` filled.
Anybody may fill it: every entry is signed by the maker, and what is absent or out of date is a refusal here. Whom to
believe is fixed in this program, so the host chooses nothing but whether the guest boots.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from guest.gpus import Verify
from strongroom.errors import PolicyError
from strongroom.evidence.gpu import GPUEvidence
from strongroom.evidence.spdm import SPDMReport
from strongroom.host.collateral import supply
from strongroom.host.collateral.item import Item
from strongroom.host.collateral.store import Store
from strongroom.host.collateral.wanted import for_nvidia_device
from strongroom.verify.devices import verify_devices
from strongroom.verify.roots import PRODUCTION, Roots

DIRECTORY: Final = Path("/var/lib/strongroom/collateral")
MAX_AGE: Final = timedelta(days=1)  # of a word on revocation
_SWITCH: Final = "ls10"


def judge(
    directory: Path = DIRECTORY,
    *,
    roots: Roots = PRODUCTION,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Verify:
    """A verifier over the collateral in `directory`, read anew at every judgement."""

    def verify(devices: Sequence[GPUEvidence], nonce: bytes) -> None:
        moment = now()
        items = [item for device in devices for item in _wanted(device, roots, moment)]
        collateral = supply.collateral(items, Store(directory), roots=roots, now=moment)
        claims = verify_devices(devices, nonce=nonce, collateral=collateral, roots=roots, now=moment)
        if not claims.measured:
            raise PolicyError("gpu: a device was not compared with its maker's reference values, want all")
        if claims.expired_signers:
            expired = ", ".join(claims.expired_signers)
            raise PolicyError(f"gpu: reference values are signed under an expired {expired}, want fresh ones")
        if claims.answered_at is None or moment - claims.answered_at > MAX_AGE:
            since = f"from {claims.answered_at:%Y-%m-%d %H:%M}" if claims.answered_at else "missing"
            raise PolicyError(
                f"gpu: the word on revocation is {since}, want one of at most {MAX_AGE.days} day"
            )

    return verify


def _wanted(device: GPUEvidence, roots: Roots, now: datetime) -> list[Item]:
    return for_nvidia_device(
        SPDMReport.parse(device.report),
        device.certificates,
        kind="switch" if device.kind == _SWITCH else "gpu",
        roots=roots,
        now=now,
    )
