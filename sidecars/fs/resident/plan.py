"""Whether files are read into memory ahead, and which. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sidecars.fs.config import Mode
from sidecars.fs.resident.filler import Part
from sidecars.fs.resident.memory import HUGE_PAGE, room
from strongroom.host.stored import Item

FROM: Final = 1 << 20  # bytes; a smaller file is quicker read than looked after
MARGIN: Final = 15  # percent that must stay available beside the files
_SMALLEST_PART: Final = 32 << 20  # bytes: less is not worth a second process


@dataclass(frozen=True, slots=True)
class File:
    node: int
    key: int
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Files in the order in which they are read, the bytes of memory they take, and why there are not more."""

    files: tuple[File, ...]
    limit: int  # bytes
    shortage: str = ""


def candidates(files: Sequence[tuple[int, Item]]) -> tuple[File, ...]:
    """Every file worth it, in the order of the volume: that of its shards."""
    return tuple(
        File(node, item.key, item.size) for node, item in files if item.key is not None and item.size >= FROM
    )


def make_plan(
    files: Sequence[File], *, mode: Mode, passthrough: bool, available: int, budget: int | None
) -> Plan:
    """All of them or, where they do not fit, none; with mode "resident" as many of the first ones as fit."""
    if mode is Mode.STREAM or not files:
        return Plan((), 0)
    if not passthrough:
        return Plan((), 0, "the kernel reads no backing files, want Linux 6.9 or newer")
    limit = available * 100 // (100 + MARGIN) - HUGE_PAGE
    if budget is not None:
        limit = min(limit, budget)
    taken: list[File] = []
    needed = 0
    for file in files:
        if needed + room(file.size) > limit:
            break
        needed += room(file.size)
        taken.append(file)
    if len(taken) == len(files):
        return Plan(tuple(taken), needed + HUGE_PAGE)  # and the ledger
    wanted = sum(room(file.size) for file in files)
    shortage = f"{gigabytes(wanted)} GB do not fit into {gigabytes(max(limit, 0))} GB of memory"
    if mode is Mode.AUTO or not taken:
        return Plan((), 0, shortage)
    return Plan(tuple(taken), needed + HUGE_PAGE, shortage)


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}"


def cut(file: File, processes: int) -> list[Part]:
    """The file in as many contiguous parts as there are processes, fewer where that is not worth it.

    Contiguous: the kernel reads ahead for each of them, which no other order allows.
    """
    count = max(1, min(processes, file.size // _SMALLEST_PART))
    length = room(-(-file.size // count))
    return [
        Part(file.node, file.key, offset, min(length, file.size - offset))
        for offset in range(0, file.size, length)
    ]
