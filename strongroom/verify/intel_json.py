"""Intel's signed JSON: the exact bytes under the signature, and strict reading of what they say.

A document is `{"<member>":<object>,"signature":"<hex>"}` as the service sends it. The signature covers the object's
own bytes, so they are cut out, never written again: the same object with its keys in another order is not signed.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON, parse_json

MAX_BYTES: Final = 256 * 1024
_SIGNATURE: Final = re.compile(rb',"signature":"([0-9A-Fa-f]{128})"\}\Z')
_TAIL: Final = len(',"signature":""}') + 128
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class SignedJSON:
    """An object's own bytes, and the signature over them: r || s, big-endian."""

    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, document: bytes, member: str) -> Self:
        """Take a document apart; whether the object inside is JSON is for `Member.parse` to say."""
        if len(document) > MAX_BYTES:
            raise FormatError(f"{member}: {len(document)} bytes, want at most {MAX_BYTES}")
        start = f'{{"{member}":'.encode()
        tail = _SIGNATURE.match(document, max(len(document) - _TAIL, 0))
        if not document.startswith(start) or not tail or tail.start() < len(start):
            raise FormatError(f'{member}: want {{"{member}":...,"signature":"..."}} and nothing around it')
        return cls(document[len(start) : tail.start()], bytes.fromhex(tail[1].decode()))

    def pack(self, member: str) -> bytes:
        return f'{{"{member}":'.encode() + self.signed + f',"signature":"{self.signature.hex()}"}}'.encode()


@dataclass(frozen=True, slots=True)
class Member:
    """A JSON object. Keys that are not asked for are passed over: Intel adds to its formats."""

    value: dict[str, JSON]
    at: str  # the path shown in errors

    @classmethod
    def parse(cls, data: bytes, subject: str) -> Self:
        """`data` must be one object, whole, without a key that appears twice."""
        return cls._of(parse_json(data, subject, max_bytes=MAX_BYTES), subject)

    @classmethod
    def _of(cls, value: JSON, at: str) -> Self:
        if not isinstance(value, dict):
            raise FormatError(f"{at}: not an object")
        return cls(value, at)

    def __contains__(self, key: str) -> bool:
        return key in self.value

    def member(self, key: str) -> Self:
        return self._of(self._get(key), f"{self.at}.{key}")

    def members(self, key: str, *, most: int) -> tuple[Self, ...]:
        return tuple(self._of(item, f"{self.at}.{key}[{n}]") for n, item in enumerate(self._list(key, most)))

    def text(self, key: str) -> str:
        if not isinstance(value := self._get(key), str):
            raise FormatError(f"{self.at}.{key}: not text")
        return value

    def texts(self, key: str, *, most: int) -> tuple[str, ...]:
        """A list of short printable words; an absent one is empty."""
        found = [] if key not in self.value else self._list(key, most)
        words = tuple(
            item for item in found if isinstance(item, str) and item.isprintable() and len(item) < 64
        )
        if len(words) != len(found):
            raise FormatError(f"{self.at}.{key}: not a list of words")
        return words

    def number(self, key: str, *, most: int) -> int:
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise FormatError(f"{self.at}.{key}: want a whole number 0..{most}")
        return value

    def octets(self, key: str, size: int) -> bytes:
        """Bytes written in hexadecimal, of either case."""
        text = self.text(key)
        if len(text) != 2 * size or not _HEX.fullmatch(text):
            raise FormatError(f"{self.at}.{key}: want {size} bytes in hexadecimal")
        return bytes.fromhex(text)

    def moment(self, key: str) -> datetime:
        """A time in UTC, to the second."""
        if not _MOMENT.fullmatch(text := self.text(key)):
            raise FormatError(f"{self.at}.{key}: want a time such as 2026-01-31T00:00:00Z")
        try:
            return datetime.fromisoformat(text)
        except ValueError as error:
            raise FormatError(f"{self.at}.{key}: {text} is not a time") from error

    def want(self, key: str, wanted: str | int) -> None:
        """Refuse another value than `wanted`."""
        value = self._get(key)
        if type(value) is not type(wanted) or value != wanted:
            raise FormatError(f"{self.at}.{key}: is {str(value)[:32]!a}, want {wanted!a}")

    def _get(self, key: str) -> JSON:
        if key not in self.value:
            raise FormatError(f"{self.at}.{key}: missing")
        return self.value[key]

    def _list(self, key: str, most: int) -> list[JSON]:
        if not isinstance(value := self._get(key), list):
            raise FormatError(f"{self.at}.{key}: not a list")
        if len(value) > most:
            raise FormatError(f"{self.at}.{key}: {len(value)} items, want at most {most}")
        return value
