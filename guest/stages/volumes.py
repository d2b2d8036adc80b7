"""Sockets -> StateVolumes: what programs write to, encrypted, each mounted by a unit of its own.

All keys come before anything is mounted, over the one session with the broker. What is said of the volumes is in the
event log before any of them can be read.
"""

from dataclasses import dataclass
from typing import Final

from guest.config import Config
from guest.machine import mounts, units
from guest.stages.keys import Release
from guest.stages.sockets import Sockets
from guest.system import System
from guest.volumes import StateVolume
from strongroom.broker.resource import KEY_BYTES, ResourceURI, VolumeKey
from strongroom.errors import FormatError, MachineError
from strongroom.host.notify import notify
from strongroom.host.release import BrokerSession
from strongroom.wire.canonical import JSON, pack_json

EVENT: Final = "volumes"
TIMEOUT: Final = 75.0  # seconds: longer than the unit has itself, so that the last word is its own
_EXTEND: Final = 120  # seconds by which each mount extends systemd's patience


@dataclass(frozen=True, slots=True)
class StateVolumes:
    """Every volume that userdata name is mounted."""

    sockets: Sockets


async def mount_volumes(system: System, sockets: Sockets) -> StateVolumes:
    """Raises as BrokerSession.get() does, FormatError for what is no key, and what ended the unit of a volume."""
    config = sockets.keys.workload.config
    if config.volumes:
        await _obtain(system, config)
        for volume in config.volumes:
            notify(f"EXTEND_TIMEOUT_USEC={_EXTEND * 1_000_000}")
            await _mount(volume)
    return StateVolumes(sockets=sockets)


async def _obtain(system: System, config: Config) -> None:
    session = await system.broker.session(config.broker)
    releases = [await _granted(system, session, volume) for volume in config.volumes]
    told: list[JSON] = [
        {"key": volume.key, **_shown(volume, release)}
        for volume, release in zip(config.volumes, releases, strict=True)
    ]
    event: JSON = {"broker_spki_sha256": session.broker_spki_sha256.hex(), "volumes": told}
    await system.attester.extend(EVENT, pack_json(event))
    system.record.note(
        volumes=[
            {"mount": volume.mount, **_shown(volume, release)}
            for volume, release in zip(config.volumes, releases, strict=True)
        ]
    )


async def _granted(system: System, session: BrokerSession, volume: StateVolume) -> Release | None:
    """What pins the volume, if anything does, once its unit may load what it needs."""
    with await session.get(ResourceURI.parse(volume.key)) as secret:
        key, release = _key(volume, secret.reveal())
    system.grants.grant(volume.unit, "volume", pack_json(_request(volume, release)))
    system.grants.grant(volume.unit, "model-key", key)
    return release


def _key(volume: StateVolume, secret: bytes) -> tuple[bytes, Release | None]:
    if volume.side is not None:
        try:
            pinned = VolumeKey.parse(secret)
        except FormatError as error:
            raise FormatError(f"volume {volume.name}: {volume.key}: {error}") from None
        return pinned.key, Release(pinned.root, pinned.epoch)
    if len(secret) != KEY_BYTES:
        raise FormatError(
            f"volume {volume.name}: {volume.key} is no key of {KEY_BYTES} bytes, as one without a side manifest has"
        )
    return secret, None


def _request(volume: StateVolume, release: Release | None) -> JSON:
    request: dict[str, JSON] = {"source": volume.source, "mount": volume.mount, "format": "gocryptfs"}
    if not volume.read_only:
        return {**request, "writable": True}
    request["mode"] = "stream"  # the memory is the model's
    if release is not None:
        request |= {"side": volume.side, "root": release.root.hex(), "epoch": release.epoch}
    return request


def _shown(volume: StateVolume, release: Release | None) -> dict[str, JSON]:
    shown: dict[str, JSON] = {"name": volume.name, "read_only": volume.read_only}
    if release is not None:
        shown |= {"root": release.root.hex(), "epoch": release.epoch}
    return shown


async def _mount(volume: StateVolume) -> None:
    await units.start(volume.unit, timeout=TIMEOUT)
    if (found := mounts.type_at(volume.mount)) != mounts.OURS:
        raise MachineError(
            f"volume {volume.name}: {volume.unit} is ready, and at {volume.mount} is {found or 'no mount'}"
        )
