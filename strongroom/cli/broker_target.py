"""Which broker a command speaks to: a directory of this machine, or one over the network by signed requests."""

import argparse
import asyncio
import os
import pwd
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from strongroom import errors
from strongroom.broker.signed import ADMIN_PREFIX, NONCE_BYTES, SignedRequest
from strongroom.errors import ConfigError, FormatError, ProtocolError, StrongroomError, TransportError
from strongroom.host.brokerage.actors import Actor
from strongroom.host.brokerage.administration import perform
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.root import read_private, write_private
from strongroom.host.fetch import Fetcher, Pin, Response
from strongroom.wire.canonical import b64u, pack_json, parse_json

MAX_ANSWER: Final = 16 << 20  # bytes
MAX_KEY_FILE: Final = 4096
_TIMEOUT: Final = 30.0  # seconds


def add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="BROKER", help="its directory, or https://HOST:PORT")
    remote = parser.add_argument_group("over the network")
    remote.add_argument("--key", type=Path, metavar="FILE", help="your key, from `strongroom broker key`")
    pin = remote.add_mutually_exclusive_group()
    pin.add_argument("--spki", metavar="HEX", help="SHA-256 of the broker's TLS key, as `init` printed it")
    pin.add_argument(
        "--ca", type=Path, metavar="FILE", help="PEM: the broker's certificate, or its authority"
    )


@dataclass(frozen=True, slots=True)
class Answered:
    """What an action gave, and the lines the audit log got of it."""

    result: Mapping[str, Any]
    lines: tuple[bytes, ...]


def act(args: argparse.Namespace, action: str, **arguments: Any) -> Answered:
    """Do one action at the broker that `args` name. Arguments that are None are left out."""
    given = {name: value for name, value in arguments.items() if value is not None}
    if not is_url(args.target):
        with House(Path(args.target)) as house:
            done = perform(house, action, given, local_actor())
        return Answered(done.result, done.lines)
    result = asyncio.run(Remote.from_args(args).act(action, given))
    lines = result.pop("audit", [])
    return Answered(result, tuple(line.encode() for line in lines))


def local_actor() -> Actor:
    """Whoever may write the directory, by the name this system has for them."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Actor(name=f"local {name}", now=datetime.now(UTC))


def is_url(target: str) -> bool:
    return "://" in target


@dataclass(frozen=True, slots=True)
class Remote:
    """A broker over TLS, and the key that is an administrator's there."""

    url: str
    pin: Pin
    key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "Remote":
        if args.key is None:
            raise ConfigError(f"{args.target}: want --key FILE, an administrator's key")
        if args.spki is not None:
            try:
                pin = Pin(spki_sha256=bytes.fromhex(args.spki))
            except ValueError:
                raise ConfigError("--spki: want 64 hex digits") from None
        elif args.ca is not None:
            pin = Pin(ca_pem=args.ca.read_text())
        else:
            raise ConfigError(f"{args.target}: want --spki HEX or --ca FILE, to know the broker by")
        return cls(args.target, pin, read_key(args.key))

    async def act(self, action: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The result. The error the broker had, as if it had been ours; nothing is tried twice."""
        path, body = f"{ADMIN_PREFIX}/{action}", pack_json(dict(arguments))
        async with Fetcher(self.url, self.pin) as fetcher:
            # Whom we speak to is part of what is signed, so the connection comes first.
            greeting = await fetcher.request("GET", "/healthz", max_bytes=1024, timeout_s=_TIMEOUT)
            request = SignedRequest(
                method="POST",
                path=path,
                body=body,
                broker=greeting.peer_spki_sha256,
                key=public_bytes(self.key),
                time=int(time.time()),
                nonce=secrets.token_bytes(NONCE_BYTES),
            )
            headers = request.signed(self.key) | {"Content-Type": "application/json"}
            answer = await fetcher.request(
                "POST", path, body=body, headers=headers, max_bytes=MAX_ANSWER, timeout_s=_TIMEOUT
            )
        return _result(answer, action)


def _result(answer: Response, action: str) -> dict[str, Any]:
    try:
        value = parse_json(answer.body, f"answer to {action}", max_bytes=MAX_ANSWER)
    except FormatError:
        value = None
    if answer.status == 200 and isinstance(value, dict):
        return dict(value)
    if isinstance(value, dict) and isinstance(value.get("error"), str):
        raise _error(value.get("code"))(f"broker: {value['error']}")
    if answer.status == 429 or answer.status >= 500:
        raise TransportError(f"{action}: status {answer.status}, the broker is busy or in trouble")
    raise ProtocolError(f"{action}: status {answer.status}, want a strongroom broker's answer")


def _error(code: object) -> type[StrongroomError]:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StrongroomError)
    ]
    return next((kind for kind in kinds if kind.exit_code == code), ProtocolError)


def write_key(path: Path) -> bytes:
    """A new Ed25519 key in a file of mode 0600; its public half, which as a word of a command is no option."""
    key = Ed25519PrivateKey.generate()
    while b64u(public_bytes(key)).startswith("-"):
        key = Ed25519PrivateKey.generate()
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return public_bytes(key)


def read_key(path: Path) -> Ed25519PrivateKey:
    """ConfigError for a file that others may read, or that holds no such key."""
    try:
        key = load_pem_private_key(read_private(path, MAX_KEY_FILE), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{path}: want an Ed25519 key in PEM, without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: want an Ed25519 key, got another kind")
    return key


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
