"""`strongroom broker`: keep keys in a directory, and give them only to machines that meet each key's policy.

For one site, on one machine. Where this is outgrown, a Trustee KBS speaks the same protocol to the same guests.
"""

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from strongroom.broker.audit import Head
from strongroom.broker.rate import Rate
from strongroom.cli.broker_audit import add_audit
from strongroom.cli.broker_certificate import CERTIFICATE, KEY, read_certificate, write_certificate
from strongroom.cli.broker_endpoint import ACTIVATED, Endpoint
from strongroom.cli.broker_front import REQUEST_RATE, Limits
from strongroom.cli.broker_gate import CONNECTIONS, OF_ADDRESS
from strongroom.cli.broker_server import Ready, serve
from strongroom.cli.broker_target import local_actor
from strongroom.cli.broker_verbs import add_verbs
from strongroom.errors import ConfigError
from strongroom.host.brokerage.administration import perform
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.root import DEFAULT, parse_root

DEFAULT_LISTEN: Final = "127.0.0.1:8443"


def add_parser(subparsers: Any) -> None:
    broker = subparsers.add_parser("broker", help=__doc__.partition("\n")[0], description=__doc__)
    verbs = broker.add_subparsers(metavar="ACTION", required=True)
    _add_init(verbs)
    add_verbs(verbs)
    add_audit(verbs)
    _add_serve(verbs)


def _add_init(verbs: Any) -> None:
    init = verbs.add_parser("init", help="make a broker directory, its root key and its TLS certificate")
    init.add_argument("directory", type=Path, metavar="DIR")
    init.add_argument(
        "--name",
        action="extend",
        nargs="+",
        required=True,
        metavar="HOST",
        help="DNS names and addresses of this broker",
    )
    init.add_argument("--days", type=int, default=825, help="life of the certificate (default: %(default)s)")
    init.add_argument(
        "--root-key",
        default=DEFAULT,
        metavar="SOURCE",
        help="what seals everything: file:NAME, credential:NAME or tpm:PCRS (default: %(default)s)",
    )
    init.add_argument(
        "--admin",
        action="append",
        default=[],
        metavar="NAME=KEY",
        help="who may administer it over the network, by the key `strongroom broker key` printed",
    )
    init.add_argument("--json", action="store_true", help="print the result as JSON")
    init.set_defaults(action=_init)


def _add_serve(verbs: Any) -> None:
    run = verbs.add_parser("serve", help="answer guests until SIGTERM; one audit line on stderr per decision")
    run.add_argument("directory", type=Path, metavar="DIR")
    run.add_argument(
        "--listen",
        default=DEFAULT_LISTEN,
        metavar="HOST:PORT",
        help=f"default: %(default)s; port 0: any; {ACTIVATED}: the socket of a .socket unit",
    )
    run.add_argument("--tls-cert", type=Path, metavar="FILE", help=f"default: DIR/{CERTIFICATE}")
    run.add_argument("--tls-key", type=Path, metavar="FILE", help=f"default: DIR/{KEY}")
    run.add_argument(
        "--insecure-loopback", action="store_true", help="plain HTTP, on a loopback address only"
    )
    run.add_argument("--metrics", metavar="HOST:PORT", help="Prometheus metrics there, in plain HTTP")
    run.add_argument(
        "--rate",
        type=int,
        default=int(REQUEST_RATE.per_second),
        metavar="N",
        help="requests per second and address (default: %(default)s)",
    )
    run.add_argument(
        "--handshakes",
        type=int,
        default=2,
        metavar="N",
        help="handshakes per second and address (default: %(default)s)",
    )
    run.add_argument(
        "--connections",
        type=int,
        default=CONNECTIONS,
        metavar="N",
        help="connections of everybody together (default: %(default)s)",
    )
    run.add_argument(
        "--connections-of-address",
        type=int,
        default=OF_ADDRESS,
        metavar="N",
        help="connections of one address (default: %(default)s)",
    )
    run.add_argument("--json", action="store_true", help="print the ready line as JSON")
    run.set_defaults(action=_serve)


