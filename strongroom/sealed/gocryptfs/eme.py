"""EME: a cipher for one message of 1 to 128 AES blocks, in which every bit depends on every other.

There is no tag: a changed ciphertext opens to noise. Source: Halevi and Rogaway, A Parallelizable Enciphering Mode,
2003; numbers are read with the least significant byte first, as gocryptfs does.
"""

from functools import reduce
from operator import xor
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from strongroom.errors import FormatError

BLOCK: Final = 16
MAX_BLOCKS: Final = 128
_TOP: Final = 1 << 127
_MASK: Final = (1 << 128) - 1


class EME:
    """Usable from several threads."""

    __slots__ = ("_aes", "_masks")

    def __init__(self, key: bytes) -> None:
        self._aes = Cipher(AES(key), ECB())  # noqa: S305 - the block cipher that EME is made of
        mask, masks = _number(self._aes.encryptor().update(bytes(BLOCK))), bytearray()
        for _ in range(MAX_BLOCKS):
            mask = _doubled(mask)
            masks += mask.to_bytes(BLOCK, "little")
        self._masks = bytes(masks)

    def encrypt(self, tweak: bytes, data: bytes) -> bytes:
        """As many bytes as `data` has. `tweak` is 16 bytes."""
        return self._transform(self._aes.encryptor(), tweak, data)

    def decrypt(self, tweak: bytes, data: bytes) -> bytes:
        """As many bytes as `data` has; noise when it was changed."""
        return self._transform(self._aes.decryptor(), tweak, data)

    def _transform(self, aes: CipherContext, tweak: bytes, data: bytes) -> bytes:
        count, rest = divmod(len(data), BLOCK)
        if rest or not 1 <= count <= MAX_BLOCKS:
            raise FormatError(f"name: {len(data)} bytes to decipher, want 1..{MAX_BLOCKS} times {BLOCK}")
        if len(tweak) != BLOCK:
            raise FormatError(f"name: tweak is {len(tweak)} bytes, want {BLOCK}")
        masks = _number(self._masks[: len(data)])
        ppp = _blocks(aes.update((_number(data) ^ masks).to_bytes(len(data), "little")))
        mp = reduce(xor, ppp, _number(tweak))
        mc = _number(aes.update(mp.to_bytes(BLOCK, "little")))
        ccc, m = [0], mp ^ mc
        for block in ppp[1:]:
            m = _doubled(m)
            ccc.append(block ^ m)
        ccc[0] = reduce(xor, ccc, mc ^ _number(tweak))
        last = aes.update(b"".join(block.to_bytes(BLOCK, "little") for block in ccc))
        return (_number(last) ^ masks).to_bytes(len(data), "little")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _blocks(data: bytes) -> list[int]:
    return [_number(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]


def _doubled(value: int) -> int:
    return (value << 1 & _MASK) ^ 0x87 if value & _TOP else value << 1
