"""The answer of `strongroom verify` about evidence in files: a table for a person, one JSON object for a program."""

import argparse
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from strongroom.appraise.policy import Policy
from strongroom.appraise.verdict import Verdict, appraise
from strongroom.cli.offline import verify_pieces
from strongroom.cli.pieces import Pieces, read, read_all
from strongroom.cli.policyfile import load_policy
from strongroom.cli.question import Answer, Question, spki_of
from strongroom.cli.terminal import one_line, table
from strongroom.cli.verdicts import LOUD
from strongroom.errors import ConfigError, FormatError, StrongroomError
from strongroom.host.collateral.store import Store
from strongroom.verify.roots import PRODUCTION
from strongroom.wire.canonical import JSON
from strongroom.wire.pem import certificates

_KEPT: Final = re.compile(r"[0-9a-f]{64}\.json")  # how a store of collateral names its entries
_MAX_NONCE: Final = 64  # bytes
_MAX_KEY: Final = 64 * 1024  # bytes of a file


def judge_files(args: argparse.Namespace) -> int:
    """Print what the evidence at `args.target` is and how it was judged; the errors of every verifier."""
    for option in ("save_certificate", "save_evidence"):
        if getattr(args, option) is not None:
            raise ConfigError(f"--{option.replace('_', '-')}: for a server, not for evidence in files")
    if args.fetch:
        raise ConfigError("--fetch: for a server; evidence in files is verified without any network")
    policy = load_policy(args.policy) if args.policy is not None else None
    now = moment(args.now)
    try:
        answer = verify_pieces(_question(args, policy, now))
        verdict = _verdict(answer, policy, now)
    except StrongroomError as error:
        if args.json:
            print(json.dumps(_failed(args.target, error)))
        raise
    print(json.dumps(_to_json(args.target, answer, verdict)) if args.json else _report(answer, verdict))
    if verdict is not None:
        verdict.require()
    if not args.json:
        judged = f"meets {args.policy}" if verdict is not None else "was held against no policy"
        loud = f" {LOUD}" if answer.simulated else ""
        print(f"\n{'accepted' if verdict is not None else 'genuine'}: {answer.what} {judged}.{loud}")
    return 0


def _question(args: argparse.Namespace, policy: Policy | None, now: datetime) -> Question:
    pieces, store = _collateral(args.collateral)
    return Question(
        pieces=read(args.target) + pieces,
        roots=policy.roots if policy is not None else PRODUCTION,
        now=now,
        nonce=_nonce(args.nonce),
        key=_key(args.key),
        store=store,
    )


def _collateral(paths: list[str]) -> tuple[Pieces, Store | None]:
    stores = [path for path in paths if _is_store(Path(path))]
    if len(stores) > 1:
        raise ConfigError(f"--collateral: {len(stores)} stores, want one")
    return read_all([path for path in paths if path not in stores]), (
        Store(Path(stores[0])) if stores else None
    )


def _is_store(path: Path) -> bool:
    return path.is_dir() and any(_KEPT.fullmatch(file.name) for file in path.iterdir())


def moment(text: str | None) -> datetime:
    """The time of an option --now, by default the present; ConfigError."""
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--now: got {text[:64]!r}, want a time such as 2026-01-31T12:00:00Z") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _nonce(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        nonce = bytes.fromhex(text)
    except ValueError as error:
        raise ConfigError(f"--nonce: got {text[:64]!r}, want hex") from error
    if not 0 < len(nonce) <= _MAX_NONCE:
        raise ConfigError(f"--nonce: {len(nonce)} bytes, want 1..{_MAX_NONCE}")
    return nonce


def _key(path: Path | None) -> bytes | None:
    if path is None:
        return None
    with path.open("rb") as file:
        content = file.read(_MAX_KEY)
    if b"-----BEGIN CERTIFICATE-----" in content:
        return spki_of(certificates(content, str(path), most=1)[0])
    try:
        load = load_pem_public_key if content.startswith(b"-----") else load_der_public_key
        key = load(content)
    except ValueError as error:
        raise FormatError(f"{path}: neither a public key nor a certificate") from error
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _verdict(answer: Answer, policy: Policy | None, now: datetime) -> Verdict | None:
    if policy is None:
        return None
    if answer.claims is None:
        raise ConfigError(f"--policy: speaks of machines, and {answer.what} alone is none")
    return appraise(answer.claims, policy, now=now)


def _report(answer: Answer, verdict: Verdict | None) -> str:
    lines = [f"!!! {LOUD} !!!", ""] if answer.simulated else []
    lines += [table([("what", answer.what), *answer.facts])]
    if verdict is not None:
        rows = [(r.check, r.found, r.wanted, "ok" if r.passed else "REFUSED") for r in verdict.results]
        lines += ["", table([("check", "found", "wanted", ""), *rows])]
    lines += [one_line(f"not checked: {gap}") for gap in answer.gaps]
    return "\n".join(lines)


def _to_json(target: str, answer: Answer, verdict: Verdict | None) -> dict[str, JSON]:
    return {
        "evidence": target,
        "what": answer.what,
        "genuine": True,
        "accepted": verdict.passed if verdict is not None else None,
        "insecure_simulated": answer.simulated,
        "reasons": list(verdict.reasons) if verdict is not None else [],
        "facts": [[name, value] for name, value in answer.facts],
        "not_checked": list(answer.gaps),
        "verdict": verdict.to_json() if verdict is not None else None,
    }


def _failed(target: str, error: StrongroomError) -> dict[str, JSON]:
    return {
        "evidence": target,
        "accepted": False,
        "genuine": False,
        "reasons": [str(error)],
        "exit_code": error.exit_code,
    }
