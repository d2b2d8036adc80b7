"""Mirrors strongroom/cli/gocryptfs.py and secretfile.py, as a person runs them."""

import io
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from strongroom.broker.resource import VolumeKey
from strongroom.cli.main import main
from strongroom.host.gocryptfs.directory import read_settings
from strongroom.sealed.gocryptfs.config import Cipher, Flag, unlock
from tests.fakes.gocryptfs import CONTENTS, LINKS, MASTER_KEY, PASSWORD, Written, write_volume


def private(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    path.chmod(0o600)
    return str(path)


@pytest.fixture(name="written")
def _written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    monkeypatch.chdir(tmp_path)
    private(tmp_path / "password", PASSWORD + b"\nnot looked at")
    private(tmp_path / "master", MASTER_KEY)
    return write_volume(tmp_path / "cipher")


BY_PASSWORD = ("--password", "password")
PINNED = ("--key", "m.key", "--side", "m.side")


def pin(*more: str) -> int:
    out = ("--side-out", "m.side", "--key-out", "m.key")
    return main(["gocryptfs", "pin", "cipher", *BY_PASSWORD, "--name", "tiny", "--epoch", "3", *out, *more])


@pytest.mark.usefixtures("written")
def test_pin_then_check_list_and_read(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert pin() == 0
    out = capfdbinary.readouterr().out.decode().splitlines()
    key = VolumeKey.parse(Path("m.key").read_bytes())
    assert (key.key, key.epoch) == (MASTER_KEY, 3)
    assert out[:2] == ["pinned   tiny epoch 3: 14 names, 0 holes", f"root     {key.root.hex()}"]
    assert [stat.S_IMODE(os.stat(name).st_mode) for name in ("m.key", "m.side")] == [0o600, 0o644]
    assert main(["gocryptfs", "check", "cipher", *PINNED]) == 0
    assert capfdbinary.readouterr().out == (
        b"genuine  cipher: 9 files, 2 directories, 3 links, 779 blocks, 0 holes, 3.2 MB\n"
    )
    assert main(["gocryptfs", "ls", "cipher", *PINNED]) == 0
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert len(lines) == 14
    assert "-rw-r--r--           4097 d/over" in lines
    assert "lrwxrwxrwx              1 d/dir -> e" in lines
    for name, content in CONTENTS.items():
        assert main(["gocryptfs", "cat", "cipher", name, *PINNED]) == 0
        assert capfdbinary.readouterr().out == content


@pytest.mark.usefixtures("written")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert pin("--json") == 0
    root = VolumeKey.parse(Path("m.key").read_bytes()).root.hex()
    assert json.loads(capsys.readouterr().out) == {
        "name": "tiny",
        "epoch": 3,
        "root": root,
        "entries": 14,
        "holes": 0,
        "side": "m.side",
        "key": "m.key",
    }
    assert main(["gocryptfs", "check", "cipher", *BY_PASSWORD, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["files"], found["problems"], found["strays"]) == (len(CONTENTS), [], [])
    assert main(["gocryptfs", "ls", "cipher", *BY_PASSWORD, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["path"]: row["target"] for row in rows if "target" in row} == LINKS


@pytest.mark.guarantee("G4")
def test_what_the_bare_format_takes_is_refused_with_the_pin(
    written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pin() == 0
    place = written.stored["d/e/more"]
    os.truncate(place, 18 + 4128)
    capsys.readouterr()
    assert main(["gocryptfs", "check", "cipher", *BY_PASSWORD]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("sound    cipher: ")
    assert "cannot show what was exchanged, cut or rolled back" in told.err
    assert main(["gocryptfs", "check", "cipher", *PINNED]) == 5
    assert "4096 bytes of plaintext, want" in capsys.readouterr().err


def test_faults_are_lines_and_a_code(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    place = written.stored["d/over"]
    data = bytearray(place.read_bytes())
    data[100] ^= 1
    place.write_bytes(data)
    (written.path / "str\nay").touch()
    assert main(["gocryptfs", "check", "cipher", *BY_PASSWORD]) == 5
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("block 0: tag does not verify")
    assert lines[1].startswith("stray str\\nay: name: ")
    assert lines[2] == "strongroom: cipher: 1 faults, want none"
    (written.path / "str\nay").unlink()
    assert pin() == 5
    assert not Path("m.key").exists()
    assert not Path("m.side").exists()


@pytest.mark.parametrize(
    ("options", "cipher", "flag", "there"),
    [
        ((), Cipher.AES_GCM, Flag.DIR_IV, True),
        (("--cipher", "aes-siv"), Cipher.AES_SIV, Flag.AES_SIV, True),
        (("--cipher", "xchacha"), Cipher.XCHACHA, Flag.GCM_IV_128, False),
        (("--plaintext-names",), Cipher.AES_GCM, Flag.PLAINTEXT_NAMES, True),
        (("--deterministic-names",), Cipher.AES_GCM, Flag.DIR_IV, False),
        (("--long-name-max", "100"), Cipher.AES_GCM, Flag.LONG_NAME_MAX, True),
        (("--padded-base64",), Cipher.AES_GCM, Flag.RAW_64, False),
    ],
)
@pytest.mark.usefixtures("written")
def test_create(options: tuple[str, ...], cipher: Cipher, flag: Flag, there: bool) -> None:
    words = [
        "gocryptfs",
        "create",
        "new",
        *BY_PASSWORD,
        "--scrypt-log-n",
        "10",
        "--master-key-out",
        "key",
        *options,
    ]
    assert main(words) == 0
    settings = read_settings(Path("new"))
    assert settings.cipher is cipher
    assert (flag in settings.flags) is there
    assert unlock(settings, PASSWORD) == Path("key").read_bytes()
    assert stat.S_IMODE(os.stat("key").st_mode) == 0o600
    assert main(["gocryptfs", "check", "new", "--master-key", "key"]) == 0


@pytest.mark.usefixtures("written")
def test_a_master_key_as_gocryptfs_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    digits = MASTER_KEY.hex()
    dashes = "-".join(digits[at : at + 8] for at in range(0, 64, 8))
    for text in (digits, dashes + "\n", digits.upper()):
        private(Path("hex"), text.encode())
        assert main(["gocryptfs", "ls", "cipher", "--master-key", "hex"]) == 0
    private(Path("hex"), digits[:-1].encode())
    assert main(["gocryptfs", "ls", "cipher", "--master-key", "hex"]) == 4
    assert capsys.readouterr().err == "strongroom: hex: want a master key, 32 bytes or 64 hex digits\n"


@pytest.mark.guarantee("G11")
@pytest.mark.usefixtures("written")
def test_secrets_come_from_stdin_and_credentials_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(PASSWORD + b"\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["gocryptfs", "ls", "cipher", "--password", "-"]) == 0
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert main(["gocryptfs", "ls", "cipher", "--master-key", "credential:master"]) == 0
    assert main(["gocryptfs", "ls", "cipher", "--password", "credential:none"]) == 8
    os.chmod("password", 0o644)
    assert main(["gocryptfs", "ls", "cipher", *BY_PASSWORD]) == 3
    told = capsys.readouterr().err
    assert "password: mode is 0644, want 0600: others may read this secret" in told
    assert PASSWORD.decode() not in told


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("create", "new"), 3, "want --password, --master-key or --master-key-out"),
        (("create", "cipher", *BY_PASSWORD), 3, "cipher: not empty"),
        (("create", "new", *BY_PASSWORD, "--scrypt-log-n", "9"), 3, "--scrypt-log-n: got 9"),
        (("create", "new", *BY_PASSWORD, "--long-name-max", "20"), 3, "LongNameMax is 20"),
        (("create", "new", *BY_PASSWORD, "--master-key-out", "master"), 3, "master: exists"),
        (("check", "cipher", "--key", "m.key"), 3, "--key and --side go together"),
        (("check", "cipher", *BY_PASSWORD, "--reverse"), 4, "reverse mode has AES-SIV"),
        (("check", "cipher", "--password", "wrong"), 5, "password does not open the master key"),
        (("check", "cipher", "--password", "empty"), 4, "empty: empty, want a password"),
        (("ls", "nowhere", "--master-key", "master"), 8, "volume nowhere: no such file"),
        (("cat", "cipher", "d", *BY_PASSWORD), 3, "d: not a file of this volume"),
        (("cat", "cipher", "nothing", *BY_PASSWORD), 3, "nothing: not a file of this volume"),
    ],
)
@pytest.mark.usefixtures("written")
def test_refusals_are_one_line(
    words: tuple[str, ...], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    private(Path("wrong"), b"wrong\n")
    private(Path("empty"), b"\nPASSWORD")
    assert main(["gocryptfs", *words]) == code
    told = capsys.readouterr().err
    assert told.startswith("strongroom: ")
    assert sentence in told
    assert told.count("\n") == 1


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--epoch", "0"), "--epoch: got 0"),
        (("--name", "no space"), "--name: manifest: name is 'no space'"),
        (("--key-out", "master"), "master: exists, want a new file"),
    ],
)
def test_pin_refuses(more: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert pin(*more) == 3
    assert sentence in capsys.readouterr().err
    assert not Path("m.side").exists()


@pytest.mark.usefixtures("written")
def test_an_older_side_manifest_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert pin() == 0
    Path("m.side").rename("old.side")
    Path("m.key").unlink()
    assert pin("--epoch", "4") == 0
    assert main(["gocryptfs", "check", "cipher", "--key", "m.key", "--side", "old.side"]) == 6
    assert capsys.readouterr().err.splitlines()[-1] == "strongroom: side manifest: epoch is 3, want 4"
