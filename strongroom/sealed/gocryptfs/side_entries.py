"""What a side manifest says of each name in a volume: what it is in clear, and where it lies on disk.

Entries are sorted by the bytes of their paths, and every directory comes before what it holds. `stored` is the name on
disk in the directory the entry lies in. Source: docs/formats/gocryptfs.md, section 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from strongroom.errors import FormatError
from strongroom.sealed.gocryptfs.config import LONGEST_NAME
from strongroom.sealed.gocryptfs.content import BLOCK, FILE_ID_SIZE
from strongroom.sealed.paths import MAX_PATH, check_link, check_path, parent
from strongroom.wire.canonical import JSON

MAX_ENTRIES: Final = 1 << 20
MAX_SIZE: Final = 1 << 48  # bytes of one file
MAX_HOLES: Final = 1 << 16  # runs of holes in one file
PIN_LOG2: Final = 20  # one digest for each MiB of plaintext
_MAX_MTIME: Final = 1 << 40  # seconds
_MAX_NANOS: Final = 999_999_999


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    path: str
    stored: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory(Named):
    mode: int
    mtime: int  # seconds
    nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class File(Named):
    """`holes` are runs of blocks that are holes: number of the first, and how many. `file_id` is None when empty."""

    mode: int
    mtime: int
    nanos: int
    size: int
    file_id: bytes | None
    holes: tuple[tuple[int, int], ...] = ()

    @property
    def pins(self) -> int:
        """How many digests it has."""
        return -(-self.size >> PIN_LOG2)


@dataclass(frozen=True, slots=True, kw_only=True)
class HardLink(Named):
    """Another name of the file at the path `same`, which comes before it."""

    same: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Symlink(Named):
    mtime: int
    nanos: int
    target: str


Entry: TypeAlias = Directory | File | HardLink | Symlink
_KINDS: Final[Mapping[str, type[Entry]]] = {
    "directory": Directory,
    "file": File,
    "hard link": HardLink,
    "symlink": Symlink,
}
_WORDS: Final = {kind: word for word, kind in _KINDS.items()}


def check_entries(entries: tuple[Entry, ...]) -> None:
    """Raise FormatError naming the first entry that breaks a rule of the format."""
    if len(entries) > MAX_ENTRIES:
        raise FormatError(f"side manifest: {len(entries)} entries, want at most {MAX_ENTRIES}")
    names: dict[str, Entry] = {}
    taken, before = set[tuple[str, str]](), b""
    for entry in entries:
        check_path(entry.path)
        if (path := entry.path.encode()) <= before:
            raise FormatError(f"side manifest: path {entry.path!r} is out of order or there twice")
        above = parent(entry.path)
        if above and not isinstance(names.get(above), Directory):
            raise FormatError(f"side manifest: path {entry.path!r} lies in no directory of the manifest")
        _check_stored(entry)
        if (above, entry.stored) in taken:
            raise FormatError(f"side manifest: {entry.path!r} lies where another entry does")
        if isinstance(entry, HardLink) and not isinstance(names.get(entry.same), File):
            raise FormatError(
                f"side manifest: {entry.path!r} is the same as {entry.same!r}, which is no file before it"
            )
        _check_values(entry)
        taken.add((above, entry.stored))
        names[entry.path], before = entry, path
    _check_links(names)


def pack_entry(entry: Entry) -> JSON:
    """One entry as it stands in a side manifest."""
    packed: dict[str, JSON] = {"type": _WORDS[type(entry)], "path": entry.path, "stored": entry.stored}
    match entry:
        case Directory():
            return packed | {"mode": entry.mode, "mtime": entry.mtime, "nanos": entry.nanos}
        case Symlink():
            return packed | {"mtime": entry.mtime, "nanos": entry.nanos, "target": entry.target}
        case HardLink():
            return packed | {"same": entry.same}
        case File():
            packed |= {"mode": entry.mode, "mtime": entry.mtime, "nanos": entry.nanos, "size": entry.size}
            if entry.file_id is not None:
                packed["file_id"] = entry.file_id.hex()
            if entry.holes:
                packed["holes"] = [list(run) for run in entry.holes]
            return packed


def parse_entry(value: JSON) -> Entry:
    """One entry, its members exactly those of its type. What they may say is checked with all entries."""
    if not isinstance(value, Mapping):
        raise FormatError(f"side manifest: entry is {type(value).__name__}, want an object")
    left = dict(value)
    if not isinstance(word := left.pop("type", None), str) or word not in _KINDS:
        raise FormatError(f"side manifest: type is {str(word)[:64]!a}, want one of {', '.join(_KINDS)}")
    kind = _KINDS[word]
    members: dict[str, object] = {key: _text(left, key) for key in ("path", "stored")}
    if kind is HardLink:
        members["same"] = _text(left, "same")
    else:
        members |= {key: _whole(left, key) for key in ("mtime", "nanos")}
    if kind is Symlink:
        members["target"] = _text(left, "target")
    if kind in (Directory, File):
        members["mode"] = _whole(left, "mode")
    if kind is File:
        members["size"] = _whole(left, "size")
        members["file_id"] = _octets(left, "file_id") if "file_id" in left else None
        members["holes"] = _runs(left.pop("holes")) if "holes" in left else ()
    if left:
        raise FormatError(f"side manifest: unknown member {min(left)[:64]!a} of a {word}")
    return kind(**members)  # type: ignore[arg-type]  # each was typed above


def _check_stored(entry: Entry) -> None:
    name = entry.stored
    plain = name not in ("", ".", "..") and "/" not in name and "\0" not in name
    if not plain or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise FormatError(f"side manifest: {entry.path!r} is stored as {name[:64]!r}, want a name")


def _check_values(entry: Entry) -> None:
    at = f"side manifest: {entry.path!r}"
    if isinstance(entry, HardLink):
        return
    _in_range(entry.mtime, 0, _MAX_MTIME, f"{at}: mtime")
    _in_range(entry.nanos, 0, _MAX_NANOS, f"{at}: nanos")
    if isinstance(entry, Symlink):
        return
    _in_range(entry.mode, 0, 0o777, f"{at}: mode")
    if isinstance(entry, File):
        _in_range(entry.size, 0, MAX_SIZE, f"{at}: size")
        if (entry.file_id is None) is not (entry.size == 0):
            raise FormatError(f"{at}: want a file_id for every file that is not empty, and for no other")
        if entry.file_id is not None and (len(entry.file_id) != FILE_ID_SIZE or not any(entry.file_id)):
            raise FormatError(f"{at}: file_id is zero or not {FILE_ID_SIZE} bytes")
        _check_holes(entry, at)


def _check_holes(entry: File, at: str) -> None:
    if len(entry.holes) > MAX_HOLES:
        raise FormatError(f"{at}: {len(entry.holes)} runs of holes, want at most {MAX_HOLES}")
    free = 0
    for first, count in entry.holes:
        if first < free or count < 1 or first + count > entry.size // BLOCK:
            raise FormatError(f"{at}: a hole of {count} blocks at block {first} overlaps or leaves the file")
        free = first + count + 1  # runs that touch are one run


def _check_links(names: Mapping[str, Entry]) -> None:
    links = {path: entry.target for path, entry in names.items() if isinstance(entry, Symlink)}
    kinds = {path: isinstance(entry, Directory) for path, entry in names.items()}
    for path, target in links.items():
        if len(target.encode(errors="replace")) >= MAX_PATH:
            raise FormatError(f"side manifest: link {path!r} has a target of {MAX_PATH} bytes or more")
        check_link(path, links=links, names=kinds)


def _in_range(value: int, low: int, high: int, subject: str) -> None:
    if not low <= value <= high:
        raise FormatError(f"{subject} is {value}, want {low}..{high}")


def _text(left: dict[str, JSON], key: str) -> str:
    if not isinstance(value := left.pop(key, None), str):
        raise FormatError(f"side manifest: {key} is {type(value).__name__}, want text")
    return value


def _whole(left: dict[str, JSON], key: str) -> int:
    if type(value := left.pop(key, None)) is not int:  # bool is an int: type() on purpose
        raise FormatError(f"side manifest: {key} is {type(value).__name__}, want a whole number")
    return value


def _octets(left: dict[str, JSON], key: str) -> bytes:
    text = _text(left, key)
    if len(text) != 2 * FILE_ID_SIZE or not set(text) <= set("0123456789abcdef"):
        raise FormatError(
            f"side manifest: {key} is {text[:64]!r}, want {2 * FILE_ID_SIZE} lowercase hex digits"
        )
    return bytes.fromhex(text)


def _runs(value: JSON) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list) or not value:
        raise FormatError("side manifest: holes want a list of runs, or no member")
    runs = []
    for run in value:
        if not isinstance(run, list) or [type(number) for number in run] != [int, int]:
            raise FormatError("side manifest: a run of holes wants two whole numbers")
        runs.append((int(run[0]), int(run[1])))  # type: ignore[arg-type]  # checked above
    return tuple(runs)
