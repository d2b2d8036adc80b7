"""`strongroom receipt`: check a kept receipt, a streamed answer that carries one, or what became of their log."""

import argparse
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from strongroom.appraise.verdict import appraise
from strongroom.cli import receipt_log, verdicts
from strongroom.cli.kept import Kept, add_collateral
from strongroom.cli.policyfile import add_policy, load_policy
from strongroom.cli.terminal import one_line
from strongroom.cli.verify_files import moment
from strongroom.errors import ConfigError, PolicyError, VerifyError
from strongroom.receipts import envelope
from strongroom.receipts.envelope import SignerEvidence
from strongroom.receipts.hashing import BodyHash, StreamHash
from strongroom.receipts.log import Head, Inclusion
from strongroom.receipts.receipt import Receipt, SignedReceipt
from strongroom.verify.lacking import LackingError

_PIECE: Final = 1 << 20  # bytes
_LACKING: Final = "want --now with a time at which you had it, or newer --collateral"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What is to be checked, out of one file or two."""

    signed: SignedReceipt
    signer: SignerEvidence
    proof: Inclusion | None
    response_sha256: bytes | None  # of a stream that carried its receipt


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "receipt",
        help="check a kept receipt, without any network",
        description="Receipts bind one question and one answer to the model, the engine and the machine.",
        epilog="example: strongroom receipt verify answer.receipt --policy policy.yaml --response answer.json",
    )
    verbs = parser.add_subparsers(metavar="verify|log", required=True)
    verify = verbs.add_parser(
        "verify",
        help="check a receipt file against a policy and, if given, the exact bytes it speaks for",
    )
    verify.add_argument(
        "file", type=Path, metavar="FILE", help="a receipt file, or the exact bytes of a streamed answer"
    )
    add_policy(verify)
    add_collateral(verify)
    verify.add_argument(
        "--now",
        metavar="TIME",
        help="judge as of this time, at which you know to have had the receipt: nothing in it proves its age (now)",
    )
    verify.add_argument("--request", type=Path, metavar="FILE", help="exact bytes of the request body")
    verify.add_argument("--response", type=Path, metavar="FILE", help="exact bytes of the response body")
    verify.add_argument(
        "--evidence",
        type=Path,
        metavar="FILE",
        help="for a streamed answer: what the door shows at /.well-known/strongroom, or a receipt file of it",
    )
    verify.add_argument(
        "--proof", action="store_true", help="want a proof that the receipt is in the door's log (?proof=1)"
    )
    verify.add_argument(
        "--cut", action="store_true", help="accept the receipt of an answer that was cut short"
    )
    verify.add_argument("--json", action="store_true", help="print one JSON object")
    verify.set_defaults(check=_verify)
    receipt_log.add_parser(verbs)


def run(args: argparse.Namespace) -> int:
    code = args.check(args)
    assert isinstance(code, int)
    return code


def _verify(args: argparse.Namespace) -> int:
    policy = load_policy(args.policy)
    found = _read(args)
    now = moment(args.now)
    own = Kept(args.collateral, roots=policy.roots, now=now)(found.signer.bundle)
    try:
        receipt, claims = envelope.verify_receipt(
            found.signed,
            found.signer,
            roots=policy.roots,
            now=now,
            issuers=own.certificates,
            collateral=own.collateral,
        )
    except LackingError as error:
        raise LackingError(f"{error}; {_LACKING}") from None
    head = found.proof.require(receipt, key=found.signer.key) if found.proof is not None else None
    if args.proof and head is None:
        raise VerifyError("receipt: no proof that it is in the log, want what ?proof=1 answers")
    appraise(claims, policy, now=now).require()
    receipt.require_bodies(
        request_sha256=_hash(args.request, BodyHash()) or receipt.request_sha256,
        response_sha256=found.response_sha256
        or _hash(args.response, receipt.body_hash())
        or receipt.response_sha256,
    )
    if not receipt.complete and not args.cut:
        raise PolicyError(
            "receipt: genuine, and says that the answer was cut short: want --cut to accept that"
        )
    unchecked = [name for name in ("request", "response") if getattr(args, name) is None]
    if found.response_sha256 is not None:
        unchecked.remove("response")
    _print(args, receipt, head, unchecked, simulated=claims.simulated)
    return 0


def _read(args: argparse.Namespace) -> _Found:
    with args.file.open("rb") as file:
        whole = file.peek(1)[:1] == b"{"
        raw = file.read(envelope.MAX_BYTES + 1) if whole else b""
    if whole:
        if args.evidence is not None:
            raise ConfigError("--evidence: this receipt file has its own")
        signed, not_before, bundle = envelope.parse(raw)
        signer = SignerEvidence(key=signed.key, not_before=not_before, bundle=bundle)
        return _Found(signed=signed, signer=signer, proof=envelope.parse_proof(raw), response_sha256=None)
    stream = StreamHash()
    digest = _hash(args.file, stream)
    signed = envelope.from_stream(stream)
    if args.response is not None:
        raise ConfigError("--response: the file is the response already")
    if args.evidence is None:
        raise ConfigError(
            "--evidence: none given, want what the door shows at /.well-known/strongroom: "
            "a stream carries its receipt, and no evidence"
        )
    signer, proof = receipt_log.read_evidence(args.evidence, signed)
    return _Found(signed=signed, signer=signer, proof=proof, response_sha256=digest)


def _print(
    args: argparse.Namespace, receipt: Receipt, head: Head | None, unchecked: list[str], *, simulated: bool
) -> None:
    if args.json:
        log = None if head is None else head.to_json()
        print(json.dumps({"receipt": receipt.to_json(), "insecure_simulated": simulated,
                          "bodies_not_checked": unchecked, "log": log}))  # fmt: skip
        return
    if simulated:
        print(f"!!! {verdicts.LOUD} !!!")
    print(sentence(receipt))
    if head is not None:
        print(f"in the door's log {head.log.hex()}, which had {head.size} receipts at {_moment(head.time)}")
    for name in unchecked:
        print(f"not checked: the {name}, want --{name} FILE with its exact bytes")


def sentence(receipt: Receipt) -> str:
    """What a verified receipt says, on one line."""
    whole = "" if receipt.complete else ", CUT SHORT"
    return one_line(
        f"receipt ok: {receipt.model.name} epoch {receipt.model.epoch} (root {receipt.model.root.hex()[:16]}) "
        f"on {receipt.engine.name} {receipt.engine.version} answered at {_moment(receipt.served_at)}{whole}"
    )


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _hash(path: Path | None, body: BodyHash) -> bytes | None:
    if path is None:
        return None
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            body.update(piece)
    return body.digest()
