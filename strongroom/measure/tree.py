"""The digest of directory trees: one golden value for software that is not inside a boot image.

    digest = SHA-384( enc("strongroom/tree/v1") || entry || entry || ... )
    entry  = enc(path) || enc(kind) || enc(mode, 4 bytes big endian) || enc(value)

    kind         value
    "directory"  nothing
    "file"       SHA-256 of the contents, 32 bytes
    "link"       the link's target as written, never followed

`enc` is the length-framed form of wire.framing. Paths are relative, UTF-8, their parts joined by "/", and
entries stand in the order of their path bytes. Owner, times and hard links do not count; permission bits do,
because a file that turned writable or setuid is another machine. Everything found in a tree is in its digest,
compiled Python too: a .pyc nobody measured would be code nobody measured.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from strongroom.errors import FormatError
from strongroom.wire.framing import enc

LABEL: Final = b"strongroom/tree/v1"
DIGEST_SIZE: Final = 48
LINK_MODE: Final = 0o777  # what Linux shows for every link
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONSONANTS: Final = "bdfghjklmnprstvz"
_VOWELS: Final = "aiou"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEntry:
    """One file (sha256), link (target) or directory (neither) of a tree."""

    path: str
    mode: int  # permission bits, 0..0o7777
    sha256: bytes | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        parts = _utf8(self.path, "path").split(b"/")
        if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
            raise FormatError(f"tree entry: path is {self.path!r}, want plain parts joined by /")
        if not 0 <= self.mode <= 0o7777:
            raise FormatError(f"tree entry {self.path!r}: mode is {self.mode:o}, want 0..7777")
        if self.sha256 is not None and self.target is not None:
            raise FormatError(f"tree entry {self.path!r}: has contents and a target, want one")
        if self.sha256 is not None and len(self.sha256) != 32:
            raise FormatError(f"tree entry {self.path!r}: sha256 is {len(self.sha256)} bytes, want 32")
        if self.target is not None and (not self.target or "\0" in self.target):
            raise FormatError(f"tree entry {self.path!r}: link target is {self.target!r}, want a path")
        if self.target is not None and self.mode != LINK_MODE:
            raise FormatError(f"tree entry {self.path!r}: link mode is {self.mode:o}, want {LINK_MODE:o}")

    def pack(self) -> bytes:
        """The entry's bytes in the digest."""
        if self.sha256 is not None:
            kind, value = b"file", self.sha256
        elif self.target is not None:
            kind, value = b"link", _utf8(self.target, "link target")
        else:
            kind, value = b"directory", b""
        return enc(_utf8(self.path, "path")) + enc(kind) + enc(self.mode.to_bytes(4, "big")) + enc(value)


def tree_digest(entries: Iterable[TreeEntry]) -> bytes:
    """The 48-byte digest, whatever order the entries come in.

    Raises FormatError for a path met twice, and for no entries at all.
    """
    by_path: dict[bytes, TreeEntry] = {}
    for entry in entries:
        path = _utf8(entry.path, "path")
        if path in by_path:
            raise FormatError(f"tree: {entry.path!r} is there twice, want each path once")
        by_path[path] = entry
    if not by_path:
        raise FormatError("tree: no entries, want at least one")
    total = hashlib.sha384(enc(LABEL))
    for path in sorted(by_path):
        total.update(by_path[path].pack())
    return total.digest()


def tree_name(name: str) -> str:
    """The name itself, if it may stand first in the paths of a tree, or FormatError."""
    if not _NAME.fullmatch(name):
        raise FormatError(f"tree name: got {name!r}, want letters, digits and ._- (64 at most)")
    return name


def words(digest: bytes) -> str:
    """Four pronounceable words for the first 8 bytes, such as "lusab-babad-gutih-tugad".

    For people who compare two screens; 64 bits are no match for the digest. Each word is 16 bits, highest
    first: consonant (4 bits), vowel (2), consonant, vowel, consonant, as in proquints (arXiv:0901.4016).
    """
    if len(digest) < 8:
        raise FormatError(f"digest: got {len(digest)} bytes, want at least 8 for words")
    return "-".join(_word(int.from_bytes(digest[at : at + 2], "big")) for at in range(0, 8, 2))


def _word(value: int) -> str:
    return (
        _CONSONANTS[value >> 12]
        + _VOWELS[value >> 10 & 3]
        + _CONSONANTS[value >> 6 & 15]
        + _VOWELS[value >> 4 & 3]
        + _CONSONANTS[value & 15]
    )


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"tree entry: {what} {text!r} is not UTF-8") from error
