"""Mirrors strongroom/cli/main.py: whatever goes wrong, one line and the exit code that belongs to it."""

import argparse
import importlib
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from strongroom.cli.main import VERBS, Verb, main
from strongroom.errors import (
    ConfigError,
    FormatError,
    MachineError,
    PolicyError,
    ProtocolError,
    StrongroomError,
    TransportError,
    VerifyError,
)
from tests import ROOT

SECRET = "the prompt, or a key"
Raise = Callable[[BaseException], None]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Raise:
    """Makes `strongroom explain` raise the given error."""

    def raising(error: BaseException) -> None:
        def run(args: argparse.Namespace) -> int:
            raise error

        def add_parser(subparsers: Any) -> None:
            subparsers.add_parser("explain")

        module: Any = SimpleNamespace(add_parser=add_parser, run=run)
        monkeypatch.setitem(sys.modules, "strongroom.cli.explain", module)

    return raising


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (StrongroomError, 1), (ConfigError, 3), (FormatError, 4), (VerifyError, 5),
        (PolicyError, 6), (ProtocolError, 7), (MachineError, 8), (TransportError, 9),
    ],
)  # fmt: skip
def test_each_error_is_one_line_and_its_exit_code(
    kind: type[StrongroomError], code: int, verb: Raise, capsys: pytest.CaptureFixture[str]
) -> None:
    verb(kind("report: 12 bytes, want 1184"))
    assert main(["explain"]) == code
    assert capsys.readouterr() == ("", "strongroom: report: 12 bytes, want 1184\n")


@pytest.mark.guarantee("G16")
def test_a_hostile_message_stays_one_harmless_line(verb: Raise, capsys: pytest.CaptureFixture[str]) -> None:
    verb(PolicyError("name is a\nb\x1b[2J\u202e, want text"))
    main(["explain"])
    assert capsys.readouterr().err == "strongroom: name is a\\nb\\x1b[2J\\u202e, want text\n"


@pytest.mark.guarantee("G11")
def test_a_defect_shows_its_place_and_not_its_text(verb: Raise, capsys: pytest.CaptureFixture[str]) -> None:
    verb(KeyError(SECRET))
    assert main(["explain"]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("strongroom: unexpected KeyError at ") and err.count("\n") == 1
    assert SECRET not in out + err


def test_debug_shows_the_way_there(
    verb: Raise, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRONGROOM_DEBUG", "1")
    verb(ValueError("x"))
    assert main(["explain"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and "locals" not in err


def test_a_missing_file_is_the_machines_failure(verb: Raise, capsys: pytest.CaptureFixture[str]) -> None:
    verb(FileNotFoundError(2, "No such file or directory", "policy.yaml"))
    assert main(["explain"]) == 8
    assert capsys.readouterr().err == "strongroom: policy.yaml: no such file or directory\n"


def test_a_full_disk_is_the_machines_failure(verb: Raise, capsys: pytest.CaptureFixture[str]) -> None:
    verb(OSError(28, "No space left on device"))
    assert main(["explain"]) == 8
    assert capsys.readouterr().err == "strongroom: input or output: no space left on device\n"
    verb(OSError(5, "Input/output error", 7))  # a call on a descriptor
    assert main(["explain"]) == 8
    assert capsys.readouterr().err == "strongroom: input or output: input/output error\n"


def test_a_missing_library_is_named(verb: Raise, capsys: pytest.CaptureFixture[str]) -> None:
    verb(ModuleNotFoundError("No module named 'h11'", name="h11"))
    assert main(["explain"]) == 8
    assert capsys.readouterr().err == "strongroom: python module h11: not installed, want it for this verb\n"


def test_ctrl_c_is_quiet(verb: Raise, capsys: pytest.CaptureFixture[str]) -> None:
    verb(KeyboardInterrupt())
    assert main(["explain"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_leaves_is_no_news() -> None:
    command = [sys.executable, "-m", "strongroom", "explain"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # type: ignore[union-attr]
        process.stdout = None
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_has_an_example_for_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr().out
    for verb in VERBS:
        assert f"  {verb.name} " in out and f"$ strongroom {verb.example}" in out
    assert max(map(len, out.splitlines())) <= 100


def test_no_words_at_all_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("usage: strongroom")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("strongroom ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chatt"], "strongroom: unknown verb 'chatt', did you mean `strongroom chat`?\n"),
        (["\x1b[2J"], "strongroom: unknown verb '\\x1b[2J', see `strongroom --help`\n"),
        (
            ["explain", "--jsn"],
            "strongroom: unrecognized arguments: --jsn; see `strongroom --help`\n",
        ),
        (
            ["verify"],
            "strongroom: the following arguments are required: URL|FILE|DIR|-; see `strongroom verify --help`\n",
        ),
        (
            ["verify", "u", "--pol", "f"],
            "strongroom: unrecognized arguments: --pol f; see `strongroom --help`\n",
        ),
    ],
)
def test_usage_errors_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_in_the_table_is_there(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"strongroom.cli.{verb.name}")
    assert callable(module.run)
    assert main([verb.name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: strongroom {verb.name}")
