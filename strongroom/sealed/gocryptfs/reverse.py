"""What `gocryptfs -reverse` draws nonces from: the encrypted path, so that one plain tree has one encrypted view.

    value(purpose) = first 16 bytes of SHA-256(path || 0x00 || purpose)

The path is relative to the top, "" for the top itself, its parts as they are on disk: long names are hashed. Block n
of a file has the nonce BLOCK0IV with n added to its last 8 bytes, read big-endian. In such a view, and in a copy of
it, a file that was put in another's place shows, because its file id tells its path.
Source: gocryptfs, internal/pathiv.
"""

from enum import Enum
from hashlib import sha256
from typing import Final

_WORD: Final = 1 << 64


class Purpose(Enum):
    DIRIV = b"DIRIV"
    FILE_ID = b"FILEID"
    BLOCK_0 = b"BLOCK0IV"
    LINK = b"SYMLINKIV"
    ATTRIBUTE = b"XATTRIV"


def derive(path: bytes, purpose: Purpose) -> bytes:
    """16 bytes: the IV of a directory, a file id, or a nonce."""
    return sha256(path + b"\0" + purpose.value).digest()[:16]


def block_nonce(block_0: bytes, number: int) -> bytes:
    """The nonce of block `number`, from that of block 0."""
    low = (int.from_bytes(block_0[8:], "big") + number) % _WORD
    return block_0[:8] + low.to_bytes(8, "big")
