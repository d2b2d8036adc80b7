"""userdata -> Config: hash the raw bytes, put the hash in the log, only then look at them. Init-data comes first."""

import asyncio
from hashlib import sha256

from guest import config
from guest.config import Config
from guest.initdata import EVENT, carried, check_named
from guest.system import System
from guest.userdata import Userdata, has_userdata, read_init_data, read_seed
from strongroom.errors import ConfigError
from strongroom.evidence.initdata import InitData, delivered_text


async def configure(system: System) -> Config:
    init_data = await _init_data(system)
    userdata = await asyncio.to_thread(_userdata, system, init_data)
    system.record.note(userdata_sha256=userdata.sha256.hex())
    await system.attester.extend("userdata", userdata.sha256)
    if init_data is not None and carried(init_data) is None:
        check_named(init_data, userdata)
    return config.parse(userdata, init_data)


async def _init_data(system: System) -> InitData | None:
    delivered = await asyncio.to_thread(read_init_data, system.seed)
    if delivered is None:
        return None
    raw = delivered_text(delivered)
    await system.attester.extend(EVENT, sha256(raw).digest())
    init_data = InitData.of(raw)
    system.record.note(init_data={"algorithm": init_data.algorithm, "digest": init_data.digest.hex()})
    return init_data


def _userdata(system: System, init_data: InitData | None) -> Userdata:
    inside = None if init_data is None else carried(init_data)
    if inside is None:
        return read_seed(system.seed)
    if has_userdata(system.seed):
        raise ConfigError("userdata: in the init-data and in the seed, want it in one of them")
    return inside
