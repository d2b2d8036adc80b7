"""A cursor over bytes that never reads past the end and never forgets what is left over.

Python slices do not fail: `data[4:8]` of a five-byte input is one byte. Every binary format here is read
through this instead.
"""

from strongroom.errors import FormatError


class Reader:
    """Reads `data` from the front; every shortfall is a FormatError that names `subject`."""

    __slots__ = ("_data", "_offset", "_subject")

    def __init__(self, data: bytes, subject: str) -> None:
        self._data = data
        self._subject = subject
        self._offset = 0

    @property
    def remaining(self) -> int:
        return len(self._data) - self._offset

    def take(self, n: int) -> bytes:
        """The next `n` bytes."""
        if not 0 <= n <= self.remaining:
            raise FormatError(
                f"{self._subject}: {self.remaining} bytes left at offset {self._offset}, want {n}"
            )
        start, self._offset = self._offset, self._offset + n
        return bytes(self._data[start : self._offset])

    def u8(self) -> int:
        return self.take(1)[0]

    def u16le(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def u32le(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64le(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def u16be(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32be(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def u64be(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def zeros(self, n: int) -> None:
        """Skip `n` reserved bytes, all of which must be zero."""
        start = self._offset
        if any(found := self.take(n)):
            raise FormatError(
                f"{self._subject}: reserved bytes [{start}:{start + n}] are {found.hex()}, want zero"
            )

    def rest(self) -> bytes:
        return self.take(self.remaining)

    def end(self) -> None:
        """Refuse left-over bytes."""
        if self.remaining:
            raise FormatError(f"{self._subject}: {self.remaining} bytes left over, want none")
