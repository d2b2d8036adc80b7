"""`strongroom open`: a sealed tree back into a directory anybody on this machine may read."""

import argparse
import json
from pathlib import Path
from typing import Any

from strongroom.cli.progress import size
from strongroom.cli.volume import add_volume, add_workers, opened, stages
from strongroom.host.sealed.opening import open_tree
from strongroom.sealed.manifest import InlineFile, SealedFile


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "open",
        help="decrypt a sealed model into a directory",
        description="Write the files of SEALED into DEST, in the clear. Whatever does not verify is not written, and "
        "then nothing stays.",
    )
    add_volume(parser)
    parser.add_argument("dest", metavar="DEST", type=Path, help="directory to make; must be absent or empty")
    add_workers(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    with opened(args.sealed, args.key) as (key, store), stages() as shown:
        total = sum(one.file.size for one in store.objects)
        open_tree(store, args.dest, workers=args.workers, progress=shown.begin("opening", total))
        files = [entry for entry in store.manifest.entries if isinstance(entry, InlineFile | SealedFile)]
        name = store.manifest.name
    count, total = len(files), sum(file.size for file in files)
    if args.json:
        facts = {"name": name, "epoch": key.epoch, "root": key.root.hex(), "files": count, "bytes": total}
        print(json.dumps(facts))
    else:
        print(f"opened   {name} epoch {key.epoch}: {count} files, {size(total)}, root {key.root.hex()}")
    return 0
