"""A holder for secret bytes: shown by nobody, copied on request only, overwritten when done with.

Python moves and copies `bytes` as it likes; a bytearray of our own is the one place we can overwrite. Copies made
before or after (by a cipher, by `reveal`) are beyond us, so they are kept few and short.
"""

import hmac
from types import TracebackType
from typing import NoReturn, Self


class Secret:
    """Secret bytes with a short life. As a context manager it is wiped on leaving."""

    __slots__ = ("_buffer", "_wiped")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._wiped = False
        self._buffer = bytearray()
        self._buffer = bytearray(data)

    def view(self) -> memoryview:
        """The bytes themselves, read-only and not copied; all zero once wiped."""
        self._alive()
        return memoryview(self._buffer).toreadonly()

    def reveal(self) -> bytes:
        """A copy that can no longer be wiped, for a library that takes nothing else."""
        self._alive()
        return bytes(self._buffer)

    def wipe(self) -> None:
        """Overwrite the bytes. Any use afterwards is a ValueError; wiping again is not."""
        self._buffer[:] = bytes(len(self._buffer))
        self._wiped = True

    def __len__(self) -> int:
        return len(self._buffer)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.view(), other.view())  # in constant time

    __hash__ = None  # type: ignore[assignment]  # a hash of a secret is a hint at it

    def __repr__(self) -> str:
        return f"Secret({'wiped' if self._wiped else f'{len(self._buffer)} bytes'})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied")

    def __enter__(self) -> Self:
        self._alive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    def __del__(self) -> None:
        self.wipe()

    def _alive(self) -> None:
        if self._wiped:
            raise ValueError("secret was wiped")
