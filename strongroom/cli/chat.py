"""`strongroom chat URL QUESTION --policy FILE`: verify a server, ask on that same connection, check the receipt."""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from strongroom.appraise.policy import Policy
from strongroom.cli import verdicts
from strongroom.cli.answer import Answer, StreamedAnswer, WholeAnswer
from strongroom.cli.kept import Kept, add_collateral, add_fetch
from strongroom.cli.policyfile import add_policy, load_policy
from strongroom.cli.receipt import sentence
from strongroom.cli.terminal import answer_text, is_terminal
from strongroom.errors import ConfigError, StrongroomError
from strongroom.host.attested import Address, AttestedConnection
from strongroom.host.exchange import Proof, ProvenExchange
from strongroom.wire.canonical import JSON, pack_json

PATH: Final = "/v1/chat/completions"
MAX_QUESTION: Final = 16 << 20  # bytes
MAX_TOKEN: Final = 4096  # bytes of a token file


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "chat",
        help="verify a server, ask it one question, check the receipt",
        description="Verify a server, ask it one question over that same connection, print the answer as it comes, "
        "then check the signed receipt against the exact bytes sent and received.",
        epilog='example: strongroom chat https://llm.example "Why is the sky blue?" --policy policy.yaml',
    )
    parser.add_argument("url", metavar="URL", help="https://HOST[:PORT]")
    parser.add_argument("question", metavar="QUESTION", help="what to ask; - reads it from stdin")
    add_policy(parser)
    add_collateral(parser)
    add_fetch(parser)
    parser.add_argument(
        "--token-file", metavar="FILE", help="file with the bearer token; - reads it from stdin"
    )
    parser.add_argument("--model", metavar="NAME", help="default: the one the evidence names")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest answer")
    parser.add_argument(
        "--timeout", type=float, default=20.0, metavar="SECONDS", help="silence while verifying (20)"
    )
    parser.add_argument(
        "--stream", action=argparse.BooleanOptionalAction, default=True, help="print words as they come"
    )
    parser.add_argument("--receipt", type=Path, metavar="FILE", help="keep the receipt with its evidence")
    parser.add_argument("--save-request", type=Path, metavar="FILE", help="keep the exact bytes sent")
    parser.add_argument("--save-response", type=Path, metavar="FILE", help="keep the exact bytes received")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, after everything was checked"
    )
    parser.add_argument("--quiet", action="store_true", help="print the answer only, if all is well")


def run(args: argparse.Namespace) -> int:
    policy = load_policy(args.policy)
    question, token = _question(args), _token(args)
    with _connected(args, policy) as connection:
        _tell(verdicts.summary(connection.examination), args)
        if connection.examination.simulated:
            print(verdicts.LOUD, file=sys.stderr)  # even when quiet
        body = pack_json(_request(args, question, connection))
        exchange = ProvenExchange(connection, path=PATH, body=body, token=token)
        try:
            words, response = _show(exchange, args)
            proof = exchange.prove(policy=policy, roots=policy.roots, now=datetime.now(UTC))
        except StrongroomError as error:
            if args.json:
                raise  # nothing was printed
            error.args = (f"DO NOT RELY ON THE ANSWER ABOVE: {error}",)
            raise
        except KeyboardInterrupt:
            print("strongroom: interrupted: the answer above is not proven", file=sys.stderr)
            raise
    _keep(args, body, response, proof)
    if args.json:
        print(json.dumps(_result(words, connection, proof)))
    _tell(sentence(proof.receipt), args)
    return 0


def _connected(args: argparse.Namespace, policy: Policy) -> AttestedConnection:
    now = datetime.now(UTC)
    kept = Kept(args.collateral, roots=policy.roots, now=now, fetches=args.fetch)
    if args.fetch:
        kept.examine(Address.parse(args.url), policy, timeout=args.timeout)
    with kept.telling():
        return AttestedConnection.open(
            args.url, policy=policy, roots=policy.roots, now=now, timeout=args.timeout, supply=kept
        )


def _question(args: argparse.Namespace) -> str:
    if args.question != "-":
        return str(args.question)
    if args.token_file == "-":
        raise ConfigError("chat: question and token both from stdin, want one of them")
    data = sys.stdin.buffer.read(MAX_QUESTION + 1)
    if len(data) > MAX_QUESTION:
        raise ConfigError(f"question: longer than {MAX_QUESTION} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"question: byte {error.start} is not UTF-8 text") from error


def _token(args: argparse.Namespace) -> str | None:
    # A token is a secret: argv and environment are open to the whole machine, so it comes by file or pipe.
    if args.token_file is None:
        return None
    if args.token_file == "-":
        data = sys.stdin.buffer.read(MAX_TOKEN + 1)
    else:
        with open(args.token_file, "rb") as file:
            data = file.read(MAX_TOKEN + 1)
    text = data.strip()
    if not text or len(data) > MAX_TOKEN or any(not 33 <= byte <= 126 for byte in text):
        raise ConfigError(f"token file: want one printable word of at most {MAX_TOKEN} bytes")
    return text.decode("ascii")


def _request(args: argparse.Namespace, question: str, connection: AttestedConnection) -> dict[str, JSON]:
    model = args.model or verdicts.event(connection.examination.channel.claims.events, "model").get("name")
    if not isinstance(model, str):
        raise ConfigError("model: the evidence names none, want --model NAME")
    request: dict[str, JSON] = {"model": model, "messages": [{"role": "user", "content": question}]}
    if args.max_tokens is not None:
        request["max_tokens"] = args.max_tokens
    if args.stream:
        request["stream"] = True
    return request


def _show(exchange: ProvenExchange, args: argparse.Namespace) -> tuple[str, bytes]:
    """Words and exact body bytes of the whole answer, shown on the way unless it is to be JSON."""
    answer: Answer = StreamedAnswer() if args.stream else WholeAnswer()
    words, response = [], []
    for data in exchange:
        response.append(data)
        words.append(answer.feed(data))
        _print(words[-1], args)
    words.append(answer.end())
    _print(words[-1] + "\n", args)
    if answer.finish == "length":
        _tell("the answer stops here because it reached the longest length asked for or allowed", args)
    return "".join(words), b"".join(response)


def _print(text: str, args: argparse.Namespace) -> None:
    if not args.json and text:
        sys.stdout.write(answer_text(text) if is_terminal() else text)
        sys.stdout.flush()


def _tell(line: str, args: argparse.Namespace) -> None:
    if not args.quiet and not args.json:
        print(line, file=sys.stderr)


def _keep(args: argparse.Namespace, body: bytes, response: bytes, proof: Proof) -> None:
    for path, data in (
        (args.receipt, proof.envelope),
        (args.save_request, body),
        (args.save_response, response),
    ):
        if path is not None:
            path.write_bytes(data)


def _result(words: str, connection: AttestedConnection, proof: Proof) -> dict[str, JSON]:
    return {
        "answer": words,
        "receipt": proof.receipt.to_json(),
        "server": verdicts.to_json(connection.examination),
    }
