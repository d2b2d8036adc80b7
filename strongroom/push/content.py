"""The bytes of all files of a manifest, one file behind the other in its order: "how far" is one number.

Small files travel together this way, and a file may end anywhere in a message. Source: docs/formats/push.md, section 4.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from strongroom.errors import FormatError


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `end` of a content; `end` is not among them."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise FormatError(f"push: range {self.start}..{self.end} holds no byte")

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of one file."""

    file: int  # its number among the files
    offset: int  # in the file
    length: int


class Content:
    """Where each of the files lies. `sizes` are theirs, in the order of the manifest."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._starts: Final = [0, *accumulate(sizes)]

    @property
    def size(self) -> int:
        return self._starts[-1]

    def start(self, file: int) -> int:
        """Where a file begins; for the number behind the last one, the end of all."""
        return self._starts[file]

    def pieces(self, span: Span) -> Iterator[Piece]:
        """The files that a span touches, and what of each; FormatError when it reaches past the end."""
        if span.end > self.size:
            raise FormatError(f"push: range {span.start}..{span.end} reaches past the end at {self.size}")
        at, file = span.start, bisect_right(self._starts, span.start) - 1
        while at < span.end:
            if length := min(span.end, self._starts[file + 1]) - at:
                yield Piece(file, at - self._starts[file], length)
            at, file = at + length, file + 1

    def spans(self, files: Collection[int]) -> tuple[Span, ...]:
        """The bytes of some of the files, as few spans as can be, in order."""
        found: list[Span] = []
        for file in sorted(files):
            start, end = self._starts[file], self._starts[file + 1]
            if start == end:
                continue
            if found and found[-1].end == start:
                start = found.pop().start
            found.append(Span(start, end))
        return tuple(found)
