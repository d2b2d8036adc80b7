"""Chunked bodies (RFC 9112, 7.1) as we take them: sizes in plain hex, no extensions, no trailers, CRLF only.

What those would say nobody here would hear, and two readers that differ about them differ about where a body ends.
"""

import re
from typing import Final

from strongroom.errors import FormatError

_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,8}")
_SIZE_BEGUN: Final = re.compile(rb"[0-9A-Fa-f]{1,8}\r?")
_MAX_LINE: Final = 10  # bytes of a size and its CRLF


class ChunkReader:
    """feed() gives the body's bytes. Once `over`, `rest` is what followed it."""

    __slots__ = ("_data", "_held", "_last", "_left", "chunks", "over", "rest")

    def __init__(self) -> None:
        self.over = False
        self.rest = b""
        self.chunks = 0  # that began, without the last
        self._left = 0  # bytes that the chunk lacks
        self._data = False  # in a chunk's bytes, or right behind them
        self._last = False  # behind the size of the last chunk
        self._held = b""  # the beginning of a line

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in `data`, perhaps none. FormatError where the framing is broken."""
        if self._held:
            data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            if left := self._left:
                piece = data[at : at + left]
                pieces.append(piece)
                at += len(piece)
                self._left = left - len(piece)
                continue
            line = data.find(b"\r\n", at, at + _MAX_LINE)
            if line < 0:
                self._hold(data[at:])
                break
            if line > at:
                self._begin(data[at:line])
            elif self._last:
                self.over, self.rest = True, data[line + 2 :]
                break
            elif self._data:
                self._data = False
            else:
                raise FormatError("chunk: no size")
            at = line + 2
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _begin(self, size: bytes) -> None:
        if self._data or self._last or not _SIZE.fullmatch(size):
            raise FormatError("chunk: the framing is broken")
        if left := int(size, 16):
            self._left = left
            self._data = True
            self.chunks += 1
        else:
            self._last = True

    def _hold(self, begun: bytes) -> None:
        ends = self._data or self._last
        if (begun != b"\r") if ends else not _SIZE_BEGUN.fullmatch(begun):
            raise FormatError("chunk: the framing is broken")
        self._held = begun
