"""What a sealed tree holds, as the encrypted part of its MANIFEST says: a name, entries, the digest of TAGS.

Entries are sorted by path and every parent directory comes before what it holds. Files below INLINE_BELOW
bytes are kept in the manifest itself, all others are objects whose tags follow each other in TAGS in the
order of the entries. Source: docs/formats/sealed.md, section 4.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self, TypeAlias

from strongroom.errors import FormatError
from strongroom.sealed.keys import KEY_SIZE
from strongroom.sealed.paths import MAX_PATH, check_link, check_path, parent
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u

INLINE_BELOW: Final = 64 * 1024  # bytes
MAX_BODY: Final = 256 * 1024 * 1024  # bytes of JSON
MAX_ENTRIES: Final = 1 << 20
_MAX_VALUES: Final = 10 * MAX_ENTRIES  # an entry has 8 members at most
MAX_NAME: Final = 128  # characters of a volume name
MAX_SIZE: Final = 1 << 48  # bytes of one file
OBJECT_ID_SIZE: Final = 16
_MAX_MTIME: Final = 2**40  # seconds
_MAX_NANOS: Final = 999_999_999


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """What every entry has: its place in the tree, and when its content changed last."""

    path: str
    mtime: int  # seconds
    nanos: int = 0  # nanoseconds beyond them

    @property
    def mtime_ns(self) -> int:
        """The same moment in nanoseconds since 1970."""
        return self.mtime * 1_000_000_000 + self.nanos


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory(_Named):
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineFile(_Named):
    mode: int
    content: bytes = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFile(_Named):
    """A file kept as an object, under a key of its own that seals this version of this file and nothing else.

    `sha256` is the digest of its plaintext, the one model-signing tools sign; None when the sealer left it out.
    """

    mode: int
    size: int
    object_id: bytes
    key: bytes = field(repr=False)
    sha256: bytes | None = None

    @property
    def object_name(self) -> str:
        """The object's file name under objects/."""
        return self.object_id.hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Symlink(_Named):
    target: str


Entry: TypeAlias = Directory | InlineFile | SealedFile | Symlink


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    name: str
    entries: tuple[Entry, ...]
    tags_sha256: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.tags_sha256) != 32:
            raise FormatError(f"manifest: tags_sha256 is {len(self.tags_sha256)} bytes, want 32")
        if len(self.entries) > MAX_ENTRIES:
            raise FormatError(f"manifest: {len(self.entries)} entries, want at most {MAX_ENTRIES}")
        _check_order(self.entries)
        _check_links(self.entries)
        _check_unique("object id", (file.object_id for file in self.objects))
        _check_unique("key of an object", (file.key for file in self.objects))
        for entry in self.entries:
            _check_entry(entry)

    @property
    def objects(self) -> tuple[SealedFile, ...]:
        """Files kept as objects, in the order of their tags."""
        return tuple(entry for entry in self.entries if isinstance(entry, SealedFile))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        raw = _Fields(parse_json(data, "manifest", max_bytes=MAX_BODY, max_values=_MAX_VALUES), "manifest")
        name, tags = raw.text("name"), raw.octets("tags_sha256", 32)
        entries = raw.rows("entries")
        raw.end()
        return cls(name=name, tags_sha256=tags, entries=tuple(map(parse_entry, entries)))

    def pack(self) -> bytes:
        body = pack_json(
            {
                "name": self.name,
                "entries": [pack_entry(entry) for entry in self.entries],
                "tags_sha256": self.tags_sha256.hex(),
            }
        )
        if len(body) > MAX_BODY:
            raise FormatError(f"manifest: {len(body)} bytes, want at most {MAX_BODY}: too many small files")
        return body


def check_name(name: str) -> None:
    """Raise FormatError unless this is fit to name a volume, in a path, a log line or a URI."""
    fit = all(char.isascii() and (char.isalnum() or char in "._/:+-") for char in name)
    if not fit or not 1 <= len(name) <= MAX_NAME:
        raise FormatError(f"manifest: name is {name[:64]!r}, want 1..{MAX_NAME} letters, digits or ._/:+-")


def _check_order(entries: tuple[Entry, ...]) -> None:
    directories, before = {""}, b""
    for entry in entries:
        check_path(entry.path)
        if (path := entry.path.encode()) <= before:
            raise FormatError(f"manifest: path {entry.path!r} is out of order or there twice")
        if parent(entry.path) not in directories:
            raise FormatError(f"manifest: path {entry.path!r} lies in no directory of the manifest")
        if isinstance(entry, Directory):
            directories.add(entry.path)
        before = path


def _check_links(entries: tuple[Entry, ...]) -> None:
    links = {entry.path: entry.target for entry in entries if isinstance(entry, Symlink)}
    names = {entry.path: isinstance(entry, Directory) for entry in entries}
    for path, target in links.items():
        if len(target.encode(errors="replace")) >= MAX_PATH:
            raise FormatError(f"manifest: link {path!r} has a target of {MAX_PATH} bytes or more")
        check_link(path, links=links, names=names)


