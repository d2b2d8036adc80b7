"""`strongroom broker audit`: print the log of decisions, keep it, and check that nobody changed it."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from strongroom.broker.audit import Head, verify_chain
from strongroom.cli.broker_target import act, add_target, is_url
from strongroom.errors import FormatError
from strongroom.host.brokerage import ledger
from strongroom.host.brokerage.administration import MAX_LINES
from strongroom.host.brokerage.house import House

_PAGE: Final = 1000


def add_audit(verbs: Any) -> None:
    audit = verbs.add_parser(
        "audit", help="print or check the log of every decision; BROKER may be a kept log"
    )
    add_target(audit)
    audit.add_argument(
        "--verify", action="store_true", help="check every line, print the head and nothing else"
    )
    audit.add_argument(
        "--head",
        action="append",
        default=[],
        metavar="N:HEX",
        help="a head you kept: the log must still have it; may be repeated, implies --verify",
    )
    audit.add_argument("--first", type=int, default=1, metavar="N", help="print from this line on")
    audit.set_defaults(action=_audit)


def _audit(args: argparse.Namespace) -> int:
    kept = [Head.parse(text) for text in args.head]
    if args.verify or kept:
        print(f"audit verified, {_verified(args, kept)}")
        return 0
    for line in _lines(args, max(args.first, 1)):
        print(line.decode())
    return 0


def _verified(args: argparse.Namespace, kept: list[Head]) -> Head:
    path = Path(args.target)
    if is_url(args.target) or path.is_file():
        return verify_chain(_lines(args, 1), kept=kept)
    with House(path) as house:  # with its root key: also that the end was not cut off
        return house.verify_audit(kept)


def _lines(args: argparse.Namespace, first: int) -> Iterator[bytes]:
    path = Path(args.target)
    if is_url(args.target):
        yield from _remote(args, first)
    elif path.is_file():
        yield from _kept(path, first)
    else:
        with House(path) as house:
            while page := ledger.read(house.database, first=first, count=_PAGE):
                yield from page
                first += len(page)


def _remote(args: argparse.Namespace, first: int) -> Iterator[bytes]:
    """As of now: reading is itself in the log, so its end would run away from us."""
    last: int | None = None
    while last is None or first <= last:
        answered = act(args, "audit", first=first, count=MAX_LINES)
        lines = [line.encode() for line in answered.result["lines"]]
        last = int(answered.result["last"]) if last is None else last
        yield from lines[: last - first + 1]
        if not lines:
            return
        first += len(lines)


def _kept(path: Path, first: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                raise FormatError(f"{path}: line {number} is not finished")
            if number >= first:
                yield line[:-1]
