"""`strongroom ls`: what a sealed tree holds. The objects are not touched."""

import argparse
import json
import stat
from datetime import UTC, datetime
from typing import Any

from strongroom.cli.terminal import one_line, table
from strongroom.cli.volume import add_volume, opened
from strongroom.errors import ConfigError
from strongroom.sealed.manifest import Directory, Entry, InlineFile, Manifest, SealedFile, Symlink


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "ls",
        help="list what a sealed model holds",
        description="List the entries of SEALED, or those at and below PATH. Only the manifest is read.",
    )
    add_volume(parser)
    parser.add_argument("path", metavar="PATH", nargs="?", help="a file or directory in the tree")
    parser.add_argument("-l", "--long", action="store_true", help="with mode, size and time of change")
    parser.add_argument("--json", action="store_true", help="print the entries as JSON")


def run(args: argparse.Namespace) -> int:
    with opened(args.sealed, args.key) as (_, store):
        entries = below(store.manifest, args.path)
    if args.json:
        print(json.dumps([_facts(entry) for entry in entries]))
    elif args.long and entries:
        print(table([_row(entry) for entry in entries], widest=24))
    else:
        for entry in entries:
            print(one_line(entry.path))
    return 0


def below(manifest: Manifest, path: str | None) -> list[Entry]:
    """The entries at and below a path, all when there is none. ConfigError when nothing is there."""
    if path is None:
        return [*manifest.entries]
    at = path.strip("/")
    found = [one for one in manifest.entries if one.path == at or one.path.startswith(f"{at}/")]
    if not found:
        raise ConfigError(f"{path}: not in the tree")
    return found


def _row(entry: Entry) -> tuple[str, ...]:
    when = datetime.fromtimestamp(entry.mtime, UTC).strftime("%Y-%m-%d %H:%M")
    size = str(entry.size) if isinstance(entry, InlineFile | SealedFile) else "-"
    name = f"{entry.path} -> {entry.target}" if isinstance(entry, Symlink) else entry.path
    return _mode(entry), size.rjust(15), when, name


def _mode(entry: Entry) -> str:
    match entry:
        case Symlink():
            return stat.filemode(stat.S_IFLNK | 0o777)
        case Directory():
            return stat.filemode(stat.S_IFDIR | entry.mode)
        case _:
            return stat.filemode(stat.S_IFREG | entry.mode)


def _facts(entry: Entry) -> dict[str, Any]:
    facts: dict[str, Any] = {"path": entry.path, "mtime_ns": entry.mtime_ns}
    match entry:
        case Directory():
            facts |= {"type": "directory", "mode": entry.mode}
        case Symlink():
            facts |= {"type": "symlink", "target": entry.target}
        case InlineFile():
            facts |= {"type": "file", "mode": entry.mode, "size": entry.size}
        case SealedFile():
            digest = entry.sha256.hex() if entry.sha256 else None
            facts |= {"type": "file", "mode": entry.mode, "size": entry.size, "sha256": digest}
            facts |= {"object": entry.object_name}
    return facts
