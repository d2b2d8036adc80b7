"""SHA-256 over a body that comes in pieces, and over a stream of events without its comments.

A comment of an event stream is a block of one line: at the body's beginning or after two line feeds, a colon, at most
65,536 printable characters of ASCII, and two line feeds, unless a byte order mark follows. No reader of events sees it,
so the door may put some between events: to keep a silent connection alive, to hide lengths, to hand out the receipt
itself. A receipt for a stream speaks for the body without them.

Only ASCII, because readers differ on where a line ends (U+2028, and some control characters) and on bytes that are no
UTF-8: what one of them shows, a receipt has to speak for. A byte order mark means nothing but at the very beginning.
"""

import re
from hashlib import sha256
from typing import Final

MAX_COMMENT: Final = 65536  # bytes between the colon and the line's end
RECEIPT_COMMENT: Final = b": strongroom-receipt "
_START: Final = b"\n\n:"
_BOM: Final = b"\xef\xbb\xbf"
_COMMENT: Final = re.compile(rb":[ -~]{0,%d}+\n\n" % MAX_COMMENT)
_BEGUN: Final = re.compile(rb":[ -~]{0,%d}+\n?" % MAX_COMMENT)


class BodyHash:
    """Hash and length of body bytes, however they were cut; framing (chunk sizes) is never part of it."""

    def __init__(self) -> None:
        self._hash = sha256()
        self.length = 0  # bytes

    def update(self, data: bytes) -> None:
        self._hash.update(data)
        self.length += len(data)

    def digest(self) -> bytes:
        """SHA-256 of everything so far, 32 bytes; more may follow."""
        return self._hash.digest()


class StreamHash(BodyHash):
    """The same of an event stream without its comments. `length` counts what was hashed."""

    def __init__(self) -> None:
        super().__init__()
        self._receipts = list[bytes]()
        self._first = True  # no byte has come
        self._before = b""  # the last two bytes of the stream
        self._held = b""  # what may be a comment, from its colon on, and at most two bytes after it

    @property
    def receipts(self) -> list[bytes]:
        """What the receipt comments held, of the first two of them."""
        comment = _COMMENT.match(self._held)
        return [*self._receipts, *(_carried(comment[0]) if comment else ())][:2]

    def update(self, data: bytes) -> None:
        if self._first and data:
            self._first = False
            self._before = b"\n\n" if data[:1] == b":" else b""  # the beginning is as good as a blank line
        seen = self._before + self._held + data
        if self._held or _START in seen:
            self._sort(seen, len(self._before))
        else:
            super().update(data)
            self._before = seen[-2:]

    def _sort(self, seen: bytes, at: int) -> None:
        self._held = b""
        while (colon := seen.find(_START, max(0, at - 2)) + 2) >= 2:
            super().update(seen[at:colon])
            comment = _COMMENT.match(seen, colon)
            after = seen[comment.end() : comment.end() + len(_BOM)] if comment else b""
            if (comment or _BEGUN.fullmatch(seen, colon)) and after != _BOM and _BOM.startswith(after):
                self._before, self._held = seen[colon - 2 : colon], seen[colon:]  # what comes next decides
                return
            if comment and after != _BOM:
                self._receipts += _carried(comment[0])
                at = comment.end()
            else:
                super().update(b":")
                at = colon + 1
        super().update(seen[at:])
        self._before = seen[-2:]

    def digest(self) -> bytes:
        whole, comment = self._hash.copy(), _COMMENT.match(self._held)
        whole.update(self._held[comment.end() :] if comment else self._held)  # the body ended here
        return whole.digest()


def _carried(comment: bytes) -> list[bytes]:
    return [comment[len(RECEIPT_COMMENT) : -2]] if comment.startswith(RECEIPT_COMMENT) else []
