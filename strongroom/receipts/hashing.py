"""SHA-256 over a body that comes in pieces."""

from hashlib import sha256


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
