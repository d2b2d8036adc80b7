"""What a broker keeps: the name of a resource, and the key of a sealed model as its content.

URI         kbs:///<repository>/<type>/<tag>     each part [A-Za-z0-9_-][A-Za-z0-9_.-]*, at most 128 characters
HTTP path   /kbs/v0/resource/<repository>/<type>/<tag>
VolumeKey   canonical JSON {"epoch": int, "key": base64url 32 bytes, "root": hex 32 bytes, "version": VERSION}
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar

from strongroom.errors import FormatError
from strongroom.wire.canonical import b64u, pack_json, parse_json, unb64u

T = TypeVar("T")

VERSION: Final = "strongroom/volume-key/v1"
KEY_BYTES: Final = 32
ROOT_BYTES: Final = 32
MAX_VOLUME_KEY: Final = 1024  # bytes of the packed form
PREFIX: Final = "/kbs/v0"
_SCHEME: Final = "kbs:///"
_PART: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ResourceURI:
    """The name of one resource. str() is the URI."""

    repository: str
    type: str
    tag: str

    def __post_init__(self) -> None:
        for part in (self.repository, self.type, self.tag):
            if not _PART.fullmatch(part):
                raise FormatError(
                    f"resource: part {part[:140]!r} is not [A-Za-z0-9_-][A-Za-z0-9_.-]*, at most 128"
                )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read kbs:///repository/type/tag; a host, a query or any other number of parts is a FormatError."""
        if not text.startswith(_SCHEME):
            raise FormatError(f"resource: got {text[:140]!r}, want {_SCHEME}repository/type/tag")
        return cls.from_segments(text.removeprefix(_SCHEME))

    @classmethod
    def from_segments(cls, text: str) -> Self:
        """Read repository/type/tag, as it stands in the path of a request."""
        parts = text.split("/")
        if len(parts) != 3:
            raise FormatError(f"resource: got {len(parts)} parts, want 3: repository/type/tag")
        return cls(*parts)

    @property
    def path(self) -> str:
        return f"{PREFIX}/resource/{self.repository}/{self.type}/{self.tag}"

    def __str__(self) -> str:
        return f"{_SCHEME}{self.repository}/{self.type}/{self.tag}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeKey:
    """The key of one sealed model, and which sealed model it may open."""

    key: bytes = field(repr=False)
    root: bytes  # SHA-256 of the model's manifest file
    epoch: int  # of that model; no other is opened

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise FormatError(f"volume key: key is {len(self.key)} bytes, want {KEY_BYTES}")
        if len(self.root) != ROOT_BYTES:
            raise FormatError(f"volume key: root is {len(self.root)} bytes, want {ROOT_BYTES}")
        if type(self.epoch) is not int or not 0 <= self.epoch < 1 << 53:
            raise FormatError(f"volume key: epoch is {str(self.epoch)[:40]}, want a whole number below 2**53")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the canonical form, or raise FormatError. No message shows a byte of the key."""
        value = _unless_malformed(parse_json, data, max_bytes=MAX_VOLUME_KEY)
        if not isinstance(value, dict) or value.keys() != {"epoch", "key", "root", "version"}:
            raise FormatError("volume key: want a JSON object of exactly epoch, key, root, version")
        version, key, root, epoch = (value[name] for name in ("version", "key", "root", "epoch"))
        if version != VERSION:
            raise FormatError(f"volume key: version is not {VERSION!r}")
        raw = _unless_malformed(unb64u, key) if isinstance(key, str) else None
        if raw is None:
            raise FormatError("volume key: key is not base64url without padding")
        if not isinstance(root, str) or not _HEX.fullmatch(root):
            raise FormatError("volume key: root is not 64 lowercase hex digits")
        if type(epoch) is not int:  # bool is an int
            raise FormatError("volume key: epoch is not a whole number")
        parsed = cls(key=raw, root=bytes.fromhex(root), epoch=epoch)
        if parsed.pack() != data:
            raise FormatError("volume key: not in canonical form (RFC 8785)")
        return parsed

    def pack(self) -> bytes:
        return pack_json(
            {"epoch": self.epoch, "key": b64u(self.key), "root": self.root.hex(), "version": VERSION}
        )


def _unless_malformed(parse: Callable[..., T], *arguments: object, **options: int) -> T | None:
    """None in place of a FormatError, whose words and causes may repeat a part of the key."""
    try:
        return parse(*arguments, "volume key", **options)
    except FormatError:
        return None
