"""A model's words out of an OpenAI-style answer's bytes, streamed (server-sent events) or whole (JSON)."""

from typing import Final, Protocol

from strongroom.errors import FormatError, ProtocolError
from strongroom.wire.canonical import JSON, parse_json

MAX_EVENT: Final = 1 << 20  # bytes of one line of a stream
MAX_WHOLE: Final = 64 << 20
_DEPTH: Final = 64


class Answer(Protocol):
    """feed() takes body bytes in pieces of any size and gives the words that became known."""

    finish: str | None  # why the model stopped: "stop", "length", ...

    def feed(self, data: bytes) -> str: ...
    def end(self) -> str: ...


class StreamedAnswer:
    """Words from `data:` events. Comments and other fields are passed over."""

    def __init__(self) -> None:
        self.finish: str | None = None
        self._line = bytearray()
        self._done = False

    def feed(self, data: bytes) -> str:
        self._line += data
        *lines, rest = self._line.split(b"\n")
        if len(rest) > MAX_EVENT:
            raise FormatError(f"answer: an event is longer than {MAX_EVENT} bytes")
        self._line = rest
        return "".join(self._words(bytes(line).removesuffix(b"\r")) for line in lines)

    def end(self) -> str:
        """Nothing more; raises ProtocolError unless the stream said [DONE]."""
        if not self._done:
            raise ProtocolError("answer: the stream ended without [DONE]")
        return ""

    def _words(self, line: bytes) -> str:
        field, _, value = line.partition(b":")
        if field != b"data":
            return ""
        if self._done:
            raise ProtocolError("answer: events after [DONE]")
        if (payload := value.strip(b" ")) == b"[DONE]":
            self._done = True
            return ""
        choice = _choice(parse_json(payload, "answer", max_bytes=MAX_EVENT, max_depth=_DEPTH, floats=True))
        self.finish = _text(choice, "finish_reason") or self.finish
        return _text(choice.get("delta"), "content") or ""


class WholeAnswer:
    """Words from one JSON object, known only at its end."""

    def __init__(self) -> None:
        self.finish: str | None = None
        self._body = bytearray()

    def feed(self, data: bytes) -> str:
        self._body += data
        return ""

    def end(self) -> str:
        value = parse_json(
            bytes(self._body),
            "answer",
            max_bytes=MAX_WHOLE,
            max_depth=_DEPTH,
            max_values=MAX_WHOLE // 8,
            floats=True,
        )
        choice = _choice(value)
        self.finish = _text(choice, "finish_reason")
        if (words := _text(choice.get("message"), "content")) is None:
            raise FormatError("answer: no message content in it")
        return words


def _choice(value: JSON) -> dict[str, JSON]:
    """The first choice, empty when there is none (an event with usage only)."""
    match value:
        case {"error": error}:
            raise ProtocolError(f"answer: the server stopped: {_text(error, 'message') or 'no reason given'}")
        case {"choices": [dict(choice), *_]}:
            return choice
        case {"choices": []}:
            return {}
    raise FormatError("answer: an event without choices")


def _text(value: JSON, key: str) -> str | None:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None
