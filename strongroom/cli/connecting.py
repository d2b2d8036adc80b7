"""One verified connection for a verb that asks something, over TLS that proved itself or with sealed bodies."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from strongroom.appraise.policy import Policy
from strongroom.cli.kept import Kept, add_collateral, add_fetch
from strongroom.errors import ConfigError
from strongroom.host.attested import Address, AttestedConnection
from strongroom.host.sealedhttp import SealedConnection
from strongroom.verify.lacking import LackingError

MAX_TOKEN: Final = 4096  # bytes of a token file


def add_connecting(parser: argparse.ArgumentParser) -> None:
    add_collateral(parser)
    add_fetch(parser)
    parser.add_argument(
        "--sealed",
        action="store_true",
        help="seal each request to the machine's own key: for a server behind something that ends the TLS",
    )
    parser.add_argument(
        "--timeout", type=float, default=20.0, metavar="SECONDS", help="silence while verifying (20)"
    )


def connected(args: argparse.Namespace, policy: Policy) -> AttestedConnection | SealedConnection:
    """Verified now, or an error that says why not."""
    now = datetime.now(UTC)
    kept = Kept(args.collateral, roots=policy.roots, now=now, fetches=args.fetch)
    if args.fetch and not args.sealed:
        kept.examine(Address.parse(args.url), policy, timeout=args.timeout)

    def dial() -> AttestedConnection | SealedConnection:
        kind = SealedConnection if args.sealed else AttestedConnection
        return kind.open(
            args.url, policy=policy, roots=policy.roots, now=now, timeout=args.timeout, supply=kept
        )

    return _twice(dial, kept) if args.fetch and args.sealed else _once(dial, kept)


def _once(
    dial: Callable[[], AttestedConnection | SealedConnection], kept: Kept
) -> AttestedConnection | SealedConnection:
    with kept.telling():
        return dial()


def _twice(
    dial: Callable[[], AttestedConnection | SealedConnection], kept: Kept
) -> AttestedConnection | SealedConnection:
    try:
        return dial()
    except LackingError:
        kept.fetch()
    return _once(dial, kept)


def read_token(source: str) -> str:
    """The bearer token in a file, or on stdin for "-"."""
    # A token is a secret: argv and environment are open to the whole machine, so it comes by file or pipe.
    if source == "-":
        data = sys.stdin.buffer.read(MAX_TOKEN + 1)
    else:
        with open(source, "rb") as file:
            data = file.read(MAX_TOKEN + 1)
    text = data.strip()
    if not text or len(data) > MAX_TOKEN or any(not 33 <= byte <= 126 for byte in text):
        raise ConfigError(f"token file: want one printable word of at most {MAX_TOKEN} bytes")
    return text.decode("ascii")
