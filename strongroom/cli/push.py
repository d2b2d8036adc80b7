"""`strongroom push`: send a model straight into a guest that has proved itself, and learn what it was sealed as."""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from strongroom.appraise.policy import Policy
from strongroom.cli import verdicts
from strongroom.cli.kept import Kept, add_collateral, add_fetch
from strongroom.cli.policyfile import add_policy, load_policy
from strongroom.cli.progress import size
from strongroom.cli.secretfile import HELP, read_signing_key, write_new
from strongroom.cli.volume import check_release, stages
from strongroom.errors import ConfigError
from strongroom.host.attested import Address, AttestedConnection, Door
from strongroom.host.pushing import TRIES, PushTree, push
from strongroom.push.answers import Accepted
from strongroom.push.offer import provider_name, spki_of
from strongroom.wire.canonical import b64u

KEYGEN: Final = "keygen"


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "push",
        help="send a model straight into a guest that has proved itself",
        description="Verify the guest at URL, which waits for a push, then send it the directory SRC over that very "
        "connection. It seals what comes, chunk by chunk, and answers with the root of the sealed model. A push that "
        "broke off goes on where it was, by itself or by the same command.",
        epilog="`strongroom push keygen FILE` makes a provider's key and prints what the guest's userdata names. "
        "exit codes: 5 not genuine, 6 refused by your policy or by the guest, 8 the guest's disk, 9 not reached: "
        "try again",
    )
    parser.add_argument("url", metavar="URL", help="https://HOST[:PORT] of the guest, or the word keygen")
    parser.add_argument("source", metavar="SRC", type=Path, help="directory with the model's files")
    add_policy(parser)
    add_collateral(parser)
    add_fetch(parser)
    parser.add_argument("--key", metavar="FILE", help=f"your Ed25519 key: {HELP}")
    parser.add_argument("--name", help="the model's name, as the guest's userdata has it")
    parser.add_argument("--epoch", type=int, help="release number of this model, larger than any before it")
    parser.add_argument("--dereference", action="store_true", help="send what links lead to, not the links")
    parser.add_argument(
        "--tries",
        type=int,
        default=TRIES,
        metavar="N",
        help="connections in a row without a new byte (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout", type=float, default=20.0, metavar="SECONDS", help="silence while verifying (20)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    if args.url == KEYGEN:
        return _keygen(args)
    policy = load_policy(args.policy)
    _check(args)
    Address.parse(args.url)  # before a model is hashed
    key = read_signing_key(args.key)
    with stages() as shown:
        tree = PushTree.of(
            args.source,
            name=args.name,
            epoch=args.epoch,
            dereference=args.dereference,
            begin=shown.begin,
        )
        guest = _Guest(args, policy)
        accepted = push(guest.connect, tree, key, begin=shown.begin, tries=args.tries)
    _tell(args, tree, accepted)
    return 0


class _Guest:
    """Where every connection goes, each verified from the beginning."""

    def __init__(self, args: argparse.Namespace, policy: Policy) -> None:
        self._args, self._policy = args, policy
        self._greeted = False

    def connect(self) -> AttestedConnection:
        args, policy, now = self._args, self._policy, datetime.now(UTC)
        kept = Kept(args.collateral, roots=policy.roots, now=now, fetches=args.fetch)
        if args.fetch:
            kept.examine(Address.parse(args.url), policy, timeout=args.timeout, door=Door.RECEIVING)
        with kept.telling():
            connection = AttestedConnection.open(
                args.url,
                policy=policy,
                roots=policy.roots,
                now=now,
                timeout=args.timeout,
                supply=kept,
                door=Door.RECEIVING,
            )
        if not self._greeted:
            self._greeted = True
            print(verdicts.summary(connection.examination), file=sys.stderr)
            if connection.examination.simulated:
                print(verdicts.LOUD, file=sys.stderr)
        return connection


def _check(args: argparse.Namespace) -> None:
    for option in ("key", "name", "epoch"):
        if getattr(args, option) is None:
            raise ConfigError(f"push: want --{option}")
    check_release(epoch=args.epoch, name=args.name)
    if not 1 <= args.tries <= 1000:
        raise ConfigError(f"--tries: got {args.tries}, want 1..1000")


def _keygen(args: argparse.Namespace) -> int:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_new(args.source, pem)
    spki = spki_of(key.public_key())
    if args.json:
        print(json.dumps({"key": str(args.source), "public": b64u(spki), "sha256": provider_name(spki)}))
        return 0
    print(f"key      {args.source}")
    print(f"public   {b64u(spki)}")
    print(f"sha256   {provider_name(spki)}")
    print("next     name the public key in the guest's userdata: model.push.provider_keys", file=sys.stderr)
    return 0


def _tell(args: argparse.Namespace, tree: PushTree, accepted: Accepted) -> None:
    files = tree.manifest.files
    total = sum(file.size for file in files)
    if args.json:
        print(json.dumps({**accepted.to_json(), "files": len(files), "bytes": total}))
        return
    print(f"accepted {accepted.name} epoch {accepted.epoch}: {len(files)} files, {size(total)}")
    print(f"manifest {accepted.manifest_sha256.hex()}")
    print(f"root     {accepted.root.hex()}")
