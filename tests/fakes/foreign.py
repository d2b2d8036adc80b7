"""The agent's evidence socket with everything the door asks there: our own evidence, others' reports, the boot record.

What answers for others is the guest's own code over simulated silicon, so that its rules hold here too.
"""

import asyncio
from pathlib import Path
from typing import Final

from guest.attester import Attester
from guest.evidence import DOOR_UNIT
from guest.foreign import ForeignEvidence
from guest.machine.rtmr import RTMR
from guest.machine.tsm import Silicon
from guest.record import Record
from guest.stages.serve import UNITS
from strongroom.errors import StrongroomError
from strongroom.evidence.dstack_log import Log
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.gpu import GPUEvidence
from strongroom.host.evidence import MAX_BYTES
from strongroom.host.foreign import Foreign
from strongroom.receipts.keys import DoorKeys
from strongroom.wire.canonical import JSON, pack_json, parse_json
from strongroom.wire.framing import FrameReader, frame
from tests.fakes.agent import Agent
from tests.fakes.exchange import ENGINE, MODEL, events
from tests.fakes.keysock import FakeTSM
from tests.fakes.silicon import MEASUREMENT, silicon

STAGES: Final = {
    "configure": 12, "measure": 148, "keys": 412, "sockets": 230, "receive": 0, "mount": 97, "certify": 655,
    "tunnel": 0, "gpu": 3, "serve": 21340,
}  # fmt: skip
USERDATA: Final = bytes(32)
KEYS: Final = DoorKeys.from_secret(bytes(range(32)))  # of the fake doors' secret


class House:
    """The guest behind the socket: its silicon, its log, its record."""

    def __init__(
        self,
        directory: Path,
        *,
        tsm: Silicon | None = None,
        log: EventLog | None = None,
        devices: tuple[GPUEvidence, ...] = (),
        firmware: Log = (),
        follows: bool = True,
        keys: DoorKeys = KEYS,
        gpus: bool = False,
    ) -> None:
        """`keys` are the door's; `gpus` is whether userdata lets GPUs answer here."""
        self.nonces: list[bytes] = []
        self.tsm = tsm or FakeTSM()
        self.log = log or events()
        self.programs_quote = False
        self.record = recorded(directory / "boot.json")
        self._devices = devices
        rtmr = self.tsm if isinstance(self.tsm, RTMR) and follows else None
        self.attester = Attester(self.tsm, rtmr=rtmr, devices=self._evidence)
        self.foreign = ForeignEvidence(
            self.attester,
            self.record,
            keys=keys,
            units=UNITS,
            programs_quote=lambda: self.programs_quote,
            firmware=lambda: firmware,
        )
        self.foreign.gpus = gpus
        self._extended = False

    async def reply(self, value: dict[str, JSON], unit: str = DOOR_UNIT) -> dict[str, JSON]:
        if not self._extended:
            self._extended = True
            for event in self.log.events:
                await self.attester.extend(event.name, event.payload)
        return await self.foreign.reply(unit, value)

    async def _evidence(self, nonce: bytes) -> tuple[GPUEvidence, ...]:
        self.nonces.append(nonce)
        return self._devices


class HouseAgent(Agent):
    """The fake agent, which also answers what is not for evidence of our own."""

    def __init__(self, house: House) -> None:
        super().__init__(silicon(), house.log)
        self.house = house

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames, questions = FrameReader(), list[bytes]()
        while not questions and (data := await reader.read(4096)):
            questions = frames.feed(data)
        if questions:
            writer.write(frame(pack_json(await self._said(questions[0])), max_frame=MAX_BYTES))
            await writer.drain()
        writer.close()

    async def _said(self, question: bytes) -> JSON:
        value = parse_json(question, "question")
        assert isinstance(value, dict)
        if self.refusal is None and value.get("purpose") in {*Foreign}:
            try:
                return await self.house.reply(value)
            except StrongroomError as error:
                return {"error": str(error)}
        return self._reply(question)


def recorded(path: Path) -> Record:
    """The record of a boot that serves."""
    record = Record(path)
    stages = [{"name": name, "outcome": "ok", "ms": ms} for name, ms in STAGES.items()]
    record.note(
        state="serving",
        started_at=1795176000,
        measurement=MEASUREMENT.hex(),
        words="babab-babad-babah-babaj",
        userdata_sha256=USERDATA.hex(),
        model=MODEL.to_json(),
        engine=ENGINE.to_json(),
        stages=stages,
        agent_ms=1557,
        engine_ms=21340,
        gpus=0,
        keys={"root": "broker", "resource": "kbs:///default/keys/root"},
    )
    return record
