"""Mirrors strongroom/cli/{open,ls,cat,diff,rekey,prune}.py, as a person runs them."""

import io
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from strongroom.broker.resource import VolumeKey
from strongroom.cli.main import main
from strongroom.host.sealed.destination import Destination
from tests.fakes.model import flip, make_model, seal, told
from tests.fakes.sealed import CHUNK, pattern
from tests.unit.sealed.test_by_hand import read_tree

KEY = ("--key", "m.key")
PATHS = [
    "config.json",
    "empty",
    "exact.bin",
    "latest",
    "model-1.safetensors",
    "model-2.safetensors",
    "tokenizer",
    "tokenizer/up.json",
    "tokenizer/vocab.txt",
]


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = make_model(tmp_path, monkeypatch)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        assert seal("--chunk-kib", "64") == 0
    return made


def key(name: str = "m.key") -> VolumeKey:
    return VolumeKey.parse(Path(name).read_bytes())


def victim() -> Path:
    return next(path for path in Path("sealed/objects").iterdir() if path.stat().st_size == 4 * CHUNK)


# open


def test_open(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["open", "sealed", "plain", *KEY]) == 0
    assert capsys.readouterr().out == (
        f"opened   tiny epoch 3: 6 files, 917726 bytes, root {key().root.hex()}\n"
    )
    for path in PATHS:
        if (model / path).is_file():
            assert (Path("plain") / path).read_bytes() == (model / path).read_bytes()
    facts = told(capsys, "open", "sealed", "again", *KEY, "--workers", "1")
    assert facts == {"name": "tiny", "epoch": 3, "root": key().root.hex(), "files": 6, "bytes": 917_726}


@pytest.mark.guarantee("G4")
def test_open_writes_nothing_of_a_damaged_tree(capsys: pytest.CaptureFixture[str]) -> None:
    flip(victim(), 2 * CHUNK)
    assert main(["open", "sealed", "plain", *KEY]) == 5
    assert capsys.readouterr().err == f"strongroom: object {victim().name}: chunk 2: tag does not verify\n"
    assert not Path("plain").exists()


# ls


def test_ls(capsys: pytest.CaptureFixture[str]) -> None:
    victim().unlink()  # the objects are not looked at
    assert main(["ls", "sealed", *KEY]) == 0
    assert capsys.readouterr().out.splitlines() == PATHS
    assert main(["ls", "sealed", "tokenizer/", *KEY]) == 0
    assert capsys.readouterr().out.splitlines() == PATHS[6:]
    assert main(["ls", "sealed", "exact.bin", *KEY]) == 0
    assert capsys.readouterr().out.splitlines() == ["exact.bin"]


def test_ls_long(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "-l", "sealed", *KEY]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "-rw-r--r--           262144  2023-11-14 22:13  exact.bin"
    assert lines[3] == "lrwxrwxrwx                -  2023-11-14 22:13  latest -> model-1.safetensors"
    assert lines[6] == "drwxr-xr-x                -  2023-11-14 22:13  tokenizer"


@pytest.mark.guarantee("G11")
def test_ls_json_has_no_keys(capsys: pytest.CaptureFixture[str]) -> None:
    rows = told(capsys, "ls", "sealed", *KEY)
    assert [row["path"] for row in rows] == PATHS
    assert rows[0] == {
        "path": "config.json",
        "type": "file",
        "mode": 0o644,
        "size": 18,
        "mtime_ns": 1_700_000_000 * 10**9,
    }
    assert rows[2].keys() == {"path", "type", "mode", "size", "mtime_ns", "sha256", "object"}
    assert rows[2]["object"] == victim().name
    assert rows[3]["target"] == "model-1.safetensors" and rows[6]["type"] == "directory"


@pytest.mark.parametrize("verb", ["ls", "cat"])
def test_a_path_that_is_not_there(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "sealed", "none", *KEY]) == 3
    assert capsys.readouterr().err == "strongroom: none: not in the tree\n"


# cat


@pytest.mark.parametrize("path", [path for path in PATHS if path != "tokenizer"])
def test_cat(path: str, model: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["cat", "sealed", path, *KEY]) == 0
    assert capsysbinary.readouterr().out == (model / path).read_bytes()


