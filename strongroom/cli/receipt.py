"""`strongroom receipt verify FILE --policy FILE`: check a kept receipt, without any network."""

import argparse
import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from strongroom.appraise.verdict import appraise
from strongroom.cli import verdicts
from strongroom.cli.kept import Kept, add_collateral
from strongroom.cli.policyfile import add_policy, load_policy
from strongroom.cli.terminal import one_line
from strongroom.cli.verify_files import moment
from strongroom.receipts import envelope
from strongroom.receipts.receipt import Receipt
from strongroom.verify.lacking import LackingError


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "receipt",
        help="check a kept receipt, without any network",
        description="Receipts bind one question and one answer to the model, the engine and the machine.",
        epilog="example: strongroom receipt verify answer.receipt --policy policy.yaml --response answer.json",
    )
    verify = parser.add_subparsers(metavar="verify", required=True).add_parser(
        "verify",
        help="check a receipt file against a policy and, if given, the exact bytes it speaks for",
    )
    verify.add_argument("file", type=Path, metavar="FILE", help="as kept by `strongroom chat --receipt FILE`")
    add_policy(verify)
    add_collateral(verify)
    verify.add_argument(
        "--now",
        metavar="TIME",
        help="judge as of this time, at which you know to have had the receipt: nothing in it proves its age (now)",
    )
    verify.add_argument("--request", type=Path, metavar="FILE", help="exact bytes of the request body")
    verify.add_argument("--response", type=Path, metavar="FILE", help="exact bytes of the response body")
    verify.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    policy = load_policy(args.policy)
    with args.file.open("rb") as file:
        raw = file.read(envelope.MAX_BYTES + 1)
    now = moment(args.now)
    kept = Kept(args.collateral, roots=policy.roots, now=now)
    own = kept(envelope.parse(raw)[2])
    try:
        receipt, claims = envelope.verify_envelope(
            raw, roots=policy.roots, now=now, issuers=own.certificates, collateral=own.collateral
        )
    except LackingError as error:
        raise LackingError(
            f"{error}; want --now with a time at which you had it, or newer --collateral"
        ) from None
    appraise(claims, policy, now=now).require()
    receipt.require_bodies(
        request_sha256=_hash(args.request) or receipt.request_sha256,
        response_sha256=_hash(args.response) or receipt.response_sha256,
    )
    if args.json:
        unchecked = [name for name in ("request", "response") if getattr(args, name) is None]
        print(json.dumps({"receipt": receipt.to_json(), "insecure_simulated": claims.simulated,
                          "bodies_not_checked": unchecked}))  # fmt: skip
        return 0
    if claims.simulated:
        print(f"!!! {verdicts.LOUD} !!!")
    print(sentence(receipt))
    for name in ("request", "response"):
        if getattr(args, name) is None:
            print(f"not checked: the {name}, want --{name} FILE with its exact bytes")
    return 0


def sentence(receipt: Receipt) -> str:
    """What a verified receipt says, on one line."""
    served = datetime.fromtimestamp(receipt.served_at, UTC).isoformat().replace("+00:00", "Z")
    whole = "" if receipt.complete else ", CUT SHORT"
    return one_line(
        f"receipt ok: {receipt.model.name} epoch {receipt.model.epoch} (root {receipt.model.root.hex()[:16]}) "
        f"on {receipt.engine.name} {receipt.engine.version} answered at {served}{whole}"
    )


def _hash(path: Path | None) -> bytes | None:
    return sha256(path.read_bytes()).digest() if path is not None else None
