"""What a run was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.fs.names import PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    size: int  # bytes of the large file
    files: int  # of the small ones
    rounds: int
    folder: Path  # for volumes, best in memory
    disk: Path  # for volumes on a disk
    quick: bool
    subjects: frozenset[str]  # empty: every one

    @property
    def where(self) -> str:
        return str(self.folder)

    def chosen(self, subjects: Sequence[str]) -> tuple[str, ...]:
        """Those of `subjects` that were asked for; the plain files always are."""
        return tuple(name for name in subjects if not self.subjects or name == PLAIN or name in self.subjects)
