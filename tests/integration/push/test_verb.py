"""`strongroom push`, as a provider runs it against the real receiving door."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from strongroom.cli.main import main
from strongroom.cli.secretfile import read_signing_key
from strongroom.errors import FormatError, PolicyError
from strongroom.host.attested import AttestedConnection
from strongroom.host.pushing import PushTree
from tests.fakes.provider import (
    EPOCH,
    contents,
    left,
    stored,
)
from tests.fakes.received import NAME, Received, received


def test_the_verb_makes_a_key_pushes_and_prints_the_root(
    socket_dir: Path, tmp_path: Path, tree: PushTree, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "provider.key"
    assert main(["push", "keygen", str(key), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert key.stat().st_mode & 0o777 == 0o600
    provider = read_signing_key(str(key))
    with received(socket_dir, provider=provider) as (door, _):
        assert made["public"] in door.config()["providers"]  # type: ignore[operator]
        command = ["push", door.url, str(tree.source), "--policy", str(door.policy_file()), "--key", str(key)]
        assert main([*command, "--name", NAME, "--epoch", str(EPOCH)]) == 0
        said = capsys.readouterr()
        accepted = door.until_accepted()
        assert f"root     {accepted.root.hex()}" in said.out.splitlines()
        assert "INSECURE-SIMULATED" in said.err
        assert main([*command, "--name", NAME, "--epoch", str(EPOCH), "--json"]) == 0  # told again
        assert json.loads(capsys.readouterr().out)["root"] == accepted.root.hex()
        assert stored(door, accepted) == contents(tree)


@pytest.mark.guarantee("G1")
def test_a_guest_the_policy_does_not_name_gets_nothing(
    door: Received, tmp_path: Path, tree: PushTree, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = json.loads(door.policy_file().read_text())
    policy["measurements"][0]["value"] = "00" * 48
    (tmp_path / "policy.yaml").write_text(json.dumps(policy))
    key = tmp_path / "provider.key"
    assert main(["push", "keygen", str(key)]) == 0
    command = [
        "push",
        door.url,
        str(tree.source),
        "--policy",
        str(tmp_path / "policy.yaml"),
        "--key",
        str(key),
    ]
    assert main([*command, "--name", NAME, "--epoch", "1"]) == PolicyError.exit_code
    assert "refused" in capsys.readouterr().err
    assert "offer" not in door.log
    assert left(door) == []


def test_the_serving_door_is_not_taken_for_it(door: Received) -> None:
    """A client that wants answers finds no receipt key here, and asks nothing."""
    with pytest.raises(FormatError, match="want exactly the keys channel, receipt_key"):
        AttestedConnection.open(
            door.url,
            policy=door.policy,
            roots=door.policy.roots,
            now=datetime.now(UTC),
        )
