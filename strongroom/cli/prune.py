"""`strongroom prune`: remove what no release of a sealed tree uses any more."""

import argparse
import json
from typing import Any

from strongroom.cli.progress import size
from strongroom.cli.volume import add_volume, opened
from strongroom.host.sealed.pruning import leftovers, prune


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "prune",
        help="remove what a sealed model no longer uses",
        description="Remove objects and tags that the manifest of SEALED does not name, and what a cut seal left. "
        "The key tells which those are.",
        epilog="A machine that has an older release mounted still reads its objects: prune when none does.",
    )
    add_volume(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be removed, and remove nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    with opened(args.sealed, args.key) as (_, store):
        found = leftovers(store, args.sealed) if args.dry_run else prune(store, args.sealed)
    total = sum(one.size for one in found)
    if args.json:
        names = [str(one.path.relative_to(args.sealed)) for one in found]
        print(json.dumps({"removed": not args.dry_run, "files": names, "bytes": total}))
    else:
        print(f"{'unused' if args.dry_run else 'removed'}   {len(found)} files, {size(total)}")
    return 0
