"""Mirrors strongroom/cli/explain.py."""

import pytest

from strongroom import errors
from strongroom.cli.explain import ADVICE, TOPICS, exit_codes
from strongroom.cli.main import main
from strongroom.errors import StrongroomError

LEAVES = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StrongroomError)
]


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_meaning_and_advice(
    kind: type[StrongroomError], capsys: pytest.CaptureFixture[str]
) -> None:
    name, meaning = exit_codes()[kind.exit_code]
    assert name == kind.__name__ and meaning
    assert main(["explain", str(kind.exit_code)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"exit code {kind.exit_code}, {name}: {meaning}\n")
    assert ADVICE[kind].split()[0] in out


def test_no_two_errors_share_a_code() -> None:
    assert len({kind.exit_code for kind in LEAVES}) == len(LEAVES)


def test_the_list_has_every_code_and_topic(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    out = capsys.readouterr().out
    assert [int(line.split()[0]) for line in out.split("\n\n")[0].splitlines()] == sorted(exit_codes())
    assert all(topic in out for topic in TOPICS)


@pytest.mark.parametrize("topic", TOPICS)
def test_topics(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", topic]) == 0
    out = capsys.readouterr().out
    assert TOPICS[topic].split()[0] in out and max(map(len, out.splitlines())) <= 130


def test_the_trust_table_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    main(["explain", "trust"])
    assert "…" not in capsys.readouterr().out


@pytest.mark.parametrize("subject", ["42", "nothing", "", "²", "9" * 5000])
def test_what_we_cannot_explain(subject: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", subject]) == 3
    assert capsys.readouterr().err.startswith(f"strongroom: explain: got {subject!r}, want")
