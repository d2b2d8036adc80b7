"""The two key derivations of the format: scrypt for passwords, HKDF-SHA256 without salt for everything else."""

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt as _Scrypt

from strongroom.errors import FormatError
from strongroom.sealed.keys import Octets

KEY_SIZE: Final = 32
SALT_SIZE: Final = 32
MAX_MEMORY: Final = 1 << 30  # bytes: whoever stores gocryptfs.conf chooses the cost
MAX_PARALLEL: Final = 16
GCM_CONTENT: Final = b"AES-GCM file content encryption"
SIV_CONTENT: Final = b"AES-SIV file content encryption"
XCHACHA_CONTENT: Final = b"XChaCha20-Poly1305 file content encryption"
NAMES: Final = b"EME filename encryption"


def expand(key: Octets, label: bytes, length: int) -> bytes:
    """`length` bytes for one purpose, HKDF-SHA256 with an empty salt."""
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=label).derive(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrypt:
    """How a password becomes a key. The defaults take 64 MiB and about a tenth of a second."""

    salt: bytes
    n: int = 1 << 16
    r: int = 8
    p: int = 1

    def __post_init__(self) -> None:
        if len(self.salt) < SALT_SIZE:
            raise FormatError(f"gocryptfs.conf: scrypt salt is {len(self.salt)} bytes, want {SALT_SIZE}")
        if self.n < 1 << 10 or self.n & (self.n - 1):
            raise FormatError(f"gocryptfs.conf: scrypt N is {self.n}, want a power of two from 1024")
        if self.r < 8:
            raise FormatError(f"gocryptfs.conf: scrypt R is {self.r}, want at least 8")
        if not 1 <= self.p <= MAX_PARALLEL:
            raise FormatError(f"gocryptfs.conf: scrypt P is {self.p}, want 1..{MAX_PARALLEL}")
        if 128 * self.n * self.r > MAX_MEMORY:
            raise FormatError(
                f"gocryptfs.conf: scrypt takes {128 * self.n * self.r} bytes, want at most {MAX_MEMORY}"
            )

    def derive(self, password: Octets) -> bytes:
        """The 32 bytes that guard the master key."""
        return _Scrypt(salt=self.salt, length=KEY_SIZE, n=self.n, r=self.r, p=self.p).derive(password)
