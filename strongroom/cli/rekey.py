"""`strongroom rekey`: a new key and epoch for a sealed tree, without touching what is sealed."""

import argparse
import json
import secrets
from pathlib import Path
from typing import Any

from strongroom.cli.volume import add_volume, check_release, opened
from strongroom.host.keyfile import NewKeyFile
from strongroom.host.rekeying import rekey_tree


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
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    check_release(epoch=args.epoch, name=args.name)
    with opened(args.sealed, args.key) as (_, store):
        key = NewKeyFile.create(args.key_out, epoch=args.epoch, entropy=secrets.token_bytes)
        try:
            with key.key:
                root = rekey_tree(
                    store,
                    args.sealed,
                    model_key=key.key.view(),
                    epoch=args.epoch,
                    entropy=secrets.token_bytes,
                    keep=key.finish,
                    name=args.name,
                )
        except BaseException:
            if key.root is None:
                key.discard()
            raise
        name = args.name or store.manifest.name
    if args.json:
        facts = {"name": name, "epoch": args.epoch, "root": root.hex(), "key": str(args.key_out)}
        print(json.dumps(facts))
    else:
        print(f"rekeyed  {name} epoch {args.epoch}\nroot     {root.hex()}\nkey      {args.key_out}")
    return 0