def run(args: argparse.Namespace) -> int:
    code: int = args.action(args)
    return code


def _init(args: argparse.Namespace) -> int:
    admins = [_administrator(text) for text in args.admin]
    parse_root(args.root_key, args.directory)
    args.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate = write_certificate(args.directory, args.name, days=args.days)
    try:
        head = _made(args.directory, args.root_key, admins)
    except BaseException:  # nobody knows this identity yet, and the next try makes another
        for name in (CERTIFICATE, KEY):
            (args.directory / name).unlink(missing_ok=True)
        raise
    spki, host = certificate.spki_sha256.hex(), args.name[0]
    if args.json:
        found = {"directory": str(args.directory), "spki_sha256": spki, "ca": certificate.pem}
        print(json.dumps(found | {"audit_head": str(head)}))
        return 0
    where = f"[{host}]" if ":" in host else host
    print(f"broker directory  {args.directory}")
    print(f"root key          {args.root_key}")
    print(f"certificate       {args.directory / CERTIFICATE}, P-256, until {certificate.not_after:%Y-%m-%d}")
    print(f"key sha256        {spki}")
    print(f"audit head        {head}")
    print("in userdata       strongroom:")
    print(f'                    broker: {{url: "https://{where}:8443", spki_sha256: "{spki}"}}')
    return 0


def _made(directory: Path, root: str, admins: list[tuple[str, str]]) -> Head:
    actor = local_actor()
    with House.create(directory, datetime.now(UTC), root=root, who=actor.name) as house:
        for name, key in admins:
            perform(house, "add-administrator", {"name": name, "key": key}, actor)
        return house.verify_audit()


def _administrator(text: str) -> tuple[str, str]:
    name, equals, key = text.partition("=")
    if not equals:
        raise ConfigError(f"--admin: got {text[:80]!r}, want NAME=KEY")
    return name, key


def _serve(args: argparse.Namespace) -> int:
    certificate = args.tls_cert or args.directory / CERTIFICATE
    key = args.tls_key or args.directory / KEY
    limits = Limits(
        handshakes=_rate("--handshakes", args.handshakes),
        requests=_rate("--rate", args.rate),
        connections=_number("--connections", args.connections),
        of_address=_number("--connections-of-address", args.connections_of_address),
    )
    with House(args.directory) as house:
        endpoint = Endpoint.parse(args.listen, certificate=certificate, key=key, plain=args.insecure_loopback)
        metrics = None if args.metrics is None else Endpoint.metrics(args.metrics)

        def ready(at: Ready) -> None:
            print(_ready_line(at, certificate, as_json=args.json), flush=True)

        def echo(line: str) -> None:
            print(line, file=sys.stderr, flush=True)

        asyncio.run(serve(house, endpoint, ready=ready, echo=echo, metrics=metrics, limits=limits))
    return 0


def _number(option: str, given: int) -> int:
    if not 1 <= given <= 1_000_000:
        raise ConfigError(f"{option}: got {given}, want 1..1000000")
    return given


def _rate(option: str, per_second: int) -> Rate:
    _number(option, per_second)
    return Rate(per_second=float(per_second), burst=max(20, 4 * per_second))


def _ready_line(at: Ready, certificate: Path, *, as_json: bool) -> str:
    shown = None if at.plain else read_certificate(certificate)
    spki = None if shown is None else shown.spki_sha256.hex()
    if as_json:
        value = {"url": at.url, "spki_sha256": spki, "ca": None if shown is None else shown.pem}
        return json.dumps(value | {"metrics": at.metrics})
    told = f", metrics {at.metrics}/metrics" if at.metrics else ""
    return f"serving {at.url} {'(INSECURE)' if spki is None else f'spki {spki}'}{told}"
