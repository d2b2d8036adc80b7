"""The boot record as the agent shows it, asked for at most every few seconds, however many look at it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from strongroom.errors import FormatError, StrongroomError
from strongroom.host.foreign import request_boot
from strongroom.wire.canonical import JSON

FRESH: Final = 5.0  # seconds
PATIENCE: Final = 5.0  # seconds for the agent's answer
MAX_STAGES: Final = 64
_MAX_TEXT: Final = 128  # characters
_MAX_NUMBER: Final = 2**53


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    outcome: str
    ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What the agent shows of this boot; what it does not say is None, or nothing."""

    state: str
    started_at: int | None = None  # unix seconds
    words: str | None = None
    userdata_sha256: str | None = None
    gpus: int | None = None  # that work was let in to; None until it was
    agent_ms: int | None = None
    engine_ms: int | None = None
    stages: tuple[Stage, ...] = ()
    raw: Mapping[str, JSON]

    @classmethod
    def from_json(cls, value: Mapping[str, JSON]) -> Self:
        """FormatError for a record that is not the agent's."""
        stages = value.get("stages", [])
        if not isinstance(stages, list) or len(stages) > MAX_STAGES:
            raise FormatError(f"boot record: want a list of at most {MAX_STAGES} stages")
        return cls(
            state=_text(value, "state") or "unknown",
            started_at=_whole(value, "started_at"),
            words=_text(value, "words"),
            userdata_sha256=_text(value, "userdata_sha256"),
            gpus=_whole(value, "gpus"),
            agent_ms=_whole(value, "agent_ms"),
            engine_ms=_whole(value, "engine_ms"),
            stages=tuple(map(_stage, stages)),
            raw=value,
        )


class BootRecord:
    """`clock` is any that only goes forward, in seconds."""

    def __init__(self, evidence_socket: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._socket, self._clock = evidence_socket, clock
        self._turn = asyncio.Lock()
        self._kept: Boot | None = None
        self._until = 0.0

    async def latest(self) -> Boot | None:
        """The record of a few seconds ago at most; the last one there was, or None, while the agent does not answer."""
        if self._clock() < self._until:
            return self._kept
        async with self._turn:
            if self._clock() >= self._until:
                with suppress(StrongroomError):  # what was true of this boot still is
                    self._kept = Boot.from_json(await request_boot(self._socket, timeout=PATIENCE))
                self._until = self._clock() + FRESH
        return self._kept


def _stage(value: JSON) -> Stage:
    match value:
        case {"name": str(name), "outcome": str(outcome), "ms": int(ms)} if 0 <= ms < _MAX_NUMBER:
            return Stage(name[:_MAX_TEXT], outcome[:_MAX_TEXT], ms)
    raise FormatError("boot record: a stage has no name, outcome and ms")


def _text(value: Mapping[str, JSON], name: str) -> str | None:
    text = value.get(name)
    return text[:_MAX_TEXT] if isinstance(text, str) else None


def _whole(value: Mapping[str, JSON], name: str) -> int | None:
    number = value.get(name)
    return number if type(number) is int and 0 <= number < _MAX_NUMBER else None
