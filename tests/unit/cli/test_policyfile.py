"""Mirrors strongroom/cli/policyfile.py."""

from pathlib import Path

import pytest

from strongroom.cli.policyfile import load_policy
from strongroom.errors import ConfigError

GOOD = f"version: 1\nmeasurements: [{{name: a, value: {'ab' * 48}}}]\nhost_data: any\n"


@pytest.mark.guarantee("G18")
def test_a_policy_is_read_and_names_no_simulated_root_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(GOOD)
    policy = load_policy(path)
    assert policy.measurements[0].value == b"\xab" * 48
    assert policy.roots.insecure == frozenset()


def test_without_a_policy_we_say_where_one_comes_from() -> None:
    with pytest.raises(ConfigError, match=r"none given, want --policy FILE.*strongroom measure"):
        load_policy(None)


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (GOOD + "allow_debug: true\n", "p.yaml.allow_debug"),
        (GOOD + "minimum: 3\n", "p.yaml.minimum: unknown key"),
        (GOOD + "version: 1\n", "version"),
        ("", "empty"),
        ("[", "line "),
        (GOOD + "#" * 300_000, "want at most"),
    ],
)
def test_a_bad_policy_is_named_with_its_key(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_policy(path)
    assert why in str(caught.value) and str(path) in str(caught.value)
