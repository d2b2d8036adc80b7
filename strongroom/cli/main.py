"""The dispatcher: a table of verbs, one line for every failure, one exit code for every kind of failure.

A verb is a module of this package with `add_parser(subparsers)` and `run(args) -> int`. Only the verb asked
for is imported, so `strongroom explain` works where FUSE or OpenSSL do not.
"""

import argparse
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final, NoReturn, Protocol, cast

from strongroom.cli.terminal import one_line
from strongroom.errors import MachineError, StrongroomError

USAGE: Final = 2  # exit code of a command line we cannot read
INTERRUPTED: Final = 130  # 128 + SIGINT
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE
DEBUG: Final = "STRONGROOM_DEBUG"


@dataclass(frozen=True, slots=True)
class Verb:
    name: str
    summary: str
    example: str


VERBS: Final = (
    Verb(
        "verify",
        "check a server or files of evidence: genuine, and what you want?",
        "verify https://llm.example --policy policy.yaml",
    ),
    Verb(
        "chat",
        "verify a server, ask it one question, check the receipt",
        'chat https://llm.example "Why is the sky blue?" --policy policy.yaml',
    ),
    Verb(
        "connect",
        "give any OpenAI client an address here, and verify the server behind it",
        "connect https://llm.example --policy policy.yaml",
    ),
    Verb(
        "receipt",
        "check a kept receipt, without any network",
        "receipt verify answer.receipt --policy policy.yaml",
    ),
    Verb(
        "measure",
        "compute the golden values of an image, for a policy",
        "measure image/ --name my-image --policy-out policy.yaml",
    ),
    Verb(
        "seal",
        "encrypt a model so that only an attested machine can read it",
        "seal weights/ sealed/ --epoch 1 --name my-model --key-out my-model.key",
    ),
    Verb(
        "check",
        "read back every chunk of a sealed model, or a sample",
        "check sealed/ --key my-model.key --sample 1%",
    ),
    Verb("open", "decrypt a sealed model into a directory", "open sealed/ plain/ --key my-model.key"),
    Verb("ls", "list what a sealed model holds", "ls sealed/ --key my-model.key -l"),
    Verb("cat", "print one file of a sealed model", "cat sealed/ config.json --key my-model.key"),
    Verb(
        "diff",
        "compare two sealed models, or a sealed and a plain one",
        "diff sealed/ weights/ --key my-model.key",
    ),
    Verb(
        "rekey",
        "put a sealed model under a new key, without sealing it again",
        "rekey sealed/ --key my-model.key --epoch 2 --key-out new.key",
    ),
    Verb("prune", "remove what a sealed model no longer uses", "prune sealed/ --key my-model.key --dry-run"),
    Verb(
        "pull",
        "bring a sealed model here, as ciphertext",
        "pull https://models.example/llama llama/ --root 5f1c...",
    ),
    Verb(
        "push",
        "send a model straight into a guest that has proved itself",
        "push https://h:8444 llama/ --policy p.yaml --key k --name llama --epoch 1",
    ),
    Verb(
        "image",
        "open an encrypted container image",
        "image decrypt app-encrypted/ app/ --digest sha256:77ab... --key image.key",
    ),
    Verb(
        "gocryptfs",
        "make, check, pin and read gocryptfs volumes",
        "gocryptfs check cipher/ --password password.txt",
    ),
    Verb(
        "broker",
        "keep keys, and give them only to machines that meet a policy",
        "broker init /srv/broker",
    ),
    Verb(
        "status",
        "inside a machine: what it is, and what it gives to you",
        "status --json",
    ),
    Verb(
        "key",
        "inside a machine: keys, signatures and certificates of a program",
        "key get api.service/db --out /run/api/db.key",
    ),
    Verb(
        "quote",
        "inside a machine: evidence of it, for somebody else",
        "quote --challenge $NONCE --out evidence.json",
    ),
    Verb(
        "collateral",
        "keep what vendors sign about their machines, to verify offline",
        "collateral fill --snp-report report.bin",
    ),
    Verb("explain", "what an exit code means, or every field of a file of evidence", "explain 6"),
)


class Module(Protocol):
    def add_parser(self, subparsers: Any) -> None: ...
    def run(self, args: argparse.Namespace) -> int: ...


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors and no guessing of abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        _say(f"{message}; see `{self.prog} --help`")
        raise SystemExit(USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of one command. Prints at most one line to stderr for a failure."""
    try:
        code = _guarded(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # a reader that left shows here, not when the interpreter ends
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _guarded(words: list[str]) -> int:
    try:
        return _dispatch(words)
    except SystemExit as stop:  # argparse: help was printed, or a usage error said
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence of a command
        sys.stdout.flush()  # what was printed before the failure stands before its line
        if os.environ.get(DEBUG) == "1":
            traceback.print_exc()  # frames and lines only: never the locals
        return _failure(error)


def _dispatch(words: list[str]) -> int:
    if not words:
        print(overview(), file=sys.stderr)
        return USAGE
    if words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"strongroom {version()}")
        return 0
    if words[0] not in {verb.name for verb in VERBS}:
        return _unknown_verb(words[0])
    module = cast(Module, importlib.import_module(f"strongroom.cli.{words[0]}"))
    parser = Parser(prog="strongroom")
    module.add_parser(parser.add_subparsers(metavar="VERB", required=True))
    return module.run(parser.parse_args(words))


def overview() -> str:
    """The help of the whole command: every verb with one example."""
    lines = ["usage: strongroom VERB ... | strongroom VERB --help | strongroom --version", ""]
    lines += ["Ask a language model on a machine whose owner cannot read along, and check it first.", ""]
    for verb in VERBS:
        lines += [f"  {verb.name:12}{verb.summary}", f"              $ strongroom {verb.example}", ""]
    lines += ["Failures are one line on stderr and an exit code: `strongroom explain` lists them."]
    return "\n".join(lines)


def version() -> str:
    """The installed version, or "(source tree)" when nothing was installed."""
    try:
        return metadata.version("strongroom")
    except metadata.PackageNotFoundError:
        return "(source tree)"


def _unknown_verb(word: str) -> int:
    near = difflib.get_close_matches(word, [verb.name for verb in VERBS], n=1)
    hint = f"did you mean `strongroom {near[0]}`?" if near else "see `strongroom --help`"
    _say(f"unknown verb {word!r}, {hint}")
    return USAGE


def _failure(error: Exception) -> int:
    if isinstance(error, StrongroomError):
        _say(str(error))
        return error.exit_code
    if isinstance(error, OSError):
        named = isinstance(error.filename, str | bytes)  # a failed call on a descriptor gives its number
        subject = os.fsdecode(error.filename) if named else "input or output"
        _say(f"{subject}: {(error.strerror or type(error).__name__).lower()}")
        return MachineError.exit_code
    if isinstance(error, ModuleNotFoundError):
        _say(f"python module {error.name}: not installed, want it for this verb")
        return MachineError.exit_code
    # Our defect. Its text is not shown: it may repeat what the program held, a key or a prompt.
    where = _where(error)
    _say(f"unexpected {type(error).__name__} at {where}, a defect of strongroom; {DEBUG}=1 shows a traceback")
    return StrongroomError.exit_code


def _where(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "strongroom" in frame.filename] or frames
    return f"{os.path.basename(ours[-1].filename)}:{ours[-1].lineno}"


def _say(sentence: str) -> None:
    print(f"strongroom: {one_line(sentence)}", file=sys.stderr)
