"""Mirrors strongroom/host/credentials.py."""

import os
from pathlib import Path

import pytest

from strongroom.errors import ConfigError, FormatError, MachineError
from strongroom.host.credentials import read_credential, read_secret


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "volume").write_bytes(b"{}")
    (tmp_path / "model-key").write_bytes(b"k" * 32)
    return tmp_path


@pytest.mark.usefixtures("directory")
def test_a_credential() -> None:
    assert read_credential("volume", max_bytes=2) == b"{}"
    with pytest.raises(FormatError, match=r"^credential volume: more than 1 bytes$"):
        read_credential("volume", max_bytes=1)


@pytest.mark.guarantee("G11")
@pytest.mark.usefixtures("directory")
def test_a_secret_hides_and_can_be_wiped() -> None:
    with read_secret("model-key", length=32) as secret:
        assert secret.view() == b"k" * 32
        assert "k" * 4 not in repr(secret)


@pytest.mark.guarantee("G11")
@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(("length", "word"), [(31, "more"), (33, "less"), (0, "more")])
def test_a_secret_has_its_exact_length(length: int, word: str) -> None:
    with pytest.raises(FormatError, match=f"^credential model-key: {word} than {length} bytes$") as caught:
        read_secret("model-key", length=length)
    assert "kkkk" not in repr(caught.value)


def test_outside_a_unit() -> None:
    with pytest.raises(MachineError, match=r"^credential volume: \$CREDENTIALS_DIRECTORY is not set$"):
        read_credential("volume", max_bytes=10)


@pytest.mark.usefixtures("directory")
def test_one_that_is_missing() -> None:
    with pytest.raises(MachineError, match=r"^credential other: no such file or directory$"):
        read_credential("other", max_bytes=10)


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("name", ["", "..", "../volume", "/etc/passwd", "a/b", "x" * 200, "a\0"])
def test_names_stay_inside(name: str) -> None:
    with pytest.raises(ConfigError, match="not a name"):
        read_credential(name, max_bytes=10)


def test_only_regular_files(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    (directory / "folder").mkdir()
    (directory / "link").symlink_to("volume")
    for name in ("fifo", "folder", "link"):
        with pytest.raises(MachineError, match=f"^credential {name}: "):
            read_credential(name, max_bytes=10)
