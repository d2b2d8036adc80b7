"""`strongroom pull`: bring a sealed model from where it is published, as ciphertext."""

import argparse
import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from strongroom.broker.resource import VolumeKey
from strongroom.cli.progress import size
from strongroom.cli.volume import stages
from strongroom.errors import ConfigError
from strongroom.host.fetch import Pin
from strongroom.host.pull.address import source_of
from strongroom.host.pull.attempts import TRIES
from strongroom.host.pull.client import IDLE
from strongroom.host.pull.credentials import Credentials
from strongroom.host.pull.pull import PARALLEL, Pulled, Rules, pull
from strongroom.host.sealed.keyfile import read_volume_key

_ROOT: Final = re.compile(r"[0-9a-f]{64}")
_PARALLEL: Final = range(1, 33)


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "pull",
        help="bring a sealed model here, as ciphertext",
        description="Bring the sealed model at URL into DEST: https://host/path, s3://bucket/prefix, "
        "oci://registry/repository:tag or hf://owner/repository[@revision]. A pull that broke off is continued by the "
        "same command, and a newer release brings only what changed.",
        epilog="Who publishes the model tells its root. Without --key the names of the files come from INDEX, and "
        "`strongroom check` with the key finds what a store made up. "
        "exit codes: 5 another model than wanted, 7 the store says no, 8 no room, 9 not reached: try again",
    )
    parser.add_argument("url", metavar="URL", help="where it is published")
    parser.add_argument("dest", metavar="DEST", type=Path, help="directory to bring it to")
    parser.add_argument(
        "--root", metavar="HEX64", help="digest of the model, as `strongroom seal` printed it"
    )
    parser.add_argument(
        "--key", metavar="FILE", type=Path, help="the volume key file, which holds the root too"
    )
    parser.add_argument(
        "--recheck",
        action="store_true",
        help="with --key, read every object that is here and bring again what is damaged",
    )
    parser.add_argument(
        "--ca", metavar="FILE", type=Path, help="the store's authority (PEM; default: the system's)"
    )
    parser.add_argument("--endpoint", metavar="URL", help="another S3 service, or a mirror of Hugging Face")
    parser.add_argument("--region", metavar="NAME", help="of the S3 bucket (default: us-east-1)")
    parser.add_argument(
        "--credentials", metavar="FILE", type=Path, help="NAME=VALUE lines, in a file of mode 0600"
    )
    parser.add_argument(
        "--parallel", type=int, default=PARALLEL, metavar="N", help="files at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--tries",
        type=int,
        default=TRIES,
        metavar="N",
        help="in a row without a new byte (default: %(default)s)",
    )
    parser.add_argument(
        "--idle",
        type=float,
        default=IDLE,
        metavar="SECONDS",
        help="of silence before a connection is given up (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    rules = _rules(args)
    key = None if args.key is None else read_volume_key(args.key)
    root = _root(args.root, key)
    pin = Pin(system=True) if args.ca is None else Pin(ca_pem=args.ca.read_text("ascii", "replace"))
    credentials = Credentials() if args.credentials is None else Credentials.read(args.credentials)
    source = source_of(args.url, credentials, endpoint=args.endpoint, region=args.region)
    with stages() as shown:
        work = pull(source, args.dest, pin=pin, root=root, key=key, rules=rules, begin=shown.begin)
        pulled = asyncio.run(work)
    _tell(args, pulled)
    return 0


def _rules(args: argparse.Namespace) -> Rules:
    if args.parallel not in _PARALLEL:
        raise ConfigError(f"--parallel: got {args.parallel}, want {_PARALLEL[0]}..{_PARALLEL[-1]}")
    if not 1 <= args.tries <= 1000:
        raise ConfigError(f"--tries: got {args.tries}, want 1..1000")
    if not 0.1 <= args.idle <= 3600:
        raise ConfigError(f"--idle: got {args.idle:g}, want 0.1..3600 seconds")
    if args.recheck and args.key is None:
        raise ConfigError("--recheck: want --key too, which tells what was sealed")
    return Rules(parallel=args.parallel, idle_s=args.idle, tries=args.tries, recheck=args.recheck)


def _root(text: str | None, key: VolumeKey | None) -> bytes:
    if text is None:
        if key is None:
            raise ConfigError("--root: want the digest of the model, or --key with the file that holds it")
        return key.root
    if not _ROOT.fullmatch(text):
        raise ConfigError(f"--root: got {text[:80]!a}, want 64 lowercase hex digits")
    if key is not None and key.root.hex() != text:
        raise ConfigError(f"--root: got {text}, and the key is for {key.root.hex()}")
    return bytes.fromhex(text)


def _tell(args: argparse.Namespace, pulled: Pulled) -> None:
    index = pulled.index
    if args.json:
        facts = {
            "root": index.root.hex(),
            "dest": str(args.dest),
            "objects": len(index.objects),
            "bytes": index.total,
            "fetched": pulled.fetched,
            "carried": pulled.carried,
        }
        print(json.dumps(facts))
        return
    print(f"pulled   {len(index.objects)} objects, {size(index.total)}, of them {size(pulled.carried)} now")
    print(f"root     {index.root.hex()}")
    if args.key is None:
        print(f"next     strongroom check {args.dest} --key FILE, where the key is", file=sys.stderr)
