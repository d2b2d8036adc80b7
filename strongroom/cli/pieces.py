"""Files of evidence as a person has them: one file, a folder of them, or standard input, each told by its content."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.errors import ConfigError, FormatError
from strongroom.evidence.detect import MAX_BYTES, Kind, detect

STDIN: Final = "-"
MAX_FILES: Final = 256


@dataclass(frozen=True, slots=True)
class Piece:
    """One file; `name` is for messages alone."""

    name: str
    kind: Kind
    content: bytes


@dataclass(frozen=True, slots=True)
class Pieces:
    """What was given, in the order of the names; `unknown` names files of a folder that are nothing we know."""

    pieces: tuple[Piece, ...]
    unknown: tuple[str, ...] = ()

    def of(self, *kinds: Kind) -> tuple[Piece, ...]:
        return tuple(piece for piece in self.pieces if piece.kind in kinds)

    def one(self, *kinds: Kind) -> bytes | None:
        """The only piece of these kinds, or None; ConfigError when there are several to choose from."""
        found = self.of(*kinds)
        if len(found) > 1:
            names = ", ".join(piece.name for piece in found)
            raise ConfigError(f"evidence: {len(found)} files hold a {kinds[0]} ({names}), want one")
        return found[0].content if found else None

    def need(self, *kinds: Kind) -> bytes:
        """The only piece of these kinds, or ConfigError."""
        found = self.one(*kinds)
        if found is None:
            raise ConfigError(f"evidence: no {' or '.join(kinds)} given, want one beside the rest")
        return found

    def __add__(self, other: "Pieces") -> "Pieces":
        return Pieces(self.pieces + other.pieces, self.unknown + other.unknown)


def read(where: str) -> Pieces:
    """What stands at a path, or on standard input for "-"; FormatError for a single file we do not know."""
    if where == STDIN:
        content = _capped(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input")
        return Pieces((Piece("standard input", detect(content), content),))
    path = Path(where)
    if path.is_dir():
        return _folder(path)
    content = _contents(path)
    try:
        return Pieces((Piece(where, detect(content), content),))
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error


def read_all(paths: Sequence[str]) -> Pieces:
    """Everything at several paths."""
    return sum(map(read, paths), Pieces(()))


def _folder(path: Path) -> Pieces:
    known: list[Piece] = []
    unknown: list[str] = []
    for file in _files(path):
        content = _contents(file)
        try:
            known.append(Piece(file.name, detect(content), content))
        except FormatError:
            unknown.append(file.name)
    if not known:
        raise FormatError(f"{path}: {len(unknown)} files, want evidence among them")
    return Pieces(tuple(known), tuple(unknown))


def _files(path: Path) -> Iterator[Path]:
    files = sorted(file for file in path.iterdir() if file.is_file())
    if len(files) > MAX_FILES:
        raise ConfigError(f"{path}: {len(files)} files, want at most {MAX_FILES}")
    yield from files


def _contents(path: Path) -> bytes:
    with path.open("rb") as file:
        return _capped(file.read(MAX_BYTES + 1), str(path))


def _capped(content: bytes, name: str) -> bytes:
    if len(content) > MAX_BYTES:
        raise FormatError(f"{name}: more than {MAX_BYTES} bytes, want at most that")
    return content
