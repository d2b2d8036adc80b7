"""`strongroom quote`: evidence of the machine that this command runs in, for others to verify."""

import argparse
import json
import secrets
import sys
from pathlib import Path
from typing import Any, Final

from strongroom.cli.key import PAIRS, public_pem
from strongroom.cli.terminal import table
from strongroom.errors import ConfigError, ProtocolError
from strongroom.evidence.binding import MIN_CHALLENGE, application_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.host.keysock import AGENT, QUOTE, ask
from strongroom.wire.canonical import JSON, b64u, unb64u

MAX_CHALLENGE: Final = 64  # bytes
MAX_REPORT_DATA: Final = 64
_OF_BUNDLE: Final = ("challenge", "path", "kind", "epoch", "key_out")
_OF_DSTACK: Final = ("attestation", "event_log_out")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "quote",
        help="evidence of the machine you are in, for somebody else to verify",
        description="Inside a strongroom machine: evidence that names the unit or user that runs this command, made "
        "for a challenge of whoever will verify it, and perhaps for a key that signs here. With --report-data: the "
        "bare quote over up to 32 bytes, as dstack's SDK gives it.",
        epilog="example: strongroom quote --challenge $NONCE --path api.service/id --out evidence.json --key-out id.pem"
        "   exit codes: 6 no rule allows it, 9 there is no key socket here",
    )
    parser.add_argument("--challenge", metavar="HEX", help="16..64 bytes of the verifier (default: random)")
    parser.add_argument(
        "--path",
        metavar="PATH",
        help="of the signing key that the evidence is to speak for (default: for none)",
    )
    parser.add_argument("--kind", choices=PAIRS, help="of that key (default: ed25519)")
    parser.add_argument("--epoch", type=int, metavar="N", help="of that key (default: the newest)")
    parser.add_argument("--key-out", type=Path, metavar="PEM", help="write the public half of that key here")

    bare = parser.add_argument_group("a bare quote")
    bare.add_argument(
        "--report-data", metavar="HEX", help="up to 64 bytes; more than 32 take a rule of their own"
    )
    bare.add_argument("--attestation", action="store_true", help="as dstack's versioned attestation")
    bare.add_argument("--event-log-out", type=Path, metavar="FILE", help="write the event log here, as JSON")

    parser.add_argument("--out", type=Path, metavar="FILE", help="write it here (default: standard output)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--socket", type=Path, metavar="PATH", help=f"default: {AGENT}, bare: {QUOTE}")


def run(args: argparse.Namespace) -> int:
    bare = args.report_data is not None
    for option in _OF_BUNDLE if bare else _OF_DSTACK:
        if getattr(args, option):
            wanted = "without" if bare else "with"
            raise ConfigError(f"--{option.replace('_', '-')}: want it {wanted} --report-data")
    return _bare(args) if bare else _bundle(args)


def _bundle(args: argparse.Namespace) -> int:
    if args.path is None and (args.kind or args.epoch is not None or args.key_out):
        raise ConfigError("--kind, --epoch, --key-out: they are of a key, want --path with them")
    nonce = secrets.token_bytes(32) if args.challenge is None else _octets(args.challenge, "--challenge")
    if not MIN_CHALLENGE <= len(nonce) <= MAX_CHALLENGE:
        raise ConfigError(f"--challenge: {len(nonce)} bytes, want {MIN_CHALLENGE}..{MAX_CHALLENGE}")
    named = {"path": args.path, "kind": args.kind, "epoch": args.epoch}
    fields: dict[str, JSON] = {name: value for name, value in named.items() if value is not None}
    answer = ask(args.socket or AGENT, "/v1/evidence", fields | {"challenge": b64u(nonce)})
    match answer:
        case {"caller": str(caller), "key": str(key), "bundle": bundled}:
            bundle, spki = Bundle.from_json(bundled), unb64u(key, "key")
        case _:
            raise ProtocolError("key socket: an answer without evidence")
    if bundle.challenge != application_challenge(caller, nonce):
        raise ProtocolError("key socket: evidence made for another challenge, or another caller")
    _write(args.out, bundle.pack())
    if args.key_out is not None:
        args.key_out.write_text(public_pem(spki))
    facts: dict[str, JSON] = {
        "caller": caller,
        "purpose": str(bundle.purpose),
        "tee": bundle.tee,
        "nonce": nonce.hex(),
        "challenge": bundle.challenge.hex(),
        "key": spki.hex(),
        "sha256": bundle.digest.hex(),
    }
    _tell(args, facts, {"bundle": bundle.to_json()}, bundle.pack() + b"\n")
    return 0


def _bare(args: argparse.Namespace) -> int:
    if args.attestation and args.event_log_out:
        raise ConfigError("--event-log-out: an attestation holds its log, want it without --attestation")
    data = _octets(args.report_data, "--report-data")
    if not 0 < len(data) <= MAX_REPORT_DATA:
        raise ConfigError(f"--report-data: {len(data)} bytes, want 1..{MAX_REPORT_DATA}")
    name, method = ("attestation", "/Attest") if args.attestation else ("quote", "/GetQuote")
    answer = ask(args.socket or QUOTE, method, {"report_data": data.hex()})
    try:
        quote = bytes.fromhex(str(answer[name]))
    except (KeyError, ValueError):
        raise ProtocolError(f"key socket: an answer without {name}") from None
    _write(args.out, quote)
    if args.event_log_out is not None:
        args.event_log_out.write_text(str(answer.get("event_log", "[]")))
    _tell(args, {"report_data": data.hex(), "bytes": len(quote)}, answer, quote.hex().encode() + b"\n")
    return 0


def _write(out: Path | None, content: bytes) -> None:
    if out is not None:
        out.write_bytes(content)


def _tell(args: argparse.Namespace, facts: dict[str, JSON], whole: dict[str, JSON], content: bytes) -> None:
    """What was made: in a file, with the facts shown; or itself."""
    if args.json:
        print(json.dumps(facts | ({} if args.out else whole)))
    elif args.out:
        print(table([(name, str(value)) for name, value in facts.items() if value != ""]))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)


def _octets(text: str, option: str) -> bytes:
    try:
        octets = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise ConfigError(f"{option}: not hex, want bytes in hex") from None
    return octets
