"""`strongroom verify URL|FILE|DIR|-`: is this server, or this evidence, genuine, and is it what I want?"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.cli import verdicts
from strongroom.cli.kept import Kept, add_fetch
from strongroom.cli.policyfile import add_policy, load_policy
from strongroom.cli.verify_files import judge_files
from strongroom.errors import ConfigError, StrongroomError
from strongroom.host.attested import MAX_EVIDENCE, Address, Examination
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="check a server or evidence in files: is it genuine, and is it what you want?",
        description="With a URL: connect to a server, ask it for evidence made for this very connection, verify it "
        "and hold it against your policy. Nothing but a random number is sent. With a file, a folder or - for "
        "standard input: say what the evidence there is and verify it, without any network; a policy is then "
        "optional.",
        epilog="examples: strongroom verify https://llm.example --policy policy.yaml; strongroom verify evidence/ "
        "--collateral kept/   exit codes: 0 accepted, 5 not genuine, 6 genuine but refused, 9 not reached",
    )
    parser.add_argument("target", metavar="URL|FILE|DIR|-", help="https://HOST[:PORT], or evidence in files")
    add_policy(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--timeout", type=float, default=20.0, metavar="SECONDS", help="longest silence (20)")
    parser.add_argument(
        "--save-certificate",
        type=Path,
        metavar="PEM",
        help="keep the accepted server's certificate, for other tools to pin",
    )
    parser.add_argument(
        "--save-evidence",
        type=Path,
        metavar="FILE",
        help="keep all evidence as JSON, accepted or not",
    )

    add_fetch(parser)
    parser.add_argument(
        "--collateral",
        action="append",
        default=[],
        metavar="PATH",
        help="your own collateral: the directory of `strongroom collateral` (for a server by default its own, where "
        "there is one); for evidence in files also certificates, lists and reference values, and may be repeated",
    )

    files = parser.add_argument_group("for evidence in files")
    files.add_argument("--now", metavar="TIME", help="judge as of this time, as 2026-01-31T12:00:00Z (now)")
    files.add_argument("--nonce", metavar="HEX", help="what the evidence must have been made for")
    files.add_argument(
        "--key", type=Path, metavar="FILE", help="the key or certificate a bundle must speak for"
    )


def run(args: argparse.Namespace) -> int:
    return _server(args) if _is_url(args.target) else judge_files(args)


def _is_url(target: str) -> bool:
    return "://" in target


def _server(args: argparse.Namespace) -> int:
    for option in ("now", "nonce", "key"):
        if getattr(args, option):
            raise ConfigError(f"--{option}: for evidence in files, not for a server")
    if len(args.collateral) > 1:
        raise ConfigError(f"--collateral: {len(args.collateral)} for a server, want one directory")
    policy, address = load_policy(args.policy), Address.parse(args.target)
    own = Path(args.collateral[0]) if args.collateral else None
    kept = Kept(own, roots=policy.roots, now=datetime.now(UTC), fetches=args.fetch)
    try:
        examined = kept.examine(address, policy, timeout=args.timeout)
    except StrongroomError as error:
        if args.json:
            print(json.dumps(_failed(address, error)))
        raise
    print(json.dumps(verdicts.to_json(examined)) if args.json else verdicts.report(examined))
    if args.save_evidence is not None:
        args.save_evidence.write_bytes(pack_json(evidence_file(examined)) + b"\n")
    examined.require()
    if args.save_certificate is not None:
        certificate = x509.load_der_x509_certificate(examined.certificate)
        args.save_certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    if not args.json:
        loud = f" {verdicts.LOUD}" if examined.simulated else ""
        print(f"\naccepted: {address} is genuine and meets {args.policy}.{loud}")
    return 0


def evidence_file(examined: Examination) -> dict[str, JSON]:
    """All that is needed to verify the same evidence again, by anyone."""
    return {
        "version": "strongroom/kept-evidence/v1",
        "server": str(examined.address),
        "certificate": b64u(examined.certificate),
        "nonce": b64u(examined.nonce),
        "exporter": b64u(examined.exporter),
        "answer": parse_json(examined.answer, "evidence answer", max_bytes=MAX_EVIDENCE),
    }


def _failed(address: Address, error: StrongroomError) -> dict[str, JSON]:
    return {
        "server": str(address),
        "accepted": False,
        "genuine": False,
        "reasons": [str(error)],
        "exit_code": error.exit_code,
    }
