"""`strongroom rekey`: a new key and epoch for a sealed tree, without touching what is sealed."""

import argparse
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from strongroom.cli.volume import add_volume, check_release, opened
from strongroom.errors import StrongroomError
from strongroom.host.sealed.destination import tree_root
from strongroom.host.sealed.keyfile import NewKeyFile
from strongroom.host.sealed.rekeying import complete_rekey, rekey_tree
from strongroom.host.sealed.sealing import settle_tree

_GOES_ON: Final = "the key is kept, the same command with --resume goes on"


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "rekey",
        help="put a sealed model under a new key",
        description="Write the MANIFEST of SEALED anew, under a new key and a larger epoch. Objects stay as they are, "
        "so it takes a moment whatever the size.",
        epilog="Who holds the old key and a copy of the old MANIFEST can still read the objects it names. When a key "
        "got into wrong hands, seal the model again instead.",
    )
    add_volume(parser)
    parser.add_argument(
        "--epoch", required=True, type=int, help="release number, larger than the one there is"
    )
    parser.add_argument(
        "--key-out", required=True, metavar="FILE", type=Path, help="new file for the volume key"
    )
    parser.add_argument("--name", help="a new name for the model (default: the one it has)")
    parser.add_argument(
        "--resume", action="store_true", help="go on with a rekey that was cut; --key-out is what it left"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    check_release(epoch=args.epoch, name=args.name)
    with _key_file(args) as key:
        if key.root is None:
            _rekey(args, key)
        else:
            _complete(args, key.root)
    # From here on the key is read from its file, as whoever uses it will.
    with opened(args.sealed, args.key_out) as (_, store):
        name, root = store.manifest.name, store.volume.root
    if args.json:
        facts = {"name": name, "epoch": args.epoch, "root": root.hex(), "key": str(args.key_out)}
        print(json.dumps(facts))
    else:
        print(f"rekeyed  {name} epoch {args.epoch}\nroot     {root.hex()}\nkey      {args.key_out}")
    return 0


def _rekey(args: argparse.Namespace, key: NewKeyFile) -> None:
    with opened(args.sealed, args.key) as (_, store):
        rekey_tree(
            store,
            args.sealed,
            model_key=key.key.view(),
            epoch=args.epoch,
            entropy=secrets.token_bytes,
            keep=key.finish,
            name=args.name,
        )


def _complete(args: argparse.Namespace, root: bytes) -> None:
    """Go on where the key file was complete already: at the commit or behind it."""
    if tree_root(args.sealed) != root:
        with opened(args.sealed, args.key) as (old, _):
            complete_rekey(args.sealed, before=old.root, root=root)
    with opened(args.sealed, args.key_out) as (_, store):
        settle_tree(store, args.sealed)


@contextmanager
def _key_file(args: argparse.Namespace) -> Iterator[NewKeyFile]:
    """The new key: on disk before it is used, gone again when no tree can have come under it."""
    take = NewKeyFile.reopen if args.resume else NewKeyFile.create
    key = take(args.key_out, epoch=args.epoch, entropy=secrets.token_bytes)
    had_root = key.root is not None
    try:
        with key.key:
            yield key
    except BaseException as error:
        if key.root is None and key.fresh:
            key.discard()
        elif not had_root and isinstance(error, StrongroomError):
            raise type(error)(f"{error}; {_GOES_ON}") from error
        raise
