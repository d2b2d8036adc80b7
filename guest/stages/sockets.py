"""Keys -> Sockets: the key socket gets what it derives from, and answers the programs of this machine.

broker      a secret of the broker's: the same wherever and whenever the policy of its resource is met
vtpm        a secret sealed in the TPM to the programs that run, and the rules of userdata: this machine alone
ephemeral   made anew at every boot
"""

import asyncio
import secrets
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from guest.config import Config, LocalKeys
from guest.foreign import programs_quote
from guest.keysock.plan import PLAN, ROOT, UNIT, Origin, Plan, app_keys
from guest.keysock.rights import Rights
from guest.machine import units
from guest.machine.firmware_log import firmware_log
from guest.machine.tpm import opened
from guest.machine.tpm_seal import kept_secret
from guest.stages.keys import Keys
from guest.system import System
from strongroom.broker.resource import ResourceURI
from strongroom.errors import ConfigError, FormatError, MachineError
from strongroom.evidence.dstack_identity import MAX_COMPOSE
from strongroom.wire.canonical import pack_json

TIMEOUT: Final = 60.0  # seconds
SIZE: Final = 32  # bytes of a root
_SALT: Final = b"strongroom/keys-root/vtpm/v1"


@dataclass(frozen=True, slots=True)
class Sockets:
    keys: Keys


async def open_sockets(system: System, keys: Keys) -> Sockets:
    """Raises StrongroomError when the root cannot be had, or the key socket does not come up with it."""
    config = keys.workload.config
    plan, root = await _settled(system, config)
    system.grants.grant(UNIT, PLAN, plan.pack())
    system.grants.grant(UNIT, ROOT, root)
    system.applications.raw = config.keys is not None and plan.rights.raw_quote
    system.applications.quotes = programs_quote(config)
    system.applications.events = config.keys is not None and not plan.strict
    await units.start(UNIT, timeout=TIMEOUT)
    return Sockets(keys=keys)


async def _settled(system: System, config: Config) -> tuple[Plan, bytes]:
    keys = config.keys
    if keys is None:
        return _plan(config, None, Rights(others=False)), secrets.token_bytes(
            SIZE
        )  # of which nothing is made
    origin, root = await _rooted(system, config, keys)
    try:
        public = app_keys(root).app_root_public
    except FormatError as error:
        raise FormatError(f"keys root: {error}") from None
    await system.attester.extend("keys-root", pack_json({**origin.to_json(), "public": public.hex()}))
    system.record.note(keys={**origin.to_json(), "public": public.hex()})
    return _plan(config, origin, keys.rights), root


async def _rooted(system: System, config: Config, keys: LocalKeys) -> tuple[Origin, bytes]:
    """Where the root is from, and the root."""
    origin = Origin(kind=keys.root, epoch=keys.epoch)
    if keys.resource is not None:
        return await _from_broker(system, config, keys.resource, keys.epoch)
    if keys.root == "vtpm":
        return origin, await asyncio.to_thread(_from_vtpm, system, keys.rights)
    return origin, secrets.token_bytes(SIZE)


async def _from_broker(system: System, config: Config, resource: str, epoch: int) -> tuple[Origin, bytes]:
    session = await system.broker.session(config.broker)
    with await session.get(ResourceURI.parse(resource)) as secret:
        origin = Origin(kind="broker", resource=resource, provider=session.broker_spki_sha256, epoch=epoch)
        return origin, secret.reveal()


def _from_vtpm(system: System, rights: Rights) -> bytes:
    """The TPM knows the programs; the rules are the host's to change, so others of them lead to other keys."""
    if system.tpm is None:
        raise ConfigError(
            "strongroom.keys.root: got 'vtpm', and this machine has none, want broker or ephemeral"
        )
    with opened(system.tpm) as tpm:
        sealed = kept_secret(tpm, secrets.token_bytes(SIZE))
    if len(sealed) != SIZE:
        raise MachineError(f"keys root: the tpm keeps {len(sealed)} bytes, want {SIZE}")
    return HKDF(SHA256(), SIZE, _SALT, pack_json(rights.to_json())).derive(sealed)


def _plan(config: Config, origin: Origin | None, rights: Rights) -> Plan:
    keys = config.keys
    app_id = keys.app_id if keys is not None else None
    return Plan(
        name=config.model.name,
        app_id=bytes.fromhex(app_id or ""),
        userdata_sha256=config.userdata_sha256,
        userdata=config.userdata if len(config.userdata.encode()) <= MAX_COMPOSE else "",
        origin=origin,
        rights=rights,
        strict=keys is None or keys.strict,
        firmware=firmware_log(),
    )
