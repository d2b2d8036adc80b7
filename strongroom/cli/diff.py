"""`strongroom diff`: what is different between two sealed trees, or a sealed tree and a plain directory."""

import argparse
import json
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from strongroom.cli.terminal import one_line
from strongroom.cli.volume import KEY_HELP, opened, stages
from strongroom.errors import ConfigError, PolicyError
from strongroom.host.sealed.digests import digests
from strongroom.host.sealed.plain import scan
from strongroom.sealed.changes import SameContent, What, changes, same_object, same_stamp
from strongroom.sealed.manifest import Entry, SealedFile

_SIGNS: Final = {What.ADDED: "+", What.REMOVED: "-", What.CHANGED: "~"}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "diff",
        help="compare two sealed models, or a sealed and a plain one",
        description="Say which entries of A were added, removed or changed in B. B is a sealed tree when "
        "--other-key is given, else a plain directory: then it says what `strongroom seal --update` would seal.",
        epilog="Two sealed files are the same when they are one object or have one SHA-256. A plain file is the same "
        "when size and time of change are, or with --checksum the SHA-256.",
    )
    parser.add_argument("a", metavar="A", type=Path, help="sealed tree")
    parser.add_argument("b", metavar="B", type=Path, help="sealed tree, or plain directory")
    parser.add_argument("--key", required=True, metavar="FILE", type=Path, help=f"key of A: {KEY_HELP}")
    parser.add_argument("--other-key", metavar="FILE", type=Path, help=f"key of B: {KEY_HELP}")
    parser.add_argument("--checksum", action="store_true", help="compare the contents of a plain B")
    parser.add_argument("--dereference", action="store_true", help="in a plain B, what links lead to")
    parser.add_argument("--same", action="store_true", help="exit with code 6 unless there is no difference")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    if args.other_key is not None and (args.checksum or args.dereference):
        raise ConfigError("diff: --checksum and --dereference are for a plain B, without --other-key")
    if args.key == args.other_key == Path("-"):
        raise ConfigError("diff: standard input holds one key, want the other in a file")
    with ExitStack() as stack:
        before = stack.enter_context(opened(args.a, args.key))[1].manifest.entries
        after, same = _other(args, before, stack)
        found = [*changes(before, after, same=same)]
    if args.json:
        rows = [{"path": one.path, "what": one.what.value, "sides": [*one.sides]} for one in found]
        print(json.dumps({"same": not found, "changes": rows}))
    else:
        for one in found:
            sides = f" ({', '.join(one.sides)})" if one.sides else ""
            print(f"{_SIGNS[one.what]} {one_line(one.path)}{sides}")
    if args.same and found:
        raise PolicyError(f"{args.a}, {args.b}: {len(found)} entries differ, want none")
    return 0


def _other(
    args: argparse.Namespace, before: tuple[Entry, ...], stack: ExitStack
) -> tuple[tuple[Entry, ...], SameContent]:
    if args.other_key is not None:
        return stack.enter_context(opened(args.b, args.other_key))[1].manifest.entries, same_object
    entries = scan(args.b, dereference=args.dereference, entropy=secrets.token_bytes)
    if not args.checksum:
        return entries, same_stamp
    sizes = {entry.path: entry.size for entry in before if isinstance(entry, SealedFile)}
    files = [one for one in entries if isinstance(one, SealedFile) and sizes.get(one.path) == one.size]
    shown = stack.enter_context(stages())
    found = digests(args.b, files, shown.begin("comparing", sum(file.size for file in files)))

    def same(old: SealedFile, new: SealedFile) -> bool:
        return old.sha256 is not None and found.get(new.path) == old.sha256

    return entries, same
