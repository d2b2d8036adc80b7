"""Mirrors host/brokerage/root.py, and tpm.py over a real swtpm."""

import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.errors import ConfigError, FormatError, MachineError
from strongroom.host.brokerage import tpm as module
from strongroom.host.brokerage.root import Root, parse_root, read_private, write_private
from strongroom.host.brokerage.tpm import parse_pcrs
from strongroom.host.run import run, spawn


@pytest.mark.parametrize(
    "text", ["", "file:", "file", "credential:", "credential:../x", "tpm:24", "tpm:a", "kms:x"]
)
def test_a_source_we_do_not_know_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="root key: got"):
        parse_root(text, tmp_path)


def test_a_key_in_a_file(tmp_path: Path) -> None:
    root = parse_root("file:root.key", tmp_path)
    key = root.stage()
    assert [(found.key == key, found.staged) for found in root.load()] == [(True, True)]
    root.settle(staged=True)
    assert (tmp_path / "root.key").stat().st_mode & 0o777 == 0o600
    assert [(found.key == key, found.staged) for found in root.load()] == [(True, False)]
    assert str(root) == "file:root.key"


def test_two_keys_until_it_is_settled(tmp_path: Path) -> None:
    root = parse_root("file:root.key", tmp_path)
    old = root.stage()
    root.settle(staged=True)
    new = root.stage()
    assert [found.key for found in root.load()] == [old, new]
    with pytest.raises(MachineError, match="file exists"):
        root.stage()  # never over a key that may be in use
    root.settle(staged=False)
    assert [found.key for found in root.load()] == [old]
    new = root.stage()
    root.settle(staged=True)
    assert [found.key for found in root.load()] == [new]
    assert [path.name for path in tmp_path.iterdir()] == ["root.key"]


@pytest.mark.guarantee("G11")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    write_private(tmp_path / "root.key", bytes(32))
    (tmp_path / "root.key").chmod(mode)
    with pytest.raises(ConfigError, match=f"mode is {mode:o}, want 600"):
        parse_root("file:root.key", tmp_path).load()


def test_a_file_of_another_size_or_kind_is_refused(tmp_path: Path) -> None:
    for size in (0, 31, 33):
        (tmp_path / f"k{size}").touch(0o600)
        (tmp_path / f"k{size}").write_bytes(bytes(size))
        with pytest.raises(FormatError, match="not of 32 bytes"):
            parse_root(f"file:k{size}", tmp_path).load()
    (tmp_path / "link").symlink_to(tmp_path / "k33")
    with pytest.raises(MachineError, match="link: "):
        parse_root("file:link", tmp_path).load()
    with pytest.raises(MachineError, match="missing: no such file"):
        parse_root("file:missing", tmp_path).load()
    with pytest.raises((ConfigError, MachineError)):
        read_private(tmp_path, 10)


def test_a_key_in_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broker-root").write_bytes(bytes(range(32)))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    root = parse_root("credential:broker-root", tmp_path)
    assert root.stage().reveal() == bytes(range(32))
    root.settle(staged=True)
    assert [found.staged for found in root.load()] == [False]
    (tmp_path / "broker-root").write_bytes(bytes(31))
    with pytest.raises(FormatError, match="credential broker-root: less than 32 bytes"):
        root.load()


@pytest.mark.parametrize(("text", "pcrs"), [("", ()), ("7", (7,)), ("11+7+7", (7, 11))])
def test_which_pcrs(text: str, pcrs: tuple[int, ...]) -> None:
    assert parse_pcrs(text) == pcrs


def _free() -> int:
    """A port that is free, and the next one too."""
    while True:
        with socket.socket() as probe, socket.socket() as after:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port < 65535 and after.connect_ex(("127.0.0.1", port + 1)) != 0:
                return port


@pytest.fixture
def tpm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A software TPM that tpm2-tools speak to over TCP; its control port is the next one."""
    for program in ("swtpm", "tpm2_create"):
        if not any(os.access(Path(folder) / program, os.X_OK) for folder in ("/usr/bin", "/bin")):
            pytest.skip(f"no {program} here")
    state = tmp_path / "swtpm"
    state.mkdir()
    port = _free()
    argv = [
        "swtpm",
        "socket",
        "--tpm2",
        "--tpmstate",
        f"dir={state}",
        "--flags",
        "not-need-init,startup-clear",
    ]
    argv += ["--server", f"type=tcp,port={port},disconnect", "--ctrl", f"type=tcp,port={port + 1}"]
    with spawn(argv) as child:
        monkeypatch.setenv("TPM2TOOLS_TCTI", f"swtpm:host=127.0.0.1,port={port}")
        deadline = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port + 1)) == 0:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
        child.signal(signal.SIGTERM)


def tool(*argv: str) -> None:
    run(argv, env={"TPM2TOOLS_TCTI": os.environ["TPM2TOOLS_TCTI"]})


@pytest.fixture
def flushed(tpm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a resource manager between, what a tool loaded stays: make room before each of our calls."""
    real = module._tool

    def tidy(argv: list[str | Path], content: bytes | None = None) -> bytes:
        tool("tpm2_flushcontext", "--transient-object")
        tool("tpm2_flushcontext", "--loaded-session")
        return real(argv, content)

    monkeypatch.setattr(module, "_tool", tidy)


@pytest.mark.parametrize("pcrs", ["", "7+16"])
def test_a_key_that_only_this_tpm_gives_back(tmp_path: Path, flushed: None, pcrs: str) -> None:
    root: Root = parse_root(f"tpm:{pcrs}", tmp_path)
    key = root.stage()
    root.settle(staged=True)
    assert [found.key for found in root.load()] == [key]
    assert key.reveal() not in (tmp_path / "root.tpm").read_bytes()
    assert (tmp_path / "root.tpm").stat().st_mode & 0o777 == 0o600


def test_a_tpm_that_booted_something_else_does_not(tmp_path: Path, flushed: None) -> None:
    root = parse_root("tpm:16", tmp_path)
    root.stage()
    root.settle(staged=True)
    tool("tpm2_pcrextend", f"16:sha256={secrets.token_hex(32)}")
    with pytest.raises(MachineError, match=r"root key: .*tpm2_unseal"):
        root.load()


def test_no_tpm_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TPM2TOOLS_TCTI", "device:/dev/nonexistent")
    with pytest.raises(MachineError, match="root key: "):
        parse_root("tpm:", tmp_path).stage()
