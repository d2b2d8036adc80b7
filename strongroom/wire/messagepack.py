"""MessagePack with exactly one encoding: every number, length and header in its shortest form.

The values are those of canonical JSON, and bytes. There are no floats and no extensions, a map keeps its order and
has each key once, and nothing is allocated for a length before that many bytes are there.

Source: the MessagePack specification.
"""

from typing import Final, TypeAlias

from strongroom.errors import FormatError
from strongroom.wire.reader import Reader

MessagePack: TypeAlias = "bool | int | str | bytes | list[MessagePack] | dict[str, MessagePack] | None"

_NIL, _FALSE, _TRUE = 0xC0, 0xC2, 0xC3
_CONSTANTS: Final = {_NIL: None, _FALSE: False, _TRUE: True}
_UNSIGNED: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_SIGNED: Final = {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_TEXT: Final = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BYTES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_LIST: Final = {0xDC: 2, 0xDD: 4}
_MAP: Final = {0xDE: 2, 0xDF: 4}


def pack_messagepack(value: MessagePack) -> bytes:
    """The one encoding of `value`; FormatError for a number beyond 64 bits or text that is no Unicode."""
    out = bytearray()
    _pack(value, out)
    return bytes(out)


def parse_messagepack(
    data: bytes, subject: str, *, max_bytes: int = 1 << 20, max_depth: int = 16
) -> MessagePack:
    """The value in `data`; FormatError for anything left over, and all that has no encoding here."""
    if len(data) > max_bytes:
        raise FormatError(f"{subject}: {len(data)} bytes, want at most {max_bytes}")
    cursor = _Cursor(data, subject)
    value = cursor.value(max_depth)
    cursor.end()
    return value


class _Cursor(Reader):
    __slots__ = ()

    def value(self, depth: int) -> MessagePack:
        first = self.u8()
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _UNSIGNED or first in _SIGNED:
            return self._integer(first)
        if 0xA0 <= first < 0xC0 or first in _TEXT:
            return self._text(self._length(first, first & 0x1F if first < 0xC0 else None, _TEXT, 31))
        if first in _BYTES:
            return self.take(self._length(first, None, _BYTES, -1))
        if first < 0xA0 or first in _LIST or first in _MAP:
            return self._nested(first, depth)
        raise FormatError(f"{self._subject}: byte {first:#04x} starts no value we read")

    def _nested(self, first: int, depth: int) -> MessagePack:
        if not depth:
            raise FormatError(f"{self._subject}: nested too deep")
        short = first & 0x0F if first < 0xA0 else None
        if first in _LIST or 0x90 <= first < 0xA0:
            count = self._length(first, short, _LIST, 15)
            return [self.value(depth - 1) for _ in range(count)]
        found: dict[str, MessagePack] = {}
        for _ in range(self._length(first, short, _MAP, 15)):
            key = self.value(0)
            if not isinstance(key, str) or key in found:
                raise FormatError(f"{self._subject}: key {ascii(key)[:64]} is not text, or appears twice")
            found[key] = self.value(depth - 1)
        return found

    def _integer(self, first: int) -> int:
        signed = first in _SIGNED
        size = _SIGNED[first] if signed else _UNSIGNED[first]
        value = int.from_bytes(self.take(size), "big", signed=signed)
        if _integer(value) != bytes((first,)) + value.to_bytes(size, "big", signed=signed):
            raise FormatError(f"{self._subject}: number {value} is not in its shortest form")
        return value

    def _length(self, first: int, short: int | None, sizes: dict[int, int], most_short: int) -> int:
        """How much follows. Each item takes a byte or more, so the count is also bounded by what is left."""
        if short is not None:
            length = short
        else:
            size = sizes[first]
            length = int.from_bytes(self.take(size), "big")
            smaller = [other for other in sizes.values() if other < size]
            if length <= (most_short if not smaller else (1 << 8 * max(smaller)) - 1):
                raise FormatError(f"{self._subject}: length {length} is not in its shortest form")
        if length > self.remaining:
            raise FormatError(f"{self._subject}: {self.remaining} bytes left, want at least {length}")
        return length

    def _text(self, length: int) -> str:
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self._subject}: text is not UTF-8") from error


def _pack(value: MessagePack, out: bytearray) -> None:
    match value:
        case None:
            out.append(_NIL)
        case bool():
            out.append(_TRUE if value else _FALSE)
        case int():
            out += _integer(value)
        case str():
            try:
                raw = value.encode()
            except UnicodeEncodeError as error:
                raise FormatError("messagepack: text holds a lone surrogate, want unicode") from error
            out += _head(len(raw), (0xA0, 31), _TEXT) + raw
        case bytes():
            out += _head(len(value), None, _BYTES) + value
        case list():
            out += _head(len(value), (0x90, 15), _LIST)
            for item in value:
                _pack(item, out)
        case dict():
            out += _head(len(value), (0x80, 15), _MAP)
            for key, item in value.items():
                _pack(key, out)
                _pack(item, out)


def _integer(value: int) -> bytes:
    if -32 <= value < 128:
        return bytes((value & 0xFF,))
    for first, size in (_UNSIGNED if value >= 0 else _SIGNED).items():
        half = 1 << 8 * size - 1
        if -half <= value < (2 * half if value >= 0 else half):
            return bytes((first,)) + value.to_bytes(size, "big", signed=value < 0)
    raise FormatError("messagepack: a number is beyond 64 bits")


def _head(length: int, short: tuple[int, int] | None, sizes: dict[int, int]) -> bytes:
    if short is not None and length <= short[1]:
        return bytes((short[0] | length,))
    for first, size in sizes.items():
        if length < 1 << 8 * size:
            return bytes((first,)) + length.to_bytes(size, "big")
    raise FormatError(f"messagepack: length {length} is beyond 32 bits")
