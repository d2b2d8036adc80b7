"""Names on disk: padded to 16 bytes, enciphered with EME under the IV of their directory, base64url.

What becomes longer than the volume's limit is kept as `gocryptfs.longname.` and a hash, and in full in a file beside
it with the suffix `.name`. Names carry no tag. Source: gocryptfs, internal/nametransform.
"""

import base64
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from strongroom.errors import FormatError
from strongroom.sealed.gocryptfs.config import FILE_NAME, LONGEST_NAME, Settings
from strongroom.sealed.gocryptfs.eme import BLOCK, EME
from strongroom.wire.canonical import unb64u

DIRIV: Final = b"gocryptfs.diriv"
DIRIV_SIZE: Final = 16
ZERO_DIRIV: Final = bytes(DIRIV_SIZE)
LONG_PREFIX: Final = b"gocryptfs.longname."
LONG_SUFFIX: Final = b".name"
MAX_ENCODED: Final = 344  # bytes: 255 bytes of name, padded to 256, in base64
_TEMPORARY: Final = b".nfs"  # what an NFS client keeps of a file removed while open


@dataclass(frozen=True, slots=True)
class StoredName:
    """A name on disk. `long` is the content of the file `on_disk` + ".name" that must lie beside it, or None."""

    on_disk: bytes
    long: bytes | None = None


class NameCipher:
    """Names of one volume. Usable from several threads."""

    __slots__ = ("_eme", "_limit", "_raw64", "_settings")

    def __init__(self, key: bytes, settings: Settings) -> None:
        self._eme = EME(key)
        self._settings = settings
        self._raw64 = settings.raw64
        self._limit = settings.long_name_max

    def store(self, name: bytes, diriv: bytes) -> StoredName:
        """The name `name` has on disk in a directory of this IV; FormatError for one that no directory can hold."""
        check_name(name)
        if self._settings.plaintext_names:
            return StoredName(name)
        encoded = self.encipher(name, diriv)
        if len(encoded) <= self._limit:
            return StoredName(encoded)
        if not self._settings.long_names:
            if len(encoded) > LONGEST_NAME:
                raise FormatError(f"name: {len(encoded)} bytes when encrypted, want at most {LONGEST_NAME}")
            return StoredName(encoded)
        return StoredName(self._hashed(encoded), encoded)

    def open(self, on_disk: bytes, diriv: bytes, long: bytes | None = None) -> bytes:
        """The plain name. `long` is the content of its `.name` file, for a name of which is_long() says so.

        Raises FormatError for whatever store() would not have written. Noise passes this now and then.
        """
        if self._settings.plaintext_names:
            check_name(on_disk)
            return on_disk
        if not self.is_long(on_disk):
            if long is not None or len(on_disk) > LONGEST_NAME:
                raise FormatError(f"name: {on_disk[:64]!r} is not the hash of a long one")
            return self.decipher(on_disk, diriv)
        if long is None:
            raise FormatError(f"name: {on_disk[:64]!r} is a hash, want its {LONG_SUFFIX.decode()} file")
        if not len(long) <= MAX_ENCODED or self._hashed(long) != on_disk:
            raise FormatError(f"name: {on_disk[:64]!r} is not the hash of what its .name file holds")
        return self.decipher(long, diriv)

    def encipher(self, name: bytes, tweak: bytes) -> bytes:
        """EME and base64 alone, of 1 to 2047 bytes."""
        pad = BLOCK - len(name) % BLOCK
        return encode(self._eme.encrypt(tweak, name + bytes([pad]) * pad), raw64=self._raw64)

    def decipher(self, encoded: bytes, tweak: bytes) -> bytes:
        """What encipher() was given; FormatError unless it is the plain name of a file."""
        name = self.decipher_any(encoded, tweak)
        check_name(name)
        return name

    def decipher_any(self, encoded: bytes, tweak: bytes) -> bytes:
        """As decipher(), for what need not be the name of a file."""
        padded = self._eme.decrypt(tweak, decode(encoded, raw64=self._raw64, subject="name"))
        pad = padded[-1]
        if not 1 <= pad <= BLOCK or padded[-pad:] != bytes([pad]) * pad:
            raise FormatError(
                "name: padding is wrong: another key, another directory, or not a name of this volume"
            )
        return padded[:-pad]

    def is_long(self, on_disk: bytes) -> bool:
        """Whether this stands for a name kept in a `.name` file beside it."""
        return (
            self._settings.long_names
            and on_disk.startswith(LONG_PREFIX)
            and not on_disk.endswith(LONG_SUFFIX)
        )

    def is_foreign(self, on_disk: bytes, *, top: bool = True) -> bool:
        """Whether this is no entry of the volume: its own bookkeeping, or another program's. `top`: in the root."""
        if top and on_disk == FILE_NAME:
            return True
        if self._settings.plaintext_names:
            return False
        if on_disk.startswith(_TEMPORARY) or (on_disk == DIRIV and self._settings.directory_ivs):
            return True
        return on_disk.startswith(LONG_PREFIX) and on_disk.endswith(LONG_SUFFIX)

    def _hashed(self, encoded: bytes) -> bytes:
        return LONG_PREFIX + encode(sha256(encoded).digest(), raw64=self._raw64)


def check_name(name: bytes) -> None:
    """Raise FormatError unless a directory can hold this name."""
    if not 1 <= len(name) <= LONGEST_NAME:
        raise FormatError(f"name: {len(name)} bytes, want 1..{LONGEST_NAME}")
    if name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise FormatError(f"name: {name[:64]!r} is not a name")


def check_diriv(data: bytes) -> bytes:
    """The IV a directory's gocryptfs.diriv holds; FormatError unless it is 16 bytes, not all zero."""
    if len(data) != DIRIV_SIZE or not any(data):
        raise FormatError(f"gocryptfs.diriv: {len(data)} bytes, want {DIRIV_SIZE} that are not all zero")
    return data


def encode(data: bytes, *, raw64: bool) -> bytes:
    """base64url, with padding unless `raw64`."""
    text = base64.urlsafe_b64encode(data)
    return text.rstrip(b"=") if raw64 else text


def decode(text: bytes, *, raw64: bool, subject: str) -> bytes:
    """The bytes of base64url; any other spelling of them is a FormatError."""
    try:
        bare = text.decode("ascii")
    except UnicodeDecodeError:
        raise FormatError(f"{subject}: not base64url") from None
    if not raw64:
        bare = bare.rstrip("=")
    data = unb64u(bare, subject)
    if not raw64 and encode(data, raw64=False) != text:
        raise FormatError(f"{subject}: base64url without its padding")
    return data
