"""From the master key of a volume: one key for names, one for contents.

    names     HKDF(master key, "EME filename encryption", 32)
    contents  HKDF(master key, "AES-GCM file content encryption", 32)
              HKDF(master key, "AES-SIV file content encryption", 64)
              HKDF(master key, "XChaCha20-Poly1305 file content encryption", 32)

Volumes without the HKDF flag use the master key itself, and its SHA-512 with AES-SIV.
"""

from dataclasses import dataclass, field
from hashlib import sha512
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.sealed.gocryptfs.config import Cipher, Settings
from strongroom.sealed.gocryptfs.kdf import GCM_CONTENT, KEY_SIZE, NAMES, SIV_CONTENT, XCHACHA_CONTENT, expand
from strongroom.sealed.keys import Octets

_CONTENT: Final = {
    Cipher.AES_GCM: (GCM_CONTENT, 32),
    Cipher.AES_SIV: (SIV_CONTENT, 64),
    Cipher.XCHACHA: (XCHACHA_CONTENT, 32),
}


@dataclass(frozen=True, slots=True)
class SubKeys:
    """Drop them as soon as the ciphers are made: Python cannot wipe them."""

    names: bytes = field(repr=False)
    content: bytes = field(repr=False)

    @classmethod
    def derive(cls, master_key: Octets, settings: Settings) -> Self:
        """The keys this volume uses; FormatError unless the master key has 32 bytes."""
        if (length := memoryview(master_key).nbytes) != KEY_SIZE:
            raise FormatError(f"master key: got {length} bytes, want {KEY_SIZE}")
        if not settings.hkdf:
            shared = bytes(master_key)
            siv = settings.cipher is Cipher.AES_SIV
            return cls(names=shared, content=sha512(shared).digest() if siv else shared)
        return cls(
            names=expand(master_key, NAMES, KEY_SIZE),
            content=expand(master_key, *_CONTENT[settings.cipher]),
        )
