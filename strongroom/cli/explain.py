"""`strongroom explain [CODE|TOPIC|FILE]`: exit codes and trust in plain words; a file of evidence field by field."""

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from strongroom import errors
from strongroom.cli.explain_file import show
from strongroom.cli.main import BROKEN_PIPE, INTERRUPTED, USAGE
from strongroom.cli.pieces import STDIN
from strongroom.cli.terminal import table
from strongroom.errors import ConfigError, StrongroomError

ADVICE: Final[dict[type[StrongroomError], str]] = {
    StrongroomError: "Report it, with the line and the output of STRONGROOM_DEBUG=1.",
    errors.ConfigError: (
        "Nothing was attempted. The line names the key or the option, and what it may hold."
    ),
    errors.FormatError: (
        "A file or an answer is damaged, cut short, or made by something else. Fetch or make it again."
    ),
    errors.VerifyError: (
        "Do not use this server. Its evidence, or its receipt, was not made by the hardware or for "
        "this connection: an impostor, a relay, a replay, or a chip your roots do not know."
    ),
    errors.PolicyError: (
        "The machine proved what it is, and your policy does not want that. Every reason is listed. "
        "Either the server runs something else than you expect, or the policy needs a new golden "
        "value."
    ),
    errors.ProtocolError: (
        "The other side does not speak as agreed: another version, or a broken proxy between you."
    ),
    errors.MachineError: "A file, a device or a process on this machine failed. The line names it.",
    errors.TransportError: "No connection in time. Nothing was decided about the server; try again.",
}

OTHERS: Final = {
    0: ("success", "the verb did what it says; for `verify` and `chat`: genuine, and accepted"),
    USAGE: ("usage", "the command line cannot be read"),
    INTERRUPTED: ("interrupted", "you pressed Ctrl-C"),
    BROKEN_PIPE: ("broken pipe", "the reader of our output left"),
}

TRUST: Final = (
    ("that", "rests on", "and not on"),
    ("this is a confidential VM", "the CPU maker's key, pinned in strongroom", "the cloud, a CA, DNS"),
    ("it runs this image", "the measurement in the CPU's signed report", "the operator's word"),
    ("you speak with that VM", "evidence over this connection's secret", "the certificate alone"),
    ("the answer is from this model", "the event log, bound into the report", "a name in the answer"),
    ("the answer is unchanged", "a receipt over exact bytes, signed inside", "a log kept by anyone"),
    ("this image is a good one", "whoever wrote your policy's golden values", "strongroom"),
)

TOPICS: Final = {
    "trust": "Who must be believed, for what. Whatever is not in the second column may be hostile.",
    "policy": (
        "A policy is a YAML file with what you accept: measurements of images, the userdata "
        "(host_data), the least firmware, the model's root and epoch, the engine's version. Whoever "
        "builds the image writes it with `strongroom measure IMAGE --name NAME --policy-out policy.yaml`; "
        "auditors can compute the same values from the same image. An empty list accepts nothing."
    ),
    "simulated": (
        "A server whose evidence carries INSECURE-SIMULATED runs on simulated silicon: right formats, "
        "and no protection at all. It is accepted only by a policy that lists the fingerprint of that "
        "one simulated root under insecure_simulated_roots, and every output then says so."
    ),
    "receipt": (
        "A receipt is a signed line that binds one question and one answer, byte for byte, to the "
        "model's root, the engine and the evidence of the machine. `strongroom chat --receipt FILE` "
        "keeps one; `strongroom receipt verify FILE --policy policy.yaml` checks it years later, "
        "without a network."
    ),
}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "explain",
        help="what an exit code means, who is trusted for what, what a file of evidence says",
        description="Explain an exit code or a topic in plain words, or show every field of a file of evidence "
        "with its offset and its specification's name; without an argument, list codes and topics.",
        epilog="examples: strongroom explain 6; strongroom explain report.bin",
    )
    parser.add_argument(
        "subject",
        nargs="?",
        metavar="CODE|TOPIC|FILE",
        help=f"0..9, {', '.join(TOPICS)}, or a file (- is stdin)",
    )


def run(args: argparse.Namespace) -> int:
    if args.subject is not None and _is_file(args.subject):
        return show(args.subject)
    print("\n".join(_lines(args.subject)))
    return 0


def _is_file(subject: str) -> bool:
    if subject in TOPICS or subject in map(str, exit_codes()):
        return False
    try:
        return subject == STDIN or Path(subject).is_file()
    except (OSError, ValueError):  # no path a system can have
        return False


def exit_codes() -> dict[int, tuple[str, str]]:
    """Each exit code with its name and its meaning; the leaves' meanings are those of strongroom.errors."""
    codes = {kind.exit_code: (kind.__name__, _meaning(kind)) for kind in _kinds(StrongroomError)}
    return dict(sorted((OTHERS | codes).items()))


def _lines(subject: str | None) -> Iterator[str]:
    if subject is None:
        yield table([(str(code), name, meaning) for code, (name, meaning) in exit_codes().items()])
        yield f"\ntopics: {', '.join(TOPICS)}. More: `strongroom explain CODE`, `strongroom explain TOPIC`."
    elif subject in TOPICS:
        yield textwrap.fill(TOPICS[subject], 90)
        if subject == "trust":
            yield "\n" + table(TRUST)
    elif subject in map(str, exit_codes()):
        name, meaning = exit_codes()[int(subject)]
        yield f"exit code {subject}, {name}: {meaning}"
        for kind in _kinds(StrongroomError):
            if kind.exit_code == int(subject):
                yield textwrap.fill(ADVICE[kind], 90)
    else:
        raise ConfigError(
            f"explain: got {subject!r}, want an exit code, a file, or one of {', '.join(TOPICS)}"
        )


def _kinds(kind: type[StrongroomError]) -> Iterator[type[StrongroomError]]:
    """The kinds that own an exit code. A subclass made for one module's convenience shares its parent's."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _kinds(child)


def _meaning(kind: type[StrongroomError]) -> str:
    for line in (errors.__doc__ or "").splitlines():
        name, _, rest = line.strip(" │├└─").partition(" ")
        code, _, meaning = rest.strip().partition(" ")
        if name == kind.__name__ and code == str(kind.exit_code):
            return meaning.strip()
    raise LookupError(f"{kind.__name__} is not drawn in strongroom.errors")
