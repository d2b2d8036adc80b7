"""Mirrors strongroom/cli/push.py: what is refused before anything is dialled. tests/integration/push/ pushes."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from strongroom.cli.main import main
from strongroom.cli.secretfile import read_signing_key
from strongroom.errors import ConfigError, FormatError
from strongroom.push.offer import provider_name, public_key, spki_of
from strongroom.wire.canonical import b64u, unb64u
from tests.fakes.machine import Machine, policy_file


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return policy_file(tmp_path, Machine())


def key_file(
    path: Path,
    key: Ed25519PrivateKey | X25519PrivateKey,
    encryption: KeySerializationEncryption | None = None,
) -> Path:
    path.touch(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))
    return path


@pytest.mark.guarantee("G11")
def test_a_key_is_made_for_its_owner_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "provider.key"
    assert main(["push", "keygen", str(path)]) == 0
    said = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert path.stat().st_mode & 0o777 == 0o600
    spki = spki_of(read_signing_key(str(path)).public_key())
    assert (said["public"], said["sha256"]) == (b64u(spki), provider_name(spki))
    public_key(unb64u(said["public"], "key"))
    assert main(["push", "keygen", str(path)]) == ConfigError.exit_code  # never written over


def run(tmp_path: Path, policy: Path, *options: str, url: str = "https://127.0.0.1:9") -> int:
    return main(["push", url, str(tmp_path), "--policy", str(policy), *options])


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--name", "tiny", "--epoch", "1"), "push: want --key"),
        (("--key", "k", "--epoch", "1"), "push: want --name"),
        (("--key", "k", "--name", "tiny"), "push: want --epoch"),
        (("--key", "k", "--name", "a b", "--epoch", "1"), "--name: "),
        (("--key", "k", "--name", "tiny", "--epoch", "0"), "--epoch: got 0"),
        (("--key", "k", "--name", "tiny", "--epoch", "1", "--tries", "0"), "--tries: got 0, want 1..1000"),
    ],
)
def test_options_have_bounds(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    assert run(tmp_path, policy, *options) == ConfigError.exit_code
    assert said in capsys.readouterr().err


def test_a_url_is_checked_before_a_model_is_hashed(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--key", "k", "--name", "tiny", "--epoch", "1")
    assert run(tmp_path, policy, *options, url="http://127.0.0.1:9") == ConfigError.exit_code
    assert "want https://HOST" in capsys.readouterr().err


def test_other_keys_are_refused(tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ed = Ed25519PrivateKey.generate()
    wrong = [
        key_file(tmp_path / "x25519", X25519PrivateKey.generate()),
        key_file(tmp_path / "locked", ed, BestAvailableEncryption(b"word")),
        tmp_path / "text",
    ]
    wrong[2].touch(0o600)
    for path in wrong:
        options = ("--key", str(path), "--name", "tiny", "--epoch", "1")
        assert run(tmp_path, policy, *options) == FormatError.exit_code
        assert "want an Ed25519 private key in PEM, without a password" in capsys.readouterr().err
    seen = key_file(tmp_path / "seen", ed)
    seen.chmod(0o644)
    assert (
        run(tmp_path, policy, "--key", str(seen), "--name", "tiny", "--epoch", "1") == ConfigError.exit_code
    )
    assert "others may read this secret" in capsys.readouterr().err
