"""`strongroom verify URL --policy FILE`: is this server genuine, and is it what I want?"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.appraise.policy import Policy
from strongroom.cli import verdicts
from strongroom.cli.policyfile import add_policy, load_policy
from strongroom.errors import StrongroomError
from strongroom.host.attested import Address, Candidate, Examination
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="check a server: is it genuine, and is it what you want?",
        description="Connect to a server, ask it for evidence made for this very connection, verify it and hold "
        "it against your policy. Nothing but a random number is sent.",
        epilog="example: strongroom verify https://llm.example --policy policy.yaml   "
        "exit codes: 0 accepted, 5 not genuine, 6 genuine but refused, 9 not reached",
    )
    parser.add_argument("url", metavar="URL", help="https://HOST[:PORT]")
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


def run(args: argparse.Namespace) -> int:
    policy, address = load_policy(args.policy), Address.parse(args.url)
    try:
        examined = _examine(address, policy, args.timeout)
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
        "answer": parse_json(examined.answer, "evidence answer"),
    }


def _examine(address: Address, policy: Policy, timeout: float) -> Examination:
    with Candidate.dial(address, timeout=timeout) as candidate:
        return candidate.examine(policy=policy, roots=policy.roots, now=datetime.now(UTC))


def _failed(address: Address, error: StrongroomError) -> dict[str, JSON]:
    return {
        "server": str(address),
        "accepted": False,
        "genuine": False,
        "reasons": [str(error)],
        "exit_code": error.exit_code,
    }
