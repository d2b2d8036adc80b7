"""A cursor over DER, for the few structures that no X.509 library reads for us.

Definite lengths in their shortest form only, and tags of one byte: everything else is BER (X.690 section 10).
"""

from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.wire.reader import Reader

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
ENUMERATED: Final = 0x0A
SEQUENCE: Final = 0x30
MAX_OID: Final = 32  # bytes


class DER:
    """Reads the elements of `data` from the front; whatever else is found is a FormatError naming `subject`."""

    __slots__ = ("_reader", "_subject")

    def __init__(self, data: bytes, subject: str) -> None:
        self._reader = Reader(data, subject)
        self._subject = subject

    @property
    def more(self) -> bool:
        """Whether an element follows."""
        return self._reader.remaining > 0

    def element(self) -> tuple[int, bytes]:
        """The tag of the next element, whichever it is, and what it holds."""
        return self._reader.u8(), self._reader.take(self._length())

    def content(self, tag: int) -> bytes:
        """What the next element holds, which must carry `tag`."""
        if (found := self._reader.u8()) != tag:
            raise FormatError(f"{self._subject}: der tag is {found:#04x}, want {tag:#04x}")
        return self._reader.take(self._length())

    def inside(self) -> Self:
        """A cursor over the elements of the next element, a SEQUENCE."""
        return type(self)(self.content(SEQUENCE), self._subject)

    def oid(self) -> str:
        """The next element, an OBJECT IDENTIFIER, in dotted form."""
        arcs, value, fresh = [], 0, True
        content = self.content(OBJECT_IDENTIFIER)
        if len(content) > MAX_OID:
            raise FormatError(
                f"{self._subject}: object identifier is {len(content)} bytes, want at most {MAX_OID}"
            )
        for byte in content:
            if fresh and byte == 0x80:
                raise FormatError(f"{self._subject}: object identifier has a padded arc")
            value, fresh = value << 7 | byte & 0x7F, byte < 0x80
            if fresh:
                arcs.append(value)
                value = 0
        if not arcs or not fresh:
            raise FormatError(f"{self._subject}: object identifier {content[:32].hex()} is cut off")
        first = min(arcs[0] // 40, 2)
        return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))

    def integer(self, *, most: int, tag: int = INTEGER) -> int:
        """The next element, an INTEGER (or ENUMERATED, by `tag`) of 0..`most`."""
        content = self.content(tag)
        value = int.from_bytes(content, "big", signed=True)
        shortest = value.bit_length() // 8 + 1
        if len(content) != shortest or not 0 <= value <= most:
            raise FormatError(f"{self._subject}: number is {content[:16].hex()}, want 0..{most} in der")
        return value

    def octets(self, size: int) -> bytes:
        """The next element, an OCTET STRING of exactly `size` bytes."""
        if len(content := self.content(OCTET_STRING)) != size:
            raise FormatError(f"{self._subject}: octet string is {len(content)} bytes, want {size}")
        return content

    def boolean(self) -> bool:
        content = self.content(BOOLEAN)
        if content not in (b"\0", b"\xff"):
            raise FormatError(f"{self._subject}: boolean is {content[:8].hex()}, want 00 or ff")
        return content == b"\xff"

    def end(self) -> None:
        self._reader.end()

    def _length(self) -> int:
        first = self._reader.u8()
        if first < 0x80:
            return first
        size = first & 0x7F
        length = int.from_bytes(self._reader.take(size), "big") if size in {1, 2} else 0
        if length < (0x80 if size == 1 else 0x100):
            raise FormatError(f"{self._subject}: length is not in the shortest form, or beyond 65535")
        return length
