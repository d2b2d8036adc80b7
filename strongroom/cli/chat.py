"""`strongroom chat URL QUESTION --policy FILE`: verify a server, ask on that same connection, check the receipt."""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from strongroom.cli import verdicts
from strongroom.cli.answer import Answer, StreamedAnswer, WholeAnswer
from strongroom.cli.connecting import add_connecting, connected, read_token
from strongroom.cli.policyfile import add_policy, load_policy
from strongroom.cli.receipt import sentence
from strongroom.cli.terminal import answer_text, is_terminal
from strongroom.errors import ConfigError, StrongroomError
from strongroom.host.exchange import Proof, ProvenExchange
from strongroom.wire.canonical import JSON, pack_json

PATH: Final = "/v1/chat/completions"
MAX_QUESTION: Final = 16 << 20  # bytes


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
    add_connecting(parser)
    parser.add_argument(
        "--token-file", metavar="FILE", help="file with the bearer token; - reads it from stdin"
    )
    parser.add_argument("--model", metavar="NAME", help="default: the one the evidence names")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest answer")
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
    question = _question(args)
    token = None if args.token_file is None else read_token(args.token_file)
    with connected(args, policy) as connection:
        _tell(verdicts.summary(connection.examination), args)
        if connection.examination.simulated:
            print(verdicts.LOUD, file=sys.stderr)  # even when quiet
        body = pack_json(_request(args, question, connection.examination))
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
        print(json.dumps(_result(words, connection.examination, proof)))
    _tell(sentence(proof.receipt), args)
    return 0


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


def _request(args: argparse.Namespace, question: str, examined: verdicts.Examined) -> dict[str, JSON]:
    model = args.model or verdicts.event(examined.channel.claims.events, "model").get("name")
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


def _result(words: str, examined: verdicts.Examined, proof: Proof) -> dict[str, JSON]:
    return {
        "answer": words,
        "receipt": proof.receipt.to_json(),
        "server": verdicts.to_json(examined),
    }
