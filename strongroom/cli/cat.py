"""`strongroom cat`: one file of a sealed tree on standard output, each chunk verified before it leaves."""

import argparse
import sys
from typing import Any, BinaryIO

from strongroom.cli.volume import add_volume, opened
from strongroom.errors import ConfigError
from strongroom.host.sealed.blocks import Room, count_blocks, open_block
from strongroom.host.sealed.tree import SealedStore
from strongroom.sealed.manifest import InlineFile, SealedFile, Symlink
from strongroom.sealed.paths import follow


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "cat",
        help="print one file of a sealed model",
        description="Write the file PATH of SEALED to standard output. What comes out is verified; when the rest "
        "cannot be, it ends there with an error.",
    )
    add_volume(parser)
    parser.add_argument("path", metavar="PATH", help="a file in the tree; links are followed")


def run(args: argparse.Namespace) -> int:
    with opened(args.sealed, args.key) as (_, store):
        _copy(store, args.path, sys.stdout.buffer)
    return 0


def _copy(store: SealedStore, path: str, out: BinaryIO) -> None:
    entries = {entry.path: entry for entry in store.manifest.entries}
    links = {path: entry.target for path, entry in entries.items() if isinstance(entry, Symlink)}
    place = follow(path, links)
    match entries.get(place):
        case InlineFile() as small:
            out.write(small.content)
        case SealedFile() as large:
            opened_one = next(one for one in store.objects if one.file is large)
            stored, room = store.stored(opened_one), Room(store.header.chunk_log2)
            try:
                out.writelines(open_block(stored, block, room) for block in range(count_blocks(large.size)))
            finally:
                stored.close()
        case None if place:
            raise ConfigError(f"{path}: not in the tree")
        case _:
            raise ConfigError(f"{path}: is a directory, want a file")
