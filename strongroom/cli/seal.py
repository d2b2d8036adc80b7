"""`strongroom seal`: a directory of weights becomes a sealed tree and one key file."""

import argparse
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from strongroom.broker.resource import VolumeKey
from strongroom.cli.progress import Progress, size
from strongroom.errors import ConfigError, FormatError
from strongroom.host.sealing import Plan, seal_tree, sync_directory
from strongroom.host.secret import Secret
from strongroom.sealed.header import MAX_EPOCH
from strongroom.sealed.keys import KEY_SIZE
from strongroom.sealed.manifest import check_name

CHUNK_KIB: Final = (64, 128, 256, 512, 1024)


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "seal",
        help="encrypt a model so that only an attested machine can read it",
        description="Encrypt the directory SRC into the new directory DEST and write its key to a file. Anyone may "
        "hold DEST; the key belongs into a broker.",
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="directory with the model's files")
    parser.add_argument("dest", metavar="DEST", type=Path, help="directory to make; must be absent or empty")
    parser.add_argument("--name", required=True, help="the model's name, as clients will ask for it")
    parser.add_argument(
        "--epoch", required=True, type=int, help="release number of this model, larger than any before it"
    )
    parser.add_argument(
        "--key-out", required=True, metavar="FILE", type=Path, help="new file for the volume key"
    )
    parser.add_argument(
        "--chunk-kib", type=int, choices=CHUNK_KIB, default=128, help="chunk size (default: 128)"
    )
    parser.add_argument("--dereference", action="store_true", help="seal what links lead to, not the links")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    if not 1 <= args.epoch <= MAX_EPOCH:
        raise ConfigError(f"--epoch: got {args.epoch}, want a whole number 1..2**53-1")
    try:
        check_name(args.name)
    except FormatError as error:
        raise ConfigError(f"--name: {error}") from error
    plan = Plan.make(args.source, name=args.name, dereference=args.dereference, entropy=secrets.token_bytes)
    with Secret(secrets.token_bytes(KEY_SIZE)) as key, _new_file(args.key_out) as key_file:
        progress = Progress("sealing", plan.total)

        def keep(root: bytes) -> None:
            os.write(key_file, VolumeKey(key=key.reveal(), root=root, epoch=args.epoch).pack())
            os.fsync(key_file)
            sync_directory(args.key_out.absolute().parent)  # the name must outlive a power cut as well

        root = seal_tree(
            plan,
            args.dest,
            model_key=key.view(),
            epoch=args.epoch,
            chunk_log2=10 + args.chunk_kib.bit_length() - 1,
            entropy=secrets.token_bytes,
            keep=keep,
            progress=progress.show,
        )
        progress.end()
    _tell(args, plan, root)
    return 0


@contextmanager
def _new_file(path: Path) -> Iterator[int]:
    """A file only its owner can read, gone again when the work inside fails. An existing one is never touched."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path}: exists, want a new file: a key written over is a model lost") from None
    try:
        yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def _tell(args: argparse.Namespace, plan: Plan, root: bytes) -> None:
    if args.json:
        result = {
            "name": args.name,
            "epoch": args.epoch,
            "root": root.hex(),
            "files": len(plan.files),
            "bytes": plan.total,
            "key": str(args.key_out),
        }
        print(json.dumps(result))
        return
    print(f"sealed   {args.name} epoch {args.epoch}: {len(plan.files)} files, {size(plan.total)}")
    print(f"root     {root.hex()}")
    print(f"key      {args.key_out}")
    print(
        f"next     strongroom broker put DIR kbs:///REPOSITORY/TYPE/TAG {args.key_out} --policy FILE",
        file=sys.stderr,
    )
