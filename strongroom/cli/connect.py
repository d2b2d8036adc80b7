"""`strongroom connect URL --policy FILE`: an address on this machine for any OpenAI client, verified behind it."""

import argparse
import asyncio
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from strongroom.appraise.policy import Policy
from strongroom.cli import verdicts
from strongroom.cli.connecting import add_connecting, connected, read_token
from strongroom.cli.policyfile import add_policy, load_policy
from strongroom.cli.terminal import one_line
from strongroom.errors import ConfigError, MachineError, StrongroomError
from strongroom.host.exchange import Proof, ProvenExchange
from strongroom.host.relay.carrying import Asked, Carrying
from strongroom.host.relay.listener import Listener, parse_listen, serve
from strongroom.host.relay.pool import MAX_AGE, Pool

MOST: Final = 32  # requests carried at once; more wait
_LEAST_AGE: Final = 1.0  # seconds
_ENDS: Final = (signal.SIGINT, signal.SIGTERM)


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "connect",
        help="give any OpenAI client an address here, and verify the server behind it",
        description="Verify a server, then listen on this machine and carry every request to it over connections "
        "that were each verified before a byte left. The receipt of each answer is checked before the answer is "
        "whole. What cannot be verified is refused with status 502 and a sentence.",
        epilog="example: strongroom connect https://llm.example --policy policy.yaml, and in the client "
        "base_url=http://127.0.0.1:8000/v1",
    )
    parser.add_argument("url", metavar="URL", help="https://HOST[:PORT]")
    add_policy(parser)
    add_connecting(parser)
    parser.add_argument(
        "--listen",
        default="127.0.0.1:8000",
        metavar="ADDRESS",
        help="loopback address and port (%(default)s)",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="bearer token for the server, in place of what clients send: then every program here may use it; "
        "- reads it from stdin",
    )
    parser.add_argument(
        "--keep-receipts", type=Path, metavar="DIR", help="keep the receipt of every answer there"
    )
    parser.add_argument(
        "--verify-every",
        type=float,
        default=MAX_AGE,
        metavar="SECONDS",
        help="verify anew after so long (%(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    policy, (host, port) = load_policy(args.policy), parse_listen(args.listen)
    if not _LEAST_AGE <= args.verify_every <= 24 * 3600.0:  # not a number is refused too
        raise ConfigError(f"--verify-every: got {args.verify_every:g} s, want 1 to 86400")
    token = None if args.token_file is None else read_token(args.token_file)
    keeper = Keeper(args.keep_receipts)
    pool = Pool(lambda: connected(args, policy), max_age=args.verify_every)
    with closing(pool), ThreadPoolExecutor(MOST, "carrying") as executor:
        first = connected(args, policy)
        pool.add(first)
        print(verdicts.summary(first.examination), file=sys.stderr)
        if first.examination.simulated:
            print(verdicts.LOUD, file=sys.stderr)

        def carry(asked: Asked) -> Carrying:
            return Carrying(pool, asked, prove=lambda exchange: _prove(exchange, policy), keep=keeper.keep)

        asyncio.run(_serve(Listener(carry, failed=_failed, executor=executor, token=token), host, port))
    return 0


async def _serve(listener: Listener, host: str, port: int) -> None:
    told, loop = asyncio.Event(), asyncio.get_running_loop()

    def tell() -> None:
        told.set()
        for number in _ENDS:  # a second one need not wait for a server that does not answer
            loop.remove_signal_handler(number)

    for number in _ENDS:
        loop.add_signal_handler(number, tell)

    def ready(port: int) -> None:
        where = f"[{host}]" if ":" in host else host
        print(f"http://{where}:{port}/v1", flush=True)

    await serve(listener, host, port, ready=ready, until=told.wait())


def _prove(exchange: ProvenExchange, policy: Policy) -> Proof:
    return exchange.prove(policy=policy, roots=policy.roots, now=datetime.now(UTC))


def _failed(error: StrongroomError) -> None:
    print(one_line(f"strongroom: refused: {error}"), file=sys.stderr, flush=True)


class Keeper:
    """Puts receipts into a directory, each a file that only its owner can read."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        if directory is not None and not directory.is_dir():
            raise ConfigError(f"--keep-receipts: {directory} is no directory")

    def keep(self, proof: Proof) -> None:
        if self._directory is None:
            return
        path = self._directory / f"{proof.receipt.id}.receipt"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(proof.envelope)
        except OSError as error:
            raise MachineError(f"{path}: {(error.strerror or 'failed').lower()}") from error
