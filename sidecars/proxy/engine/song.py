"""What the engine answered its canary: the tokens, how likely each was, and whether another answer is the same.

An engine can go wrong and still answer with status 200: a stale buffer gives other tokens, a broken kernel gives NaN.
So the first answer of a boot is remembered and every later one must equal it. Two right answers differ in one way only:
where two tokens were about equally likely, the load of the moment may decide between them. There, and only there, the
comparison ends. About equally is what 16-bit logits cannot tell apart: between 16 and 32 they have steps of 0.125.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final, Self

from strongroom.errors import FormatError, MachineError, ProtocolError
from strongroom.wire.canonical import JSON, pack_json, parse_json

TIE: Final = 0.5  # nats between two tokens in each of two answers, up to which either may come
DRIFT: Final = 0.5  # nats by which the same token may be more or less likely than before
MAX_NOTES: Final = 64
LIKELY: Final = 5  # tokens that are shown with each place; the engine shows no more
_MAX_BYTES: Final = 16 * 1024
_MAX_LIKELY: Final = LIKELY + 1  # the one that came is shown even where it is not among them
_NUMBERED: Final = re.compile(r"token_id:([0-9]{1,10})")
_MILLI: Final = 1000  # remembered in thousandths of a nat: a whole number reads back as what was written


class ChangedError(ProtocolError):
    """A song that is well-formed, and not the one that was wanted."""


@dataclass(frozen=True, slots=True)
class Note:
    token: int
    logprob: float  # nats, of the token that came
    likely: Mapping[int, float]  # nats, of the likeliest tokens

    def may_be(self, other: int) -> bool:
        """Whether `other` was about as likely to come here, as far as was shown."""
        return other in self.likely and self.logprob - self.likely[other] <= TIE

    def to_json(self) -> JSON:
        likely: list[JSON] = [[token, _milli(logprob)] for token, logprob in sorted(self.likely.items())]
        return [self.token, _milli(self.logprob), likely]


@dataclass(frozen=True, slots=True)
class Song:
    notes: tuple[Note, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.notes) <= MAX_NOTES:
            raise ProtocolError("engine: the canary got an empty answer")
        shown = (number for note in self.notes for number in (note.logprob, *note.likely.values()))
        if not all(map(math.isfinite, shown)):
            raise ProtocolError("engine: the canary got numbers that are none")

    @classmethod
    def from_answer(cls, answer: JSON) -> Self:
        """The song in a completion that was asked for token ids and the likeliest tokens of each place by their ids.

        Raises ProtocolError for an empty answer, and for numbers that are missing or not finite.
        """
        match answer:
            case {"choices": [{"token_ids": [*tokens], "logprobs": {**shown}}]}:
                likely, top = shown.get("token_logprobs"), shown.get("top_logprobs")
                if (
                    isinstance(likely, list)
                    and isinstance(top, list)
                    and len(tokens) == len(likely) == len(top)
                ):
                    return cls(tuple(_note(*sung) for sung in zip(tokens, likely, top, strict=True)))
        raise ProtocolError("engine: the canary got an empty answer")

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(note.token for note in self.notes)

    def require_same(self, later: Self) -> None:
        """Raises ChangedError when `later` is not this song again."""
        for place, (note, again) in enumerate(zip_longest(self.notes, later.notes)):
            if note is None or again is None or abs(note.logprob - again.logprob) > DRIFT:
                raise ChangedError(f"engine: the canary's answer changed at token {place}")
            if note.token != again.token:
                if note.may_be(again.token) and again.may_be(note.token):
                    return  # what follows another token is another song
                raise ChangedError(f"engine: the canary's answer changed at token {place}")

    def require_tokens(self, expected: Sequence[int]) -> None:
        """Raises ChangedError when the song is not exactly these tokens."""
        if self.tokens != tuple(expected):
            raise ChangedError("engine: the canary's answer is not the one that was expected")

    def to_json(self) -> JSON:
        return [note.to_json() for note in self.notes]

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        return cls(tuple(_remembered(note) for note in (value if isinstance(value, list) else [value])))


def _remembered(value: JSON) -> Note:
    match value:
        case [int(token), int(logprob), [*likely]] if len(likely) <= _MAX_LIKELY:
            return Note(token, logprob / _MILLI, dict(map(_pair, likely)))
    raise _no_song()


def _pair(value: JSON) -> tuple[int, float]:
    match value:
        case [int(token), int(logprob)]:
            return token, logprob / _MILLI
    raise _no_song()


def _no_song() -> FormatError:
    return FormatError("canary: what was remembered is no song")


def _milli(nats: float) -> int:
    return round(nats * _MILLI)


def _note(token: JSON, likely: JSON, top: JSON) -> Note:
    if type(token) is not int or not isinstance(top, dict):
        raise ProtocolError("engine: the canary got an empty answer")
    if len(top) > _MAX_LIKELY:
        raise ProtocolError("engine: the canary was shown more than it asked for")
    shown = {name: _number(value) for name, value in top.items()}
    numbered = {int(found[1]): n for name, n in shown.items() if (found := _NUMBERED.fullmatch(name))}
    if len(numbered) != len(shown):
        raise ProtocolError("engine: the canary got an empty answer")
    return Note(token, _number(likely), numbered)


def _number(value: JSON) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProtocolError("engine: the canary got numbers that are none")
    return float(value)


class Songbook:
    """The boot's song, kept where a door that was restarted finds it. Without a path, only in this process."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._first: Song | None = None

    def require(self, song: Song) -> None:
        """Remember the boot's first song; raise ChangedError for a later one that is not the same.

        Raises MachineError when it cannot be kept or read.
        """
        first = self._first or self._read()
        if first is None:
            self._write(song)
            first = song
        first.require_same(song)
        self._first = first

    def _read(self) -> Song | None:
        if self._path is None:
            return None
        try:
            return Song.from_json(parse_json(self._path.read_bytes(), "canary", max_bytes=_MAX_BYTES))
        except FileNotFoundError:
            return None
        except (FormatError, ProtocolError) as error:
            raise MachineError(f"canary: {self._path} cannot be understood") from error
        except OSError as error:
            raise MachineError(f"canary: {self._path}: {(error.strerror or 'failed').lower()}") from error

    def _write(self, song: Song) -> None:
        if self._path is None:
            return
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            new.write_bytes(pack_json(song.to_json()))
            os.replace(new, self._path)  # whole or not at all, whatever kills us between
        except OSError as error:
            raise MachineError(f"canary: {self._path}: {(error.strerror or 'failed').lower()}") from error
