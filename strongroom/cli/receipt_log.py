"""`strongroom receipt log check`: two heads of a door's log, and the proof that the later goes on from the earlier."""

import argparse
import json
from pathlib import Path
from typing import Any, Final

from strongroom.appraise.verdict import appraise
from strongroom.cli import verdicts
from strongroom.cli.kept import Kept, add_collateral
from strongroom.cli.policyfile import add_policy, load_policy
from strongroom.cli.verify_files import moment
from strongroom.errors import ConfigError, FormatError
from strongroom.evidence.binding import Purpose, receipt_challenge
from strongroom.receipts import envelope
from strongroom.receipts.envelope import SignerEvidence
from strongroom.receipts.log import Consistency, Head, Inclusion, SignedHead, verify_head
from strongroom.receipts.receipt import SignedReceipt
from strongroom.verify.bundle import verify_bundle
from strongroom.wire.canonical import JSON, parse_json

MAX_BYTES: Final = 2 * envelope.MAX_BYTES  # of any file here


def add_parser(verbs: Any) -> None:
    log = verbs.add_parser("log", help="check what became of the log that receipts are in")
    check = log.add_subparsers(metavar="check", required=True).add_parser(
        "check",
        help="check that a later head of the log has everything the earlier one had",
        description="Heads are what /v1/receipts/log/head answers, or receipt files with a proof.",
        epilog="example: strongroom receipt log check monday.json friday.json --proof between.json "
        "--evidence well-known.json --policy policy.yaml",
    )
    check.add_argument("first", type=Path, metavar="FIRST", help="the earlier head")
    check.add_argument("second", type=Path, metavar="SECOND", help="the later head")
    check.add_argument(
        "--proof",
        type=Path,
        metavar="FILE",
        help="what /v1/receipts/log/consistency?first=SIZE&second=SIZE answers; not needed for equal sizes",
    )
    check.add_argument(
        "--evidence",
        type=Path,
        required=True,
        metavar="FILE",
        help="what the door shows at /.well-known/strongroom, or a receipt file of it",
    )
    add_policy(check)
    add_collateral(check)
    check.add_argument("--now", metavar="TIME", help="judge the evidence as of this time (now)")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.set_defaults(check=_check)


def read_evidence(path: Path, signed: SignedReceipt | None = None) -> tuple[SignerEvidence, Inclusion | None]:
    """What a door shows for its receipt key; and, where it is the file of this receipt, its proof."""
    value = _read(path)
    signer, proof = SignerEvidence.from_json(value), None
    if isinstance(value, dict) and signed is not None and value.get("receipt") == signed.receipt.to_json():
        proof = Inclusion.from_json(value["proof"]) if "proof" in value else None
    return signer, proof


def _check(args: argparse.Namespace) -> int:
    policy, now = load_policy(args.policy), moment(args.now)
    signer, _ = read_evidence(args.evidence)
    own = Kept(args.collateral, roots=policy.roots, now=now)(signer.bundle)
    claims = verify_bundle(
        signer.bundle,
        purpose=Purpose.RECEIPT_KEY,
        challenge=receipt_challenge(signer.not_before),
        key=signer.key,
        roots=policy.roots,
        now=now,
        issuers=own.certificates,
        collateral=own.collateral,
    )
    appraise(claims, policy, now=now).require()
    first, second = (verify_head(_head(path), key=signer.key) for path in (args.first, args.second))
    _proof(args.proof, first, second).require(first, second)
    set_back = second.time < first.time  # the machine's clock, which is its host's: no fault of the log
    if args.json:
        heads: list[JSON] = [first.to_json(), second.to_json()]
        print(
            json.dumps({"heads": heads, "insecure_simulated": claims.simulated, "clock_set_back": set_back})
        )
        return 0
    if claims.simulated:
        print(f"!!! {verdicts.LOUD} !!!")
    print(f"log ok: {second.log.hex()} went on from {first.size} to {second.size} receipts, and lost none")
    if set_back:
        print(f"warning: the clock went back from {first.time} to {second.time} between the two heads")
    return 0


def _proof(path: Path | None, first: Head, second: Head) -> Consistency:
    if path is not None:
        return Consistency.from_json(_read(path))
    if first.size not in (0, second.size):
        raise ConfigError(
            f"--proof: none given, want what "
            f"/v1/receipts/log/consistency?first={first.size}&second={second.size} answers"
        )
    return Consistency(first=first.size, second=second.size, path=())


def _head(path: Path) -> SignedHead:
    value = _read(path)
    if isinstance(value, dict) and "proof" in value:
        return Inclusion.from_json(value["proof"]).head
    return SignedHead.from_json(value)


def _read(path: Path) -> JSON:
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise FormatError(f"{path}: longer than {MAX_BYTES} bytes")
    return parse_json(raw, str(path), max_bytes=MAX_BYTES)
