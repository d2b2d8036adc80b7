"""Mirrors sidecars/fs/resident/plan.py."""

import stat

import pytest

from sidecars.fs.config import Mode
from sidecars.fs.resident.memory import HUGE_PAGE
from sidecars.fs.resident.plan import FROM, File, Plan, candidates, cut, make_plan
from strongroom.host.stored import Item

MIB = 1 << 20
FILES = (File(2, 0, 5 * MIB), File(3, 1, 4 * MIB), File(5, 2, MIB))  # six, four and two MiB of pages
ALL = 12 * MIB


def plan(
    mode: Mode = Mode.AUTO, *, passthrough: bool = True, available: int = 1 << 40, budget: int | None = None
) -> Plan:
    return make_plan(FILES, mode=mode, passthrough=passthrough, available=available, budget=budget)


def test_candidates_are_files_worth_it() -> None:
    regular = stat.S_IFREG | 0o644
    items = [
        (2, Item(path=b"a", mode=regular, size=FROM, key=0)),
        (3, Item(path=b"b", mode=regular, size=FROM - 1, key=1)),
        (4, Item(path=b"c", mode=regular, size=3, content=b"abc")),
    ]
    assert candidates(items) == (File(2, 0, FROM),)


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.RESIDENT])
def test_all_fit(mode: Mode) -> None:
    assert plan(mode) == Plan(FILES, ALL + HUGE_PAGE)
    assert plan(mode, budget=ALL) == Plan(FILES, ALL + HUGE_PAGE)


def test_fifteen_percent_stay_available() -> None:
    enough = (ALL + HUGE_PAGE) * 115 // 100 + 1
    assert plan(available=enough).files == FILES
    short = plan(available=enough - MIB)
    assert short.files == ()
    assert short.shortage == "0.0 GB do not fit into 0.0 GB of memory"


def test_resident_takes_the_first_that_fit() -> None:
    assert plan(Mode.RESIDENT, budget=10 * MIB).files == FILES[:2]
    assert plan(Mode.RESIDENT, budget=10 * MIB).shortage
    assert plan(Mode.RESIDENT, budget=6 * MIB) == Plan(
        FILES[:1], 8 * MIB, "0.0 GB do not fit into 0.0 GB of memory"
    )
    assert plan(Mode.RESIDENT, budget=6 * MIB - 1).files == ()
    assert plan(Mode.RESIDENT, available=0).files == ()


def test_nothing_is_asked_of_a_kernel_that_cannot() -> None:
    assert plan(passthrough=False) == Plan(
        (), 0, "the kernel reads no backing files, want Linux 6.9 or newer"
    )
    assert plan(Mode.STREAM) == plan(Mode.STREAM, passthrough=False) == Plan((), 0)
    assert make_plan([], mode=Mode.AUTO, passthrough=False, available=0, budget=None) == Plan((), 0)


@pytest.mark.parametrize("size", [MIB, 2 * MIB, 63 * MIB, 64 * MIB, 1000 * MIB + 17])
@pytest.mark.parametrize("processes", [1, 2, 3, 16])
def test_parts_cover_a_file_once(size: int, processes: int) -> None:
    parts = cut(File(9, 4, size), processes)
    assert 1 <= len(parts) <= processes
    position = 0
    for part in parts:
        assert (part.node, part.key, part.offset) == (9, 4, position)
        assert part.offset % HUGE_PAGE == 0
        assert part.length > 0
        position += part.length
    assert position == size
