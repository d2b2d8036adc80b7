"""Mirrors strongroom/cli/seal.py, as a person runs it."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from strongroom.broker.resource import VolumeKey
from strongroom.cli.main import main
from strongroom.host.sealed.objects import SealingObject
from tests.fakes.model import make_model, seal, told
from tests.fakes.sealed import CHUNK, pattern
from tests.unit.sealed.test_by_hand import read_tree


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_model(tmp_path, monkeypatch)


def key(name: str = "m.key") -> VolumeKey:
    return VolumeKey.parse(Path(name).read_bytes())


def contents(model: Path) -> dict[str, bytes]:
    files = [path for path in model.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(model)): path.read_bytes() for path in files}


def update(*more: str, old: str = "m.key", new: str = "n.key", epoch: int = 4) -> int:
    words = ["seal", "model", "sealed", "--update", "--key", old, "--epoch", str(epoch), "--key-out", new]
    return main([*words, *more])


def test_seal(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert seal("--chunk-kib", "64") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "sealed   tiny epoch 3: 6 files, 917726 bytes",
        f"root     {key().root.hex()}",
        "key      m.key",
    ]
    assert err == "next     strongroom broker put DIR kbs:///REPOSITORY/TYPE/TAG m.key --policy FILE\n"
    assert key().epoch == 3
    assert stat.S_IMODE(os.stat("m.key").st_mode) == 0o600
    assert read_tree(Path("sealed"), key().key) == contents(model)
    assert sorted(os.listdir()) == ["m.key", "model", "sealed"]


@pytest.mark.usefixtures("model")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert seal("--json", "--no-sha256", "--no-verify", "--workers", "3") == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "tiny",
        "epoch": 3,
        "root": key().root.hex(),
        "files": 6,
        "bytes": 917_726,
        "key": "m.key",
        "sealed": 3,
        "kept": 0,
        "freed": 0,
    }


@pytest.mark.guarantee("G16")
def test_refusals_leave_nothing_behind(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(model / "fifo")
    assert seal() == 3
    assert "is a FIFO" in capsys.readouterr().err
    (model / "fifo").unlink()
    Path("taken").mkdir()
    Path("taken/file").write_bytes(b"")
    assert seal(dest="taken") == 3
    assert capsys.readouterr().err == "strongroom: taken: not empty, want an empty or absent directory\n"
    Path("old.key").write_bytes(b"precious")
    assert seal(key="old.key") == 3
    assert "old.key: exists" in capsys.readouterr().err
    assert Path("old.key").read_bytes() == b"precious"
    assert sorted(os.listdir()) == ["model", "old.key", "taken"]


@pytest.mark.guarantee("G16")
@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--epoch", "0"], "--epoch: got 0, want a whole number 1..2**53-1"),
        (["--name", "a b"], "--name: manifest: name is 'a b', want 1..128 letters, digits or ._/:+-"),
        (["--workers", "0"], "--workers: got 0, want at least 1"),
        (["--update"], "seal: want --update and --key together, the key of the release that is there"),
        (["--key", "k"], "seal: want --update and --key together, the key of the release that is there"),
        (["--checksum"], "seal: --checksum is for --update"),
    ],
)
def test_arguments_are_checked_first(more: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert seal(*more) == 3
    assert capsys.readouterr().err == f"strongroom: {line}\n"
    assert os.listdir() == ["model"]


@pytest.mark.usefixtures("model")
def test_a_new_tree_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seal", "model", "sealed", "--epoch", "1", "--key-out", "m.key"]) == 3
    assert capsys.readouterr().err == "strongroom: seal: want --name, as clients will ask for it\n"


# Updates


def test_an_update(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert seal() == 0
    first = key()
    (model / "exact.bin").write_bytes(pattern(3 * CHUNK, 8))
    capsys.readouterr()
    assert update() == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("sealed   tiny epoch 4: 6 files, ")
    assert out[1] == "kept     2 of 3 objects, as they were"
    assert key("n.key").epoch == 4 and key("n.key").key != first.key
    assert read_tree(Path("sealed"), key("n.key").key) == contents(model)
    assert key() == first  # of use as long as a machine asks for the old release
    assert main(["check", "sealed", "--key", "m.key"]) == 6


def test_an_update_by_contents(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert seal() == 0
    os.utime(model / "exact.bin")
    status = (model / "model-1.safetensors").stat()
    with (model / "model-1.safetensors").open("r+b") as file:
        file.write(b"changed")  # behind the back of its time
    os.utime(model / "model-1.safetensors", ns=(0, status.st_mtime_ns))
    new = ["--epoch", "4", "--key-out", "n.key"]
    result = told(capsys, "seal", "model", "sealed", "--update", "--key", "m.key", "--checksum", *new)
    assert (result["sealed"], result["kept"]) == (1, 2)
    assert read_tree(Path("sealed"), key("n.key").key) == contents(model)


def test_an_update_that_prunes(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert seal() == 0
    (model / "exact.bin").unlink()
    capsys.readouterr()
    assert update("--prune", "--name", "other") == 0
    assert f"freed    {4 * CHUNK + 128} bytes" in capsys.readouterr().out.splitlines()
    assert len(os.listdir("sealed/objects")) == 2 and len(os.listdir("sealed/tags")) == 1
    assert read_tree(Path("sealed"), key("n.key").key) == contents(model)
    assert main(["check", "sealed", "--key", "n.key"]) == 0
    assert "other epoch 4" in capsys.readouterr().out


@pytest.mark.guarantee("G16")
@pytest.mark.usefixtures("model")
def test_updates_that_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert seal() == 0
    capsys.readouterr()
    for more, code, line in (
        ({"epoch": 3}, 3, "strongroom: sealed: epoch is 3, want it to grow: got 3\n"),
        ({"old": "none.key"}, 8, "strongroom: none.key: no such file or directory\n"),
    ):
        assert update(**more) == code
        assert capsys.readouterr().err == line
    assert update("--chunk-kib", "64") == 3
    assert "its chunks are 131072 bytes, want the same" in capsys.readouterr().err
    assert seal(key="o.key") == 3
    assert capsys.readouterr().err.startswith("strongroom: sealed: holds a sealed tree, want --update")
    assert sorted(os.listdir()) == ["m.key", "model", "sealed"]


# Cut and resumed


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let so many objects come to an end, then fail with `error`."""

    def arrange(count: int, error: BaseException) -> None:
        left, finish = [count], SealingObject.finish

        def cutting(job: SealingObject) -> None:
            if not left[0]:
                raise error
            left[0] -= 1
            finish(job)

        monkeypatch.setattr(SealingObject, "finish", cutting)

    return arrange


