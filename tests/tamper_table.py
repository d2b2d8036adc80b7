"""`python -m tests.tamper_table [--scale N] [--mount]`: a sealed tree changed in every way, and what readers got."""

import argparse
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strongroom.cli.terminal import table
from tests.fakes.mounts import forget_pages, mounted, refused
from tests.fakes.sealed import CHUNK, SealedFixture
from tests.tampering import EPOCH, NEXT_KEY, Change, Seen, Tally, Target, View, changes, make_target, sweep
from tests.tampering import through_the_tree as tree_view


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tamper_table", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--scale",
        type=int,
        default=1,
        metavar="N",
        help="16 (N - 1) chunks more in one file; pairs of chunks at N = 1 alone",
    )
    parser.add_argument("--mount", action="store_true", help="read through a real mount (root, /dev/fuse)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        target = make_target(Path(work), scale=args.scale)
        tallies = in_a_mount(target, Path(work)) if args.mount else in_the_tree(target)
    return tell(tallies)


def in_the_tree(target: Target) -> list[Tally]:
    """Every change, made before the tree is opened."""
    return sweep(target, changes(target), tree_view(target), opened=False)


def in_a_mount(target: Target, work: Path, *, step: int = 1) -> list[Tally]:
    """Every `step`-th change a mounted tree can meet, then some of those that must keep it from being mounted."""
    meeting = [change for change in changes(target) if change.in_place][::step]
    with _mounted(target, work) as view:
        tallies = sweep(target, meeting, view, opened=True)
    closed: dict[str, list[Change]] = {}
    for change in changes(target):
        if not change.opens:
            closed.setdefault(change.kind, []).append(change)
    for kind, found in closed.items():
        tallies.append(tally := Tally(f"{kind}, then mounted"))
        for number in sorted({0, len(found) // 2, len(found) - 1}):
            _try_to_mount(target, work, found[number], tally)
    return tallies


def tell(tallies: list[Tally]) -> int:
    counts = [(t.tried, t.refused_trees, t.refused_chunks, len(t.wrong)) for t in tallies]
    sums = [sum(column) for column in zip(*counts, strict=True)]
    rows = [(t.kind, *map(str, count)) for t, count in zip(tallies, counts, strict=True)]
    print(table([("change", "tried", "refused: tree", "chunks", "wrong"), *rows, ("all", *map(str, sums))]))
    wrong = [sentence for tally in tallies for sentence in tally.wrong]
    print("\n".join(wrong[:20]), end="\n" if wrong else "")
    return 1 if wrong else 0


@contextmanager
def _mounted(target: Target, work: Path) -> Iterator[View]:
    """The real daemon over the tree; the view reads every chunk through the kernel, its cache dropped before."""
    with mounted(_fixture(target), _place(work), key=NEXT_KEY) as daemon:

        def view() -> Seen:
            seen: Seen = {}
            for path in target.contents:
                forget_pages(daemon.mount / path)
            for path, number in target.chunks():
                seen[path, number] = _read(daemon.mount / path, number, len(target.truth((path, number))))
            return seen

        yield view


def _read(path: Path, number: int, length: int) -> bytes | None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)  # each chunk by a request of its own
    try:
        return os.pread(fd, length, number * CHUNK)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None
    finally:
        os.close(fd)


def _try_to_mount(target: Target, work: Path, change: Change, tally: Tally) -> None:
    undo = change.make()
    try:
        status, _ = refused(_fixture(target), _place(work), key=NEXT_KEY)
    finally:
        undo()
    tally.judge(change, None if status in (4, 5, 6) else {}, target, opens=False)


def _fixture(target: Target) -> SealedFixture:
    return SealedFixture(target.path, target.root, EPOCH, target.contents, target.objects)


def _place(work: Path) -> Path:
    (work / "p").mkdir(exist_ok=True)
    return work / "p"


if __name__ == "__main__":
    sys.exit(main())
