"""The door's second identity, which signs answers: keys of the boot's secret, and the machine's evidence for them.

The first one, which proves the connection, is every door's (strongroom/host/door/identity.py). This one lives as long
as the boot: a door that starts again within it signs with the same keys, and shows the evidence it showed before.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from sidecars.proxy.plan import Plan
from strongroom.errors import ConfigError, FormatError, MachineError
from strongroom.evidence.binding import Purpose, receipt_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.host.door.identity import whole_minute
from strongroom.host.evidence import MAX_BYTES, request_evidence
from strongroom.receipts.envelope import SKEW
from strongroom.receipts.keys import DoorKeys
from strongroom.receipts.receipt import Engine, Model
from strongroom.receipts.signing import Signer
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json

KEPT: Final = "receipt-evidence.json"  # in the door's runtime directory
LOOK: Final = 5.0  # seconds between two looks at the clock


class ClockError(MachineError):
    """Receipts would be dated before their key's evidence. A door that starts again asks for evidence anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptIdentity:
    signer: Signer = field(repr=False)
    not_before: datetime
    evidence: Bundle = field(repr=False)

    @property
    def spki(self) -> bytes:
        """What evidence speaks for (strongroom/receipts/signing.py)."""
        return self.signer.key

    def require_clock(self, now: float) -> None:
        """Raise ClockError when the clock (unix seconds) is so far back that no verifier takes what is signed now."""
        if now < (self.not_before - SKEW).timestamp():
            raise ClockError(f"receipts: the clock was set back to before {self.not_before:%Y-%m-%dT%H:%MZ}")


async def make_receipt_identity(
    plan: Plan, keys: DoorKeys, *, now: datetime, directory: Path | None = None
) -> ReceiptIdentity:
    """The boot's keys with evidence, which is kept in `directory` for the next door of this boot.

    Raises ConfigError when the evidence names another model or engine.
    """
    signer = keys.signer(hybrid=plan.receipts.hybrid)
    kept = _kept(directory, signer.key) if directory is not None else None
    if kept is not None and kept[0] > now + SKEW:  # the clock was set back: no verifier would take it
        kept = None
    not_before, bundle = fresh = await _fresh(plan, signer.key, now)
    if kept is not None:  # receipts name it; collateral is the newest, which no digest covers
        not_before, bundle = kept[0], replace(kept[1], collateral=fresh[1].collateral)
    if Model.from_events(bundle.events) != plan.model:
        raise ConfigError("door.model: the machine's evidence names another model")
    if Engine.from_events(bundle.events) != plan.engine:
        raise ConfigError("door.engine: the machine's evidence names another engine")
    if directory is not None and kept is None:
        _keep(directory, signer.key, not_before, bundle)
    return ReceiptIdentity(signer=signer, not_before=not_before, evidence=bundle)


async def watch_clock(
    identity: ReceiptIdentity, *, clock: Callable[[], float] = time.time, every: float = LOOK
) -> NoReturn:
    """Never returns; raises ClockError once the clock is set back too far."""
    while True:
        identity.require_clock(clock())
        await asyncio.sleep(every)


async def _fresh(plan: Plan, key: bytes, now: datetime) -> tuple[datetime, Bundle]:
    not_before = whole_minute(now)
    bundle = await request_evidence(
        plan.evidence_socket, purpose=Purpose.RECEIPT_KEY, challenge=receipt_challenge(not_before), key=key
    )
    return not_before, bundle


def _kept(directory: Path, key: bytes) -> tuple[datetime, Bundle] | None:
    """What an earlier door of this boot left. Anything but evidence for this key is passed over."""
    try:
        with (directory / KEPT).open("rb") as file:
            value = parse_json(file.read(2 * MAX_BYTES), "kept evidence", max_bytes=2 * MAX_BYTES)
        match value:
            case {"key": str(said), "not_before": int(minute), "bundle": bundle} if said == b64u(key):
                return datetime.fromtimestamp(minute, UTC), Bundle.from_json(bundle)
    except (OSError, FormatError, OverflowError, ValueError):
        pass
    return None


def _keep(directory: Path, key: bytes, not_before: datetime, bundle: Bundle) -> None:
    value: JSON = {"key": b64u(key), "not_before": int(not_before.timestamp()), "bundle": bundle.to_json()}
    partial = directory / f".{KEPT}"
    try:
        partial.write_bytes(pack_json(value))
        partial.replace(directory / KEPT)
    except OSError as error:
        raise MachineError(f"{KEPT}: {(error.strerror or 'failed').lower()}") from error