def test_a_full_disk_costs_nothing_that_was_done(
    model: Path, cut: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(2, OSError(28, "No space left on device"))
    assert seal("--workers", "1") == 8
    goes_on = "what is finished is kept, the same command with --resume goes on"
    assert capsys.readouterr().err == f"strongroom: sealed: no space left on device; {goes_on}\n"
    monkeypatch.undo()
    monkeypatch.chdir(model.parent)
    assert main(["check", "sealed", "--key", "m.key"]) == 4
    assert "m.key: the key of a seal that was cut" in capsys.readouterr().err
    assert seal() == 3  # without --resume nothing is touched, neither the tree nor the key
    assert "m.key: exists" in capsys.readouterr().err
    assert seal(key="o.key") == 3
    assert "a seal into it was cut: --resume goes on" in capsys.readouterr().err
    assert not Path("o.key").exists()
    assert seal("--resume", key="o.key") == 5
    assert "journal: key commitment does not match" in capsys.readouterr().err
    assert not Path("o.key").exists()
    assert seal("--resume", epoch=4) == 3
    assert "m.key: epoch is 3, want 4" in capsys.readouterr().err
    assert seal("--resume") == 0
    assert read_tree(Path("sealed"), key().key) == contents(model)
    assert sorted(os.listdir()) == ["m.key", "model", "sealed"]
    assert sorted(os.listdir("sealed")) == ["INDEX", "MANIFEST", "objects", "tags"]


@pytest.mark.usefixtures("model")
def test_ctrl_c_says_how_to_go_on(cut: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cut(1, KeyboardInterrupt())
    assert seal("--workers", "1") == 130
    assert capsys.readouterr().err == (
        "seal: what is finished is kept, the same command with --resume goes on\n"
    )


@pytest.mark.usefixtures("model")
def test_a_failure_before_anything_was_done(cut: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cut(0, OSError(28, "No space left on device"))
    assert seal() == 8
    assert capsys.readouterr().err == "strongroom: sealed: no space left on device\n"
    assert os.listdir() == ["model"]


def test_to_resume_what_is_complete_is_no_harm(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert seal() == 0
    first = key()
    Path("sealed/JOURNAL").write_bytes(b"")  # as if cut behind the commit
    Path("sealed/INDEX").unlink()
    assert seal("--resume") == 0
    assert key() == first and read_tree(Path("sealed"), first.key) == contents(model)
    assert sorted(os.listdir("sealed")) == ["INDEX", "MANIFEST", "objects", "tags"]


@pytest.mark.guarantee("G16")
@pytest.mark.usefixtures("model")
def test_the_key_of_another_tree_is_not_resumed_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert seal() == 0
    before = Path("m.key").read_bytes()
    assert seal("--resume", dest="other") == 3
    assert "m.key: opens a finished tree" in capsys.readouterr().err
    assert seal(dest="other", key="o.key") == 0
    assert seal("--resume", dest="other") == 3
    assert "m.key: opens another tree" in capsys.readouterr().err
    assert Path("m.key").read_bytes() == before


def test_the_key_survives_a_failure_behind_the_commit(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal() == 0

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("strongroom.host.sealed.destination.Destination.settle", fail)
    assert update() == 8  # nothing had changed, so not one object was finished
    assert read_tree(Path("sealed"), key("n.key").key) == contents(model)


@pytest.mark.guarantee("G11")
@pytest.mark.usefixtures("model")
def test_a_key_inside_the_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert seal(key="model/m.key") == 3
    words = "strongroom: --key-out: model/m.key lies inside model, want a place outside\n"
    assert capsys.readouterr().err == words
    Path("link").symlink_to("model/tokenizer")
    assert seal(key="link/m.key") == 3
    assert seal() == 0
    Path("m.key").rename("model/m.key")
    assert update(old="model/m.key") == 3
    assert "--key: model/m.key lies inside model" in capsys.readouterr().err
    assert not Path("model/tokenizer/m.key").exists() and sorted(os.listdir("sealed/objects"))


def test_a_resumed_update_by_content_believes_no_time(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    assert seal() == 0
    file = model / "model-1.safetensors"
    stamp = file.stat()
    for seed in (11, 12):  # sealed before the cut; and changed behind it, with the same size and time
        file.write_bytes(pattern(stamp.st_size, seed))
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        if seed == 11:
            with monkeypatch.context() as cut:
                cut.setattr("strongroom.host.sealed.sealing._Work.verify", interrupt)
                assert update("--checksum") == 130
    assert update("--checksum", "--resume") == 0
    assert read_tree(Path("sealed"), key("n.key").key) == contents(model)
