"""`strongroom status`: the machine that this command runs in, and what it gives to whoever runs it."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from strongroom.cli.terminal import table
from strongroom.errors import ProtocolError
from strongroom.host.keysock import AGENT, ask
from strongroom.wire.canonical import JSON

_ROOTS: Final = {
    "broker": "the key broker: the same on every machine that may have them",
    "vtpm": "this machine's TPM: gone with it",
    "ephemeral": "this boot: gone with it",
}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "status",
        help="the machine you are in, and which keys and evidence it gives you",
        description="Inside a strongroom machine: what it is, where its keys come from, and what userdata allows to "
        "the unit or user that runs this command.",
        epilog="exit code 9: there is no key socket here",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--socket", type=Path, default=AGENT, metavar="PATH", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    status, rights = ask(args.socket, "/v1/status"), ask(args.socket, "/v1/rights")
    if args.json:
        print(json.dumps({**status, "rights": rights}))
    else:
        print(table([*_machine(status), *_rights(rights)]))
    return 0


def _machine(status: dict[str, JSON]) -> Iterator[tuple[str, str]]:
    for name in ("name", "tee", "measurement", "committed", "app_id", "userdata_sha256"):
        yield name.replace("_", " "), _text(status, name)
    yield "log", f"{_text(status, 'events')} events, head {_text(status, 'log_head')}"
    keys = status.get("keys")
    if not isinstance(keys, dict):
        yield "keys", "none: userdata has no section strongroom.keys"
        return
    root = _text(keys, "root")
    yield "keys from", f"{root}, {_ROOTS.get(root, 'of which this version knows nothing')}"
    if keys.get("resource"):
        yield "", f"{_text(keys, 'resource')}, broker {_text(keys, 'broker_spki_sha256')}"
    yield "newest epoch", _text(keys, "epoch")


def _rights(rights: dict[str, JSON]) -> Iterator[tuple[str, str]]:
    yield "", ""
    yield "you are", _text(rights, "caller")
    yield "may call", _listed(rights, "methods")
    yield "gets keys", _listed(rights, "paths")
    yield "signs with", _listed(rights, "sign")
    yield "quotes", "over any bytes" if rights.get("raw_quote") is True else "over 32 bytes at most"


def _text(values: dict[str, JSON], name: str) -> str:
    if not isinstance(value := values.get(name), str | int):
        raise ProtocolError(f"key socket: an answer without {name}")
    return str(value)


def _listed(values: dict[str, JSON], name: str) -> str:
    if not isinstance(value := values.get(name), list):
        raise ProtocolError(f"key socket: an answer without {name}")
    return ", ".join(map(str, value)) or "none"
