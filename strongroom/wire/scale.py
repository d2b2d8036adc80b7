"""SCALE, as far as records of bytes need it: little-endian numbers, and whatever has a length behind a compact one.

    compact   the two low bits of the first byte say how long the number is:
              00 one byte, 01 two, 10 four, each holding the number shifted by two; 11 more, which nothing here needs

Compact numbers are written in their shortest form, and read in no other. Source: Parity, SCALE codec.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from strongroom.errors import FormatError
from strongroom.wire.reader import Reader

MAX_COMPACT: Final = (1 << 30) - 1
_T = TypeVar("_T")


class Scale(Reader):
    """A reader of SCALE; every shortfall is a FormatError that names the subject."""

    __slots__ = ()

    def compact(self) -> int:
        first = self.u8()
        size = (1, 2, 4, 0)[first & 3]
        if not size:
            raise FormatError(f"{self._subject}: a compact number is beyond 30 bits")
        value = int.from_bytes(bytes((first,)) + self.take(size - 1), "little") >> 2
        if len(pack_compact(value)) != size:
            raise FormatError(f"{self._subject}: a compact number is not in its shortest form")
        return value

    def octets(self) -> bytes:
        return self.take(self.compact())

    def text(self) -> str:
        try:
            return self.octets().decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self._subject}: text is not UTF-8") from error

    def items(self, read: Callable[[], _T], *, most: int) -> list[_T]:
        """As many items as the compact number in front says, at most `most`."""
        if (count := self.compact()) > most:
            raise FormatError(f"{self._subject}: {count} items, want at most {most}")
        return [read() for _ in range(count)]


def pack_compact(value: int) -> bytes:
    for size, kind in ((1, 0), (2, 1), (4, 2)):
        if 0 <= value < 1 << 8 * size - 2:
            return (value << 2 | kind).to_bytes(size, "little")
    raise FormatError(f"scale: compact number is {value}, want 0..{MAX_COMPACT}")


def pack_octets(data: bytes) -> bytes:
    return pack_compact(len(data)) + data


def pack_items(items: list[bytes]) -> bytes:
    """A list of what is packed already."""
    return pack_compact(len(items)) + b"".join(items)
