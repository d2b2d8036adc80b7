"""Mirrors strongroom/host/sealing.py."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.errors import ConfigError, MachineError
from strongroom.host.sealed_tree import SealedTree
from strongroom.host.sealing import Plan, seal_tree
from strongroom.sealed.manifest import SealedFile
from strongroom.sealed.volume import root_digest
from tests.fakes.sealed import CHUNK, MODEL_KEY, counter, make_source, pattern


def nothing(_: object) -> None:
    pass


def seal(
    plan: Plan,
    dest: Path,
    *,
    keep: Callable[[bytes], None] = nothing,
    progress: Callable[[int], None] = nothing,
) -> bytes:
    return seal_tree(
        plan,
        dest,
        model_key=MODEL_KEY,
        epoch=1,
        chunk_log2=16,
        entropy=counter(),
        keep=keep,
        progress=progress,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make_source(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def plan(source: Path) -> Plan:
    return Plan.make(source, name="tiny", dereference=False, entropy=counter())


def test_a_sealed_tree(plan: Plan, tmp_path: Path) -> None:
    done: list[int] = []
    root = seal(plan, tmp_path / "new" / "dest", progress=done.append)
    dest = tmp_path / "new" / "dest"
    assert root == root_digest((dest / "MANIFEST").read_bytes())
    assert sorted(path.name for path in dest.iterdir()) == ["MANIFEST", "TAGS", "objects"]
    assert done == sorted(done)
    assert (
        done[-1]
        == plan.total
        == sum(
            path.stat().st_size for path in plan.source.rglob("*") if path.is_file() and not path.is_symlink()
        )
    )
    with SealedTree.open(dest, model_key=MODEL_KEY, epoch=1, root=root) as tree:
        assert [one.file.path for one in tree.objects] == [
            "exact.bin",
            "model-1.safetensors",
            "model-2.safetensors",
        ]
    plaintext = b"".join(path.read_bytes() for path in (dest / "objects").iterdir())
    assert pattern(CHUNK, 1)[:64] not in plaintext


def test_nothing_of_a_seal_comes_twice(source: Path, tmp_path: Path) -> None:
    def ids(plan: Plan) -> set[bytes]:
        sealed = [file for file in plan.files if isinstance(file, SealedFile)]
        return {file.object_id for file in sealed} | {file.file_id for file in sealed}

    entropy = counter()
    first = Plan.make(source, name="m", dereference=False, entropy=entropy)
    again = Plan.make(source, name="m", dereference=False, entropy=entropy)
    assert len(ids(first) | ids(again)) == 12


def test_the_manifest_comes_last(plan: Plan, tmp_path: Path) -> None:
    seen: list[list[str]] = []
    seal(plan, tmp_path / "dest", keep=lambda _: seen.append(sorted(os.listdir(tmp_path / "dest"))))
    assert seen == [["MANIFEST.partial", "TAGS", "objects"]]


def test_a_destination_is_new_or_empty(plan: Plan, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / "keep").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="dest: not empty"):
        seal(plan, dest)
    assert (dest / "keep").read_bytes() == b"mine"
    (dest / "keep").unlink()
    seal(plan, dest)
    with pytest.raises(ConfigError, match="dest: not empty"):
        seal(plan, dest)
    for inside in (plan.source, plan.source / "deep" / "er"):
        with pytest.raises(ConfigError, match="lies inside"):
            seal(plan, inside)
    with pytest.raises(MachineError, match=r"file exists|not a directory"):
        seal(plan, Path("/dev/null"))


@pytest.mark.parametrize("existed", [True, False])
def test_a_failed_seal_leaves_nothing(plan: Plan, tmp_path: Path, existed: bool) -> None:
    dest = tmp_path / "dest"
    if existed:
        dest.mkdir()

    def fail(_: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seal(plan, dest, keep=fail)
    assert dest.exists() == existed
    assert not existed or not any(dest.iterdir())


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    "change",
    [
        grow,
        lambda path: os.truncate(path, CHUNK),
        lambda path: path.unlink(),
        lambda path: os.truncate(path, 0),
    ],
)
def test_a_source_that_changes(plan: Plan, tmp_path: Path, change: Callable[[Path], None]) -> None:
    change(plan.source / "model-2.safetensors")
    with pytest.raises(MachineError, match=r"changed while it was sealed|no such file"):
        seal(plan, tmp_path / "dest")
    assert not (tmp_path / "dest").exists()


def test_a_plan_refuses_what_could_not_be_served(source: Path) -> None:
    (source / "new\nline").write_bytes(b"")
    with pytest.raises(ConfigError, match="control character"):
        Plan.make(source, name="m", dereference=False, entropy=counter())
    (source / "new\nline").unlink()
    (source / "dangling").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="which is not in the tree"):
        Plan.make(source, name="m", dereference=False, entropy=counter())


def test_the_disk_is_full(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("strongroom.host.sealing.os.fsync", fsync)
    with pytest.raises(MachineError, match="dest: no space left on device"):
        seal(plan, tmp_path / "dest")
    assert not (tmp_path / "dest").exists()


def test_a_model_without_objects(source: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    (small / "a").write_bytes(b"x")
    plan = Plan.make(small, name="m", dereference=False, entropy=counter())
    root = seal(replace(plan, name="other"), tmp_path / "dest")
    with SealedTree.open(tmp_path / "dest", model_key=MODEL_KEY, epoch=1, root=root) as tree:
        assert (tree.manifest.name, tree.objects) == ("other", ())
