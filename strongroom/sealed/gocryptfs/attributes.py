"""Targets of links, and extended attributes: one content block each, that belongs to no file and has number 0.

    target  base64url(block), in clear in a volume with plain names
    name    "user.gocryptfs." || EME name under one fixed IV
    value   the block itself; empty stays empty; volumes before version 2.0 keep base64url of it

So a target or a value can be moved to another link or file unnoticed: the bare format does not bind them.
"""

from typing import Final

from strongroom.errors import FormatError, StrongroomError
from strongroom.sealed.gocryptfs.config import Settings
from strongroom.sealed.gocryptfs.content import ContentCipher
from strongroom.sealed.gocryptfs.names import NameCipher, decode, encode

PREFIX: Final = b"user.gocryptfs."
MAX_TARGET: Final = 4095  # bytes, plain
_NAME_IV: Final = b"xattr_name_iv_xx"
_CLEAR: Final = frozenset({b"system.posix_acl_access", b"system.posix_acl_default"})


class AttributeCipher:
    """Seals and opens what hangs on files. Usable from several threads."""

    __slots__ = ("_content", "_names", "_settings")

    def __init__(self, content: ContentCipher, names: NameCipher, settings: Settings) -> None:
        self._content = content
        self._names = names
        self._settings = settings

    def seal_target(self, target: bytes, nonce: bytes) -> bytes:
        """What the link on disk points to. `nonce` is random, of content.nonce_size bytes."""
        if not 1 <= len(target) <= MAX_TARGET or b"\0" in target:
            raise FormatError(f"link: target of {len(target)} bytes, want 1..{MAX_TARGET} without zeros")
        if self._settings.plaintext_names:
            return target
        return encode(self._content.seal_alone(target, nonce), raw64=self._settings.raw64)

    def open_target(self, on_disk: bytes) -> bytes:
        """Where the link leads; FormatError or VerifyError for what was not sealed under this key."""
        if self._settings.plaintext_names:
            return on_disk
        target = self._content.open_alone(decode(on_disk, raw64=self._settings.raw64, subject="link"), "link")
        if not target or b"\0" in target:
            raise FormatError("link: target is empty or has a zero byte")
        return target

    def seal_name(self, name: bytes) -> bytes:
        """An attribute's name on disk. The two names of POSIX ACLs are kept as they are."""
        if name in _CLEAR:
            return name
        if not name or b"\0" in name:
            raise FormatError(f"attribute: {name[:64]!r} is not a name")
        return PREFIX + self._names.encipher(name, _NAME_IV)

    def open_name(self, on_disk: bytes) -> bytes:
        """The plain name; FormatError for an attribute that is not of this volume."""
        if on_disk in _CLEAR:
            return on_disk
        if not on_disk.startswith(PREFIX):
            raise FormatError(f"attribute: {on_disk[:64]!r} does not start with {PREFIX.decode()}")
        name = self._names.decipher_any(on_disk[len(PREFIX) :], _NAME_IV)
        if not name or b"\0" in name:
            raise FormatError("attribute: name is empty or has a zero byte")
        return name

    def seal_value(self, value: bytes, nonce: bytes) -> bytes:
        """A value of any attribute but a POSIX ACL, which is kept as it is."""
        return self._content.seal_alone(value, nonce) if value else b""

    def open_value(self, on_disk: bytes) -> bytes:
        """The plain value; VerifyError for what was not sealed under this key."""
        if not on_disk:
            return b""
        try:
            return self._content.open_alone(on_disk, "attribute")
        except StrongroomError as error:
            try:
                older = decode(on_disk, raw64=self._settings.raw64, subject="attribute")
            except FormatError:
                raise error from None
            return self._content.open_alone(older, "attribute")


def is_clear(name: bytes) -> bool:
    """Whether an attribute of this name is stored in clear, name and value: POSIX ACLs."""
    return name in _CLEAR
