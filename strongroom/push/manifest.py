"""What a provider is about to push, in canonical JSON; its SHA-256 names the model in the clear, as its maker has it.

    {"version": "strongroom/push/v1", "name": text, "epoch": int, "entries": [entry, ...]}

    directory   "type": "directory", path, mode, mtime, nanos
    file        "type": "file", path, mode, mtime, nanos, size, sha256
    link        "type": "symlink", path, mtime, nanos, target

The rules for names, order, links and numbers are those of a sealed tree, which this is to become.
Source: docs/formats/push.md, section 3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Final, Self, TypeAlias

from strongroom.errors import FormatError
from strongroom.sealed.header import MAX_EPOCH
from strongroom.sealed.keys import KEY_SIZE
from strongroom.sealed.manifest import (
    INLINE_BELOW,
    MAX_BODY,
    OBJECT_ID_SIZE,
    Directory,
    Entry,
    InlineFile,
    Manifest,
    SealedFile,
    Symlink,
)
from strongroom.wire.canonical import JSON, pack_json, parse_json

VERSION: Final = "strongroom/push/v1"
MAX_BYTES: Final = 32 << 20  # of a packed manifest
_OBJECT: Final = 160  # bytes that an object's entry in a MANIFEST has beyond its entry here, at most
_KINDS: Final = {
    "directory": {"path", "mode", "mtime", "nanos"},
    "file": {"path", "mode", "mtime", "nanos", "size", "sha256"},
    "symlink": {"path", "mtime", "nanos", "target"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainFile:
    """A file as its provider has it."""

    path: str
    mode: int
    mtime: int  # seconds
    nanos: int
    size: int
    sha256: bytes

    def sealed(self, entropy: Callable[[int], bytes]) -> InlineFile | SealedFile:
        """Its entry in a sealed tree, an object under a fresh id and a fresh key; a small file without its content."""
        if self.size < INLINE_BELOW:
            return InlineFile(path=self.path, mode=self.mode, mtime=self.mtime, nanos=self.nanos, content=b"")
        return SealedFile(
            path=self.path,
            mode=self.mode,
            mtime=self.mtime,
            nanos=self.nanos,
            size=self.size,
            object_id=entropy(OBJECT_ID_SIZE),
            key=entropy(KEY_SIZE),
            sha256=self.sha256,
        )


PlainEntry: TypeAlias = Directory | PlainFile | Symlink


@dataclass(frozen=True, kw_only=True)
class PushManifest:
    """One release of a model, in the clear. Making one refuses what could not be sealed and served."""

    name: str
    epoch: int
    entries: tuple[PlainEntry, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.epoch <= MAX_EPOCH:
            raise FormatError(f"push manifest: epoch is {self.epoch}, want 1..{MAX_EPOCH}")
        if any(file.size < 0 or len(file.sha256) != 32 for file in self.files):
            raise FormatError("push manifest: a file has a size below 0, or a digest that is not 32 bytes")
        numbers = iter(range(1, 2 * len(self.files) + 1))
        entries = self.sealed(lambda length: next(numbers).to_bytes(length, "big"))
        try:
            Manifest(name=self.name, entries=entries, tags_sha256=bytes(32))
        except FormatError as error:
            raise FormatError(f"push {error}") from None
        if (size := self._sealed_size()) > MAX_BODY:
            raise FormatError(
                f"push manifest: small files and names take {size} bytes, want at most {MAX_BODY}"
            )

    @cached_property
    def files(self) -> tuple[PlainFile, ...]:
        """In the order in which their bytes are pushed."""
        return tuple(entry for entry in self.entries if isinstance(entry, PlainFile))

    @cached_property
    def packed(self) -> bytes:
        """The canonical bytes."""
        entries: list[JSON] = [_pack(entry) for entry in self.entries]
        return pack_json({"version": VERSION, "name": self.name, "epoch": self.epoch, "entries": entries})

    @property
    def digest(self) -> bytes:
        """The 32 bytes that name this model in the clear, whoever sealed it where."""
        return sha256(self.packed).digest()

    def sealed(self, entropy: Callable[[int], bytes]) -> tuple[Entry, ...]:
        """The entries of the sealed tree to be, small files still without their content."""
        return tuple(
            entry.sealed(entropy) if isinstance(entry, PlainFile) else entry for entry in self.entries
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the canonical form; FormatError for any other bytes."""
        value = parse_json(data, "push manifest", max_bytes=MAX_BYTES, max_depth=4, max_values=MAX_BYTES // 8)
        match value:
            case {"version": str(version), "name": str(name), "epoch": int(epoch), "entries": list(rows)}:
                pass
            case _:
                raise FormatError("push manifest: want an object of version, name, epoch and entries")
        if type(epoch) is not int:  # bool is an int
            raise FormatError("push manifest: epoch is not a whole number")
        if version != VERSION:
            raise FormatError(f"push manifest: version is {version[:64]!r}, want {VERSION!r}")
        manifest = cls(name=name, epoch=epoch, entries=tuple(map(_parse, rows)))
        if manifest.packed != data:
            raise FormatError("push manifest: not in canonical form (RFC 8785), or with other members")
        return manifest

    def _sealed_size(self) -> int:
        """Bytes of the MANIFEST that this becomes, at most."""
        sizes = [file.size for file in self.files]
        content = sum(-(-size * 4 // 3) + 1 for size in sizes if size < INLINE_BELOW)
        return len(self.packed) + content + _OBJECT * sum(size >= INLINE_BELOW for size in sizes)


def _pack(entry: PlainEntry) -> JSON:
    packed: dict[str, JSON] = {"path": entry.path, "mtime": entry.mtime, "nanos": entry.nanos}
    match entry:
        case Directory():
            return packed | {"type": "directory", "mode": entry.mode}
        case Symlink():
            return packed | {"type": "symlink", "target": entry.target}
        case PlainFile():
            content: dict[str, JSON] = {"size": entry.size, "sha256": entry.sha256.hex()}
            return packed | content | {"type": "file", "mode": entry.mode}


def _parse(value: JSON) -> PlainEntry:
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(kind, str) or kind not in _KINDS:
        raise FormatError("push manifest: an entry is no directory, file or symlink")
    if value.keys() != _KINDS[kind] | {"type"}:
        raise FormatError(f"push manifest: a {kind} has other members than {', '.join(sorted(_KINDS[kind]))}")
    path, mtime, nanos = _text(value, "path"), _whole(value, "mtime"), _whole(value, "nanos")
    match kind:
        case "directory":
            return Directory(path=path, mtime=mtime, nanos=nanos, mode=_whole(value, "mode"))
        case "symlink":
            return Symlink(path=path, mtime=mtime, nanos=nanos, target=_text(value, "target"))
        case _:
            return PlainFile(
                path=path,
                mtime=mtime,
                nanos=nanos,
                mode=_whole(value, "mode"),
                size=_whole(value, "size"),
                sha256=_digest(value, "sha256"),
            )


def _text(raw: dict[str, JSON], key: str) -> str:
    if not isinstance(value := raw[key], str):
        raise FormatError(f"push manifest: {key} is {type(value).__name__}, want text")
    return value


def _whole(raw: dict[str, JSON], key: str) -> int:
    if type(value := raw[key]) is not int:  # bool is an int: type() on purpose
        raise FormatError(f"push manifest: {key} is {type(value).__name__}, want a whole number")
    return value


def _digest(raw: dict[str, JSON], key: str) -> bytes:
    text = _text(raw, key)
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise FormatError(f"push manifest: {key} is not 64 lowercase hex digits")
    return bytes.fromhex(text)
