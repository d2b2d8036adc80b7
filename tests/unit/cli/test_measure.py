"""Mirrors strongroom/cli/measure.py."""

import json
from pathlib import Path

import pytest

from strongroom.cli.main import main
from strongroom.host.tree import measure
from strongroom.host.yamltext import parse_yaml
from strongroom.measure.tree import words

ROOT = "ab" * 32


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "agent.py").write_text("print()")
    return tmp_path / "image"


def test_digest_and_words_are_printed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", str(tree)]) == 0
    digest = measure([str(tree)])
    assert capsys.readouterr().out == f"measurement  {digest.hex()}\nwords        {words(digest)}\n"


def test_json_has_the_same(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "--json", f"code={tree}"]) == 0
    digest = measure([f"code={tree}"])
    assert json.loads(capsys.readouterr().out) == {"measurement": digest.hex(), "words": words(digest)}


def test_the_smallest_policy(tree: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    assert main(["measure", str(tree), "--policy-out", str(policy), "--name", "demo 1"]) == 0
    assert parse_yaml(policy.read_bytes(), "policy") == {
        "version": 1,
        "measurements": [{"name": "demo 1", "value": measure([str(tree)]).hex()}],
        "host_data": "any",
    }


def test_a_policy_with_host_data_and_a_simulated_root(tree: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    words = ["measure", str(tree), "--policy-out", str(policy), "--name", "demo", "--host-data", "00" * 32]
    assert main([*words, "--insecure-simulated-root", ROOT]) == 0
    raw = parse_yaml(policy.read_bytes(), "policy")
    assert raw["host_data"] == ["00" * 32]
    assert raw["insecure_simulated_roots"] == [ROOT]


@pytest.mark.parametrize(
    ("options", "code", "why"),
    [
        (["--policy-out", "p"], 3, "want --policy-out and --name together"),
        (["--name", "x"], 3, "want --policy-out and --name together"),
        (["--host-data", ROOT], 3, "want --policy-out"),
        (["--policy-out", "p", "--name", 'x"'], 3, "--name: got"),
        (["--policy-out", "p", "--name", "x", "--host-data", "AB" * 32], 3, "64 lowercase hex digits"),
        (
            ["--policy-out", "p", "--name", "x", "--insecure-simulated-root", "ab"],
            3,
            "64 lowercase hex digits",
        ),
        (["--policy-out", "no/where", "--name", "x"], 8, "no such file or directory"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    tree: Path, options: list[str], code: int, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["measure", str(tree), *options]) == code
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1
    assert not Path("p").exists()


def test_a_tree_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", str(tmp_path / "absent")]) == 8
    assert "absent: no such file or directory" in capsys.readouterr().err
