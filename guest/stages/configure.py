"""userdata -> Config: hash the raw bytes, put the hash in the log, and only then look at them."""

import asyncio

from guest import config
from guest.config import Config
from guest.system import System
from guest.userdata import read_seed


async def configure(system: System) -> Config:
    userdata = await asyncio.to_thread(read_seed, system.seed)
    system.record.note(userdata_sha256=userdata.sha256.hex())
    await system.attester.extend("userdata", userdata.sha256)
    return config.parse(userdata)
