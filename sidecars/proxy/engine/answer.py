"""The client's half of HTTP/1.1, sans-IO, as much of it as an engine speaks.

The engine is measured, but it parses what strangers wrote: so its framing is read as strictly as theirs. An answer that
only the connection's end would end is refused, because its truncation could not be seen.
"""

import re
from typing import Final, NamedTuple

from strongroom.errors import FormatError
from strongroom.host.door.chunks import ChunkReader

MAX_HEAD: Final = 64 * 1024  # bytes
_HEAD: Final = re.compile(
    rb"HTTP/1\.([01]) ([2-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n"
)
_LINE: Final = re.compile(
    rb"^(content-length|content-type|transfer-encoding|connection):[ \t]*([^\r]*?)[ \t]*\r$",
    re.IGNORECASE | re.MULTILINE,
)
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class EngineHead(NamedTuple):
    status: int
    content_type: str

    @property
    def streams(self) -> bool:
        return self.content_type.partition(";")[0].strip().lower() == "text/event-stream"


class AnswerReader:
    """One answer. feed() gives what came of its body."""

    __slots__ = ("_begun", "_chunks", "_left", "head", "keeps", "over", "rest")

    def __init__(self) -> None:
        self.head: EngineHead | None = None
        self.over = False
        self.keeps = True  # the connection may carry another request
        self.rest = b""  # what followed the answer
        self._begun = b""  # of a head that is not whole
        self._left = 0  # bytes of the body to come, where a length says so
        self._chunks: ChunkReader | None = None

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in `data`, perhaps none. FormatError where it is no HTTP."""
        if self.head is None:
            data = self._read_head(self._begun + data if self._begun else data)
            if self.head is None:
                return b""
        if self._chunks is not None:
            body = self._chunks.feed(data)
            self.over, self.rest = self._chunks.over, self._chunks.rest
            return body
        if len(data) > self._left:
            data, self.rest = data[: self._left], data[self._left :]
        self._left -= len(data)
        self.over = not self._left
        return data

    def _read_head(self, data: bytes) -> bytes:
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD) + 4
        if end < 4:
            if len(data) >= MAX_HEAD:
                raise FormatError(f"engine: a head of more than {MAX_HEAD} bytes")
            self._begun = data
            return b""
        if not (found := _HEAD.fullmatch(data, 0, end)):
            raise FormatError("engine: the head is malformed")
        lines = _LINE.findall(found[3])
        said = {name.lower(): value for name, value in lines}
        if len(said) < len(lines):
            raise FormatError("engine: a header appears twice")
        self._read_framing(said.get(b"content-length"), said.get(b"transfer-encoding"))
        self.keeps = found[1] == b"1" and said.get(b"connection", b"").lower() != b"close"
        self.head = EngineHead(int(found[2]), said.get(b"content-type", b"").decode("latin-1"))
        self._begun = b""
        return data[end:]

    def _read_framing(self, length: bytes | None, encoding: bytes | None) -> None:
        if encoding is not None:
            if length is not None or encoding.lower() != b"chunked":
                raise FormatError("engine: the framing is not one of a length and chunks")
            self._chunks = ChunkReader()
        elif length is None:
            raise FormatError("engine: nothing says where its answer ends")
        elif not _LENGTH.fullmatch(length):
            raise FormatError("engine: the length is no number")
        else:
            self._left = int(length)
