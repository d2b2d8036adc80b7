"""The agent's evidence socket over simulated silicon: it answers whoever asks, and can be told to refuse.

`make` is whatever makes bundles there, by default a chip that makes SNP reports.
"""

import asyncio
from functools import partial
from pathlib import Path
from typing import Protocol

from demo.silicon.mint import Silicon
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import EventLog
from strongroom.host.evidence import MAX_BYTES
from strongroom.wire.canonical import JSON, pack_json, parse_json, unb64u
from strongroom.wire.framing import FrameReader, frame
from tests.fakes.silicon import bundle


class Make(Protocol):
    def __call__(self, *, purpose: Purpose, challenge: bytes, key: bytes, events: EventLog) -> Bundle: ...


class Agent:
    def __init__(self, chip: Silicon, events: EventLog, make: Make | None = None) -> None:
        self.chip, self.events = chip, events
        self.make = make or partial(bundle, chip)
        self.refusal: str | None = None
        self.asked: list[Purpose] = []
        self._server: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        self._server = await asyncio.start_unix_server(self._answer, path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames, questions = FrameReader(), list[bytes]()
        while not questions:
            questions = frames.feed(await reader.read(4096))
        writer.write(frame(pack_json(self._reply(questions[0])), max_frame=MAX_BYTES))
        await writer.drain()
        writer.close()

    def _reply(self, question: bytes) -> JSON:
        if self.refusal is not None:
            return {"error": self.refusal}
        value = parse_json(question, "question")
        assert isinstance(value, dict)
        purpose = Purpose(str(value["purpose"]))
        self.asked.append(purpose)
        made = self.make(
            purpose=purpose,
            challenge=unb64u(str(value["challenge"]), "challenge"),
            key=unb64u(str(value["key"]), "key"),
            events=self.events,
        )
        return {"bundle": made.to_json()}