def test_cat_wants_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    for path in ("tokenizer", "tokenizer/..", "/"):
        assert main(["cat", "sealed", path, *KEY]) == 3
        assert capsys.readouterr().err == f"strongroom: {path}: is a directory, want a file\n"
    assert main(["cat", "sealed", "../x", *KEY]) == 3
    assert capsys.readouterr().err == "strongroom: ../x: leaves the tree\n"


@pytest.mark.guarantee("G4")
def test_cat_stops_before_what_does_not_verify(
    model: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    big = pattern((2 << 20) + 5, 6)
    (model / "big").write_bytes(big)
    assert seal("--chunk-kib", "64", dest="two", key="two.key") == 0
    path = next(path for path in Path("two/objects").iterdir() if path.stat().st_size == len(big))
    flip(path, (1 << 20) + 3 * CHUNK)
    capsysbinary.readouterr()
    assert main(["cat", "two", "big", "--key", "two.key"]) == 5
    out, err = capsysbinary.readouterr()
    assert out == big[: 1 << 20]  # what was verified, and not a byte more
    assert err == f"strongroom: object {path.name}: chunk 19: tag does not verify\n".encode()


# diff


def test_diff_with_a_directory(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "sealed", "model", *KEY, "--same"]) == 0
    assert capsys.readouterr() == ("", "")
    (model / "config.json").write_bytes(b"{}")
    (model / "exact.bin").unlink()
    (model / "new").mkdir()
    os.utime(model / "model-1.safetensors")
    assert main(["diff", "sealed", "model", *KEY]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "~ config.json (content, mtime)",
        "- exact.bin",
        "~ model-1.safetensors (content, mtime)",
        "+ new",
    ]
    assert main(["diff", "sealed", "model", *KEY, "--checksum", "--same"]) == 6
    out, err = capsys.readouterr()
    assert "~ model-1.safetensors (mtime)\n" in out
    assert err == "strongroom: sealed, model: 4 entries differ, want none\n"
    facts = told(capsys, "diff", "sealed", "model", *KEY)
    assert facts["same"] is False
    assert facts["changes"][1] == {"path": "exact.bin", "what": "removed", "sides": []}


def test_diff_of_two_sealed_trees(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "exact.bin").write_bytes(pattern(4 * CHUNK, 7))
    os.utime(model / "exact.bin", (1_700_000_000, 1_700_000_000))
    assert seal(dest="two", key="two.key") == 0
    capsys.readouterr()
    assert main(["diff", "sealed", "two", *KEY, "--other-key", "two.key"]) == 0
    assert capsys.readouterr().out == "~ exact.bin (content)\n"  # sealed anew, the others have their digests
    assert told(capsys, "diff", "sealed", "sealed", *KEY, "--other-key", "m.key")["same"] is True


@pytest.mark.guarantee("G16")
def test_diffs_that_make_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "sealed", "x", *KEY, "--other-key", "m.key", "--checksum"]) == 3
    assert "are for a plain B" in capsys.readouterr().err
    assert main(["diff", "sealed", "x", "--key", "-", "--other-key", "-"]) == 3
    assert "standard input holds one key" in capsys.readouterr().err


# rekey and prune


