"""Numbers that are none, in what the engine answers: the sign that its memory or its arithmetic is broken.

A NaN among the probabilities means that the tokens beside it mean nothing, with status 200 and no error. Whoever sees
one rings the alarm, and the door closes: no client may get more from that engine. JSON has no NaN, so the engine shows
one as null, as a word that is no JSON, or as an error of its own encoder.
"""

import asyncio
import binascii
import math
import re
from array import array
from base64 import b64decode
from typing import Final, NoReturn

from sidecars.proxy.bodies import read_object
from sidecars.proxy.fields import Question
from sidecars.proxy.routes import Route
from strongroom.errors import ProtocolError
from strongroom.wire.canonical import JSON

_BARE: Final = rb'"[a-z_]*logprobs?":\s*(?:\[[-+0-9.eE,\snul]*)?-?(?:NaN|Infinity)'
_NULL: Final = rb'"logprob":\s*null|"token_logprobs":\s*\[\s*(?:null|[-+0-9.eE]+)\s*,[-+0-9.eE,\s]*null'
_FIRST: Final = rb'"token_logprobs":\s*\[\s*null'  # rightly so only for the first token of an echoed prompt
_SEEN: Final = re.compile(b"|".join((_BARE, _NULL, _FIRST)))
_SEEN_ECHOED: Final = re.compile(b"|".join((_BARE, _NULL)))
_VECTOR: Final = re.compile(rb'"embedding":\s*\[[-+0-9.eE,\s]*(?:null|-?NaN|-?Infinity)')
_ENCODED: Final = re.compile(rb'"embedding":\s*"([^"\\]*)"')
_ENCODER: Final = re.compile(
    r"Out of range float values are not JSON compliant(?:: (?:nan|-?inf))?"
)  # all that the engine's JSON encoder says of a NaN
_HINT: Final = b"not JSON compliant"
_REPORTED: Final = {400, 500}  # statuses with which it says so, by version
_FLOAT: Final = 4  # bytes
_MAX_EVENT: Final = 1 << 20  # bytes of an event that has not ended


class GarbageError(ProtocolError):
    """The engine answered with numbers that are none. Nothing else it says can be believed."""

    def __init__(self) -> None:
        super().__init__("engine: it answered with numbers that are none")


class Alarm:
    """Rung by whoever sees garbage; the door's life waits for it."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._why: ProtocolError = GarbageError()

    def ring(self, why: ProtocolError) -> None:
        if not self._rung.is_set():
            self._why = why
            self._rung.set()

    async def wait(self) -> NoReturn:
        """Never returns; raises what it was rung for."""
        await self._rung.wait()
        raise self._why


class GarbageWatch:
    """Reads along with one answer, where it shows probabilities or vectors. Other answers cost nothing."""

    def __init__(self, route: Route, question: Question) -> None:
        self._pattern: re.Pattern[bytes] | None = None
        if route is Route.EMBEDDING:
            self._pattern = _VECTOR
        elif question.logprobs:
            self._pattern = _SEEN_ECHOED if question.fields.get("echo") is True else _SEEN
        self._tail = b""

    def seen(self, piece: bytes) -> None:
        """The next piece of a stream. Raises GarbageError. No text can imitate the marks: JSON escapes quotes."""
        if self._pattern is None:
            return
        seen = self._tail + piece
        if self._pattern.search(seen):
            raise GarbageError
        self._tail = seen[seen.rfind(b"\n") + 1 :][-_MAX_EVENT:]

    def whole(self, status: int, body: bytes) -> None:
        """An answer that is not streamed, before it is parsed. Raises GarbageError."""
        if status in _REPORTED and _HINT in body and _is_encoders(body):
            raise GarbageError
        if status == 200:
            self.seen(body)
            if self._pattern is _VECTOR and not all(map(_finite_floats, _ENCODED.findall(body))):
                raise GarbageError


def finite(vector: JSON) -> bool:
    """Whether an embedding is numbers throughout, as a list or as base64 of 32-bit floats."""
    if isinstance(vector, str):
        return _finite_floats(vector.encode())
    return isinstance(vector, list) and all(
        isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        for number in vector
    )


def _finite_floats(encoded: bytes) -> bool:
    try:
        raw = b64decode(encoded, validate=True)
    except binascii.Error:
        return False
    # what a NaN or an infinity is added to is none either, and 32-bit numbers cannot become one by being added
    return len(raw) % _FLOAT == 0 and math.isfinite(sum(array("f", raw)))


def _is_encoders(body: bytes) -> bool:
    """Whether an error is the encoder's, to the last letter: other messages quote the question."""
    match (read_object(body) or {}).get("error"):
        case {"message": str(message)}:
            return _ENCODER.fullmatch(message) is not None
    return False
