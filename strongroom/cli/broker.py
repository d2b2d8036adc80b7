"""`strongroom broker`: keep keys in a directory, and give them only to machines that meet each key's policy.

For one machine and for tests. Where this is outgrown, a Trustee KBS speaks the same protocol to the same guests.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

from strongroom.broker.resource import ResourceURI, VolumeKey
from strongroom.cli.broker_certificate import CERTIFICATE, KEY, read_certificate, write_certificate
from strongroom.cli.broker_server import Endpoint, Ready, serve
from strongroom.errors import ConfigError, FormatError, MachineError
from strongroom.host.shelf import MAX_PAYLOAD, MAX_POLICY, Shelf

DEFAULT_LISTEN: Final = "127.0.0.1:8443"


def add_parser(subparsers: Any) -> None:
    broker = subparsers.add_parser("broker", help=__doc__.partition("\n")[0], description=__doc__)
    verbs = broker.add_subparsers(metavar="ACTION", required=True)

    init = verbs.add_parser("init", help="make a broker directory and its TLS certificate")
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
    init.add_argument("--json", action="store_true", help="print the result as JSON")
    init.set_defaults(action=_init)

    put = verbs.add_parser("put", help="keep a file under a name, guarded by a policy")
    put.add_argument("directory", type=Path, metavar="DIR")
    put.add_argument("resource", metavar="kbs:///REPOSITORY/TYPE/TAG")
    put.add_argument(
        "file", type=Path, metavar="FILE", help="what is released, such as the key from `strongroom seal`"
    )
    put.add_argument(
        "--policy", type=Path, required=True, metavar="FILE", help="YAML: whom it is released to"
    )
    put.set_defaults(action=_put)

    run = verbs.add_parser("serve", help="answer guests until SIGTERM; one audit line on stderr per decision")
    run.add_argument("directory", type=Path, metavar="DIR")
    run.add_argument(
        "--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT", help="default: %(default)s; port 0: any"
    )
    run.add_argument("--tls-cert", type=Path, metavar="FILE", help=f"default: DIR/{CERTIFICATE}")
    run.add_argument("--tls-key", type=Path, metavar="FILE", help=f"default: DIR/{KEY}")
    run.add_argument(
        "--insecure-loopback", action="store_true", help="plain HTTP, on a loopback address only"
    )
    run.add_argument("--json", action="store_true", help="print the ready line as JSON")
    run.set_defaults(action=_serve)


def run(args: argparse.Namespace) -> int:
    code: int = args.action(args)
    return code


def _init(args: argparse.Namespace) -> int:
    shelf = Shelf(args.directory)
    shelf.create()
    certificate = write_certificate(args.directory, args.name, days=args.days)
    spki, host = certificate.spki_sha256.hex(), args.name[0]
    if args.json:
        print(json.dumps({"directory": str(args.directory), "spki_sha256": spki, "ca": certificate.pem}))
        return 0
    where = f"[{host}]" if ":" in host else host
    print(f"broker directory  {args.directory}")
    print(f"certificate       {args.directory / CERTIFICATE}, P-256, until {certificate.not_after:%Y-%m-%d}")
    print(f"key sha256        {spki}")
    print("in userdata       strongroom:")
    print(f'                    broker: {{url: "https://{where}:8443", spki_sha256: "{spki}"}}')
    return 0


def _put(args: argparse.Namespace) -> int:
    uri = ResourceURI.parse(args.resource)
    shelf = _shelf(args.directory)
    payload = _read(args.file, MAX_PAYLOAD)
    shelf.put(uri, payload, _read(args.policy, MAX_POLICY))
    print(f"{uri}: {_described(payload)}")
    return 0


def _serve(args: argparse.Namespace) -> int:
    shelf = _shelf(args.directory)
    certificate = args.tls_cert or args.directory / CERTIFICATE
    key = args.tls_key or args.directory / KEY
    endpoint = Endpoint.parse(args.listen, certificate=certificate, key=key, plain=args.insecure_loopback)

    def ready(at: Ready) -> None:
        print(_ready_line(at, certificate, as_json=args.json), flush=True)

    def audit(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    asyncio.run(serve(shelf, endpoint, ready=ready, audit=audit))
    return 0


def _ready_line(at: Ready, certificate: Path, *, as_json: bool) -> str:
    if at.plain:
        return (
            json.dumps({"url": at.url, "spki_sha256": None, "ca": None})
            if as_json
            else f"serving {at.url} (INSECURE)"
        )
    shown = read_certificate(certificate)
    spki = shown.spki_sha256.hex()
    return (
        json.dumps({"url": at.url, "spki_sha256": spki, "ca": shown.pem})
        if as_json
        else f"serving {at.url} spki {spki}"
    )


def _shelf(directory: Path) -> Shelf:
    if not (directory / "resources").is_dir():
        raise ConfigError(f"{directory}: not a broker directory, want one made by `strongroom broker init`")
    return Shelf(directory)


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise MachineError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    if len(content) > most:
        raise FormatError(f"{path}: longer than {most} bytes")
    return content


def _described(payload: bytes) -> str:
    try:
        volume = VolumeKey.parse(payload)
    except FormatError:
        return f"{len(payload)} bytes kept"
    return f"key kept for the sealed model of root {volume.root.hex()}, epoch {volume.epoch}"