def _check_unique(what: str, ids: Iterable[bytes]) -> None:
    seen: set[bytes] = set()
    for one in ids:
        if one in seen:
            raise FormatError(f"manifest: {what} is there twice")
        seen.add(one)


def _check_entry(entry: Entry) -> None:
    at = f"manifest: {entry.path!r}"
    _in_range(entry.mtime, 0, _MAX_MTIME, f"{at}: mtime")
    _in_range(entry.nanos, 0, _MAX_NANOS, f"{at}: nanos")
    if isinstance(entry, Symlink):
        return
    _in_range(entry.mode, 0, 0o777, f"{at}: mode")
    if isinstance(entry, InlineFile):
        _in_range(len(entry.content), 0, INLINE_BELOW - 1, f"{at}: inline size")
    if isinstance(entry, SealedFile):
        _in_range(entry.size, INLINE_BELOW, MAX_SIZE, f"{at}: size")
        _in_range(len(entry.object_id), OBJECT_ID_SIZE, OBJECT_ID_SIZE, f"{at}: length of object id")
        _in_range(len(entry.key), KEY_SIZE, KEY_SIZE, f"{at}: length of key")
        if entry.sha256 is not None:
            _in_range(len(entry.sha256), 32, 32, f"{at}: length of sha256")


def _in_range(value: int, low: int, high: int, subject: str) -> None:
    if not low <= value <= high:
        raise FormatError(f"{subject} is {value}, want {low}..{high}")


def pack_entry(entry: Entry) -> JSON:
    """One entry as it stands in the body of a MANIFEST."""
    packed: dict[str, JSON] = {"path": entry.path, "mtime": entry.mtime, "nanos": entry.nanos}
    match entry:
        case Directory():
            return packed | {"type": "directory", "mode": entry.mode}
        case Symlink():
            return packed | {"type": "symlink", "target": entry.target}
        case InlineFile():
            return packed | {"type": "inline", "mode": entry.mode, "content": b64u(entry.content)}
        case SealedFile():
            digest: dict[str, JSON] = {} if entry.sha256 is None else {"sha256": entry.sha256.hex()}
            return packed | digest | {
                "type": "object",
                "mode": entry.mode,
                "size": entry.size,
                "object_id": entry.object_id.hex(),
                "key": entry.key.hex(),
            }  # fmt: skip


def parse_entry(value: JSON) -> Entry:
    """One entry, its members exactly those of its type. What they may say is checked with the whole manifest."""
    raw = _Fields(value, "manifest: entry")
    kind, path, mtime, nanos = raw.text("type"), raw.text("path"), raw.whole("mtime"), raw.whole("nanos")
    entry: Entry
    match kind:
        case "directory":
            entry = Directory(path=path, mtime=mtime, nanos=nanos, mode=raw.whole("mode"))
        case "symlink":
            entry = Symlink(path=path, mtime=mtime, nanos=nanos, target=raw.text("target"))
        case "inline":
            content = unb64u(raw.text("content"), "manifest: content")
            entry = InlineFile(path=path, mtime=mtime, nanos=nanos, mode=raw.whole("mode"), content=content)
        case "object":
            entry = SealedFile(
                path=path,
                mtime=mtime,
                nanos=nanos,
                mode=raw.whole("mode"),
                size=raw.whole("size"),
                object_id=raw.octets("object_id", OBJECT_ID_SIZE),
                key=raw.octets("key", KEY_SIZE),
                sha256=raw.octets("sha256", 32) if raw.has("sha256") else None,
            )
        case _:
            raise FormatError(f"manifest: type is {kind!r}, want directory, symlink, inline or object")
    raw.end()
    return entry


class _Fields:
    """The members of one JSON object, each taken once; what is left over is an error."""

    def __init__(self, value: JSON, at: str) -> None:
        if not isinstance(value, Mapping):
            raise FormatError(f"{at}: got {type(value).__name__}, want an object")
        self._left: dict[str, JSON] = dict(value)
        self._at = at

    def has(self, key: str) -> bool:
        return key in self._left

    def text(self, key: str) -> str:
        if not isinstance(value := self._left.pop(key, None), str):
            raise FormatError(f"{self._at}: {key} is {type(value).__name__}, want text")
        return value

    def whole(self, key: str) -> int:
        if type(value := self._left.pop(key, None)) is not int:  # bool is an int: type() on purpose
            raise FormatError(f"{self._at}: {key} is {type(value).__name__}, want a whole number")
        return value

    def octets(self, key: str, length: int) -> bytes:
        text = self.text(key)
        if len(text) != 2 * length or not set(text) <= set("0123456789abcdef"):
            raise FormatError(f"{self._at}: {key} is not {2 * length} lowercase hex digits")
        return bytes.fromhex(text)

    def rows(self, key: str) -> list[JSON]:
        if not isinstance(value := self._left.pop(key, None), list):
            raise FormatError(f"{self._at}: {key} is {type(value).__name__}, want a list")
        return list(value)

    def end(self) -> None:
        if self._left:
            raise FormatError(f"{self._at}: unknown member {min(self._left)!r}")
