"""Lengths in front of bytes: `enc` for what is hashed, `frame` for what travels on a stream socket."""

from typing import Final

from strongroom.errors import FormatError

MAX_FRAME: Final = 1 << 20  # bytes of payload


def enc(x: bytes) -> bytes:
    """BE64(len(x)) || x, so that no byte can move from one hashed field into its neighbour."""
    return len(x).to_bytes(8, "big") + x


def frame(payload: bytes, *, max_frame: int = MAX_FRAME) -> bytes:
    """BE32 length || payload, for a stream read by a FrameReader with the same cap."""
    if len(payload) > max_frame:
        raise FormatError(f"frame: {len(payload)} bytes, want at most {max_frame}")
    return len(payload).to_bytes(4, "big") + payload


class FrameReader:
    """Collects stream bytes into frames. A length above the cap is refused before its bytes are kept."""

    def __init__(self, *, max_frame: int = MAX_FRAME) -> None:
        self._max_frame = max_frame
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame; not zero at end of stream means the peer stopped mid-frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Every payload completed by `data`, in order."""
        self._buffer += data
        payloads = []
        while len(self._buffer) >= 4:
            size = int.from_bytes(self._buffer[:4], "big")
            if size > self._max_frame:
                raise FormatError(f"frame: {size} bytes, want at most {self._max_frame}")
            if len(self._buffer) < 4 + size:
                break
            payloads.append(bytes(self._buffer[4 : 4 + size]))
            del self._buffer[: 4 + size]
        return payloads
