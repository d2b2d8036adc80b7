"""The sealed blocks of one MiB in a buffer of one thread, cut into nonces, bodies and tags once.

Block i of the MiB lies at its own place in the buffer, i * sealed_block, whatever part of the MiB was loaded. A pin
is the nonce and the tag of a block, one behind the other: who lacks the key cannot make another block of the same
pin. The pin of a hole is all zero.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag

from strongroom.errors import FormatError
from strongroom.sealed.gocryptfs.config import Cipher
from strongroom.sealed.gocryptfs.content import AAD, BLOCK, TAG_SIZE, ContentCipher

BLOCKS: Final = 256
SIZE: Final = BLOCKS * BLOCK  # bytes of plaintext
_FEW: Final = 4  # blocks that are opened sooner one by one than 256 places are marked for them


class Batch:
    """Room for the sealed blocks of one MiB: `room`, or memory of its own. For one thread."""

    __slots__ = (
        "_aad_bytes",
        "_aads",
        "_bodies",
        "_cipher",
        "_marked",
        "_nonces",
        "_pins",
        "_sealed",
        "_tag_at",
    )

    def __init__(self, cipher: ContentCipher, room: memoryview | None = None) -> None:
        size, nonce = cipher.sealed_block, cipher.nonce_size
        self._cipher: Final = cipher
        self._sealed: Final = memoryview(bytearray(BLOCKS * size)) if room is None else room
        starts = range(0, BLOCKS * size, size)
        self._nonces: Final = [self._sealed[at : at + nonce] for at in starts]
        self._bodies: Final = [self._sealed[at + nonce : at + size] for at in starts]
        self._tag_at: Final = nonce if cipher.cipher is Cipher.AES_SIV else -TAG_SIZE
        self._pins: Final = [piece for at in starts for piece in self._pin(self._sealed[at : at + size])]
        self._marked = AAD.pack(0, bytes(16))
        self._aad_bytes: Final = memoryview(
            bytearray().join(AAD.pack(place, bytes(16)) for place in range(BLOCKS))
        )
        self._aads: Final = [
            self._aad_bytes[place * AAD.size : (place + 1) * AAD.size] for place in range(BLOCKS)
        ]

    def room(self, start: int, stop: int, rest: int = 0) -> memoryview:
        """Where blocks start..stop - 1 go, and behind them the `rest` bytes of a shorter one."""
        size = self._cipher.sealed_block
        return self._sealed[start * size : stop * size + rest]

    def pins(self, start: int, stop: int, rest: int = 0) -> bytes:
        """The pins of what lies in room(start, stop, rest)."""
        pieces = self._pins[2 * start : 2 * stop]
        if rest:
            pieces += self._pin(self.room(stop, stop, rest))
        return b"".join(pieces)

    def open(self, file_id: bytes, first: int, start: int, stop: int, outs: Sequence[memoryview]) -> None:
        """Fill each of `outs` with the plaintext of one of the full blocks start..stop - 1, in their order.

        `first` is the number in its file of the block at place 0, a multiple of BLOCKS. Raises VerifyError naming the
        first block that does not verify; the outputs then hold garbage. A block of zeros is a hole.
        """
        if stop - start > _FEW and self._open_at_once(file_id, first, start, stop, outs):
            return
        for at, out in zip(range(start, stop), outs, strict=False):
            self._cipher.open_block(file_id, first + at, self.room(at, at + 1), out)

    def _open_at_once(
        self, file_id: bytes, first: int, start: int, stop: int, outs: Sequence[memoryview]
    ) -> bool:
        """False when one by one they have to tell which does not verify, and which is a hole."""
        self._mark(first, file_id)
        nonces = self._nonces[start:stop]
        if self._cipher.has_zeros(nonces):
            return False
        try:
            deque(
                map(self._cipher.decrypt, nonces, self._bodies[start:stop], self._aads[start:stop], outs),
                maxlen=0,
            )
        except InvalidTag:
            return False
        return True

    def _mark(self, first: int, file_id: bytes) -> None:
        """Write what is authenticated beside each block; only the low byte of its number differs within a MiB."""
        if first % BLOCKS or first < 0:
            raise FormatError(f"batch: first block is {first}, want a multiple of {BLOCKS}")
        marked = AAD.pack(first, file_id)
        if marked == self._marked:
            return
        for at, (old, new) in enumerate(zip(self._marked, marked, strict=True)):
            if old != new:
                self._aad_bytes[at :: AAD.size] = bytes([new]) * BLOCKS
        self._marked = marked

    def _pin(self, sealed: memoryview) -> list[memoryview]:
        return [sealed[: self._cipher.nonce_size], sealed[self._tag_at :][:TAG_SIZE]]