def test_rekey(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rekey", "sealed", *KEY, "--epoch", "4", "--key-out", "n.key"]) == 0
    new = key("n.key")
    assert capsys.readouterr().out.splitlines() == [
        "rekeyed  tiny epoch 4",
        f"root     {new.root.hex()}",
        "key      n.key",
    ]
    assert (new.epoch, os.stat("n.key").st_mode & 0o777) == (4, 0o600)
    assert read_tree(Path("sealed"), new.key)
    assert main(["check", "sealed", *KEY]) == 6
    assert capsys.readouterr().err == "strongroom: manifest: epoch is 4, want 3\n"
    words = ("rekey", "sealed", "--key", "n.key", "--epoch", "5", "--key-out", "o.key", "--name", "other")
    facts = told(capsys, *words)
    assert facts == {"name": "other", "epoch": 5, "root": key("o.key").root.hex(), "key": "o.key"}


@pytest.mark.guarantee("G16")
def test_rekeys_that_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("sealed/MANIFEST").read_bytes()
    for more, line in (
        (["--epoch", "3"], "sealed: epoch is 3, want it to grow: got 3"),
        (["--epoch", "0"], "--epoch: got 0, want a whole number 1..2**53-1"),
        (["--epoch", "4", "--name", "a b"], "--name: manifest: name is 'a b'"),
    ):
        assert main(["rekey", "sealed", *KEY, "--key-out", "n.key", *more]) == 3
        assert capsys.readouterr().err.startswith(f"strongroom: {line}")
        assert not Path("n.key").exists()
    assert main(["rekey", "sealed", *KEY, "--epoch", "4", "--key-out", "m.key"]) == 3
    assert "m.key: exists" in capsys.readouterr().err
    assert Path("sealed/MANIFEST").read_bytes() == before


def test_prune(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sealed/objects/" + "ab" * 16).write_bytes(b"left over")
    assert main(["prune", "sealed", *KEY, "--dry-run"]) == 0
    assert capsys.readouterr().out == "unused   1 files, 9 bytes\n"
    facts = told(capsys, "prune", "sealed", *KEY)
    assert facts == {"removed": True, "files": ["objects/" + "ab" * 16], "bytes": 9}
    assert main(["prune", "sealed", *KEY]) == 0
    assert capsys.readouterr().out == "removed   0 files, 0 bytes\n"
    assert main(["check", "sealed", *KEY]) == 0


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize(
    "words",
    [
        ("check", "sealed"),
        ("open", "sealed", "plain"),
        ("ls", "sealed"),
        ("cat", "sealed", "config.json"),
        ("prune", "sealed"),
        ("diff", "sealed", "model"),
        ("rekey", "sealed", "--epoch", "9", "--key-out", "n.key"),
    ],
    ids=lambda words: str(words[0]),
)
def test_no_verb_believes_another_manifest(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    flip(Path("sealed/MANIFEST"), 200)
    before = sorted(os.listdir())
    assert main([*words, *KEY]) == 5
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("strongroom: manifest: root digest is ")
    assert sorted(os.listdir()) == before
    json.loads(Path("m.key").read_text())


@pytest.mark.parametrize("behind", [False, True])
def test_a_rekey_that_failed_at_its_commit(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], behind: bool
) -> None:
    real = Destination.recommit

    def fail(place: Destination) -> None:
        if behind:
            real(place)
        raise OSError(5, "Input/output error")

    words = ["rekey", "sealed", *KEY, "--epoch", "4", "--key-out", "n.key"]
    monkeypatch.setattr(Destination, "recommit", fail)
    assert main(words) == 8
    assert capsys.readouterr().err == (
        "strongroom: sealed: input/output error; the key is kept, the same command with --resume goes on\n"
    )
    monkeypatch.setattr(Destination, "recommit", real)
    kept = key("n.key")
    if not behind:
        assert main(words) == 3  # never written over
        assert read_tree(Path("sealed"), key().key)
    for _ in range(2):  # again is no harm
        assert main([*words, "--resume"]) == 0
        assert key("n.key") == kept and capsys.readouterr().out.startswith("rekeyed  tiny epoch 4\n")
    assert main(["check", "sealed", "--key", "n.key"]) == 0
    assert main(["open", "sealed", "plain", "--key", "n.key"]) == 0
    assert sorted(os.listdir("sealed")) == ["INDEX", "MANIFEST", "objects", "tags"]


def test_a_rekey_is_not_resumed_with_the_key_of_another_tree(capsys: pytest.CaptureFixture[str]) -> None:
    assert seal(dest="other", key="o.key", epoch=4) == 0
    before = Path("o.key").read_bytes()
    assert main(["rekey", "sealed", *KEY, "--epoch", "4", "--key-out", "o.key", "--resume"]) == 3
    assert "sealed: holds nothing of a rekey to" in capsys.readouterr().err
    assert Path("o.key").read_bytes() == before
