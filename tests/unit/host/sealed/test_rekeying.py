"""Mirrors strongroom/host/sealed/rekeying.py and pruning.py."""

import os
from pathlib import Path

import pytest

from strongroom.errors import ConfigError, MachineError, PolicyError, VerifyError
from strongroom.host.sealed.destination import JOURNAL
from strongroom.host.sealed.pruning import leftovers, prune
from strongroom.host.sealed.rekeying import complete_rekey, rekey_tree
from strongroom.host.sealed.tree import SealedStore
from strongroom.sealed.index import INDEX, Index
from tests.fakes.sealed import MODEL_KEY, SealedFixture, make_sealed
from tests.unit.sealed.test_by_hand import read_tree

NEW_KEY = bytes(range(100, 132))


@pytest.fixture
def sealed(tmp_path: Path) -> SealedFixture:
    return make_sealed(tmp_path)


def rekey(sealed: SealedFixture, *, epoch: int = 2, name: str | None = None) -> tuple[bytes, list[bytes]]:
    kept: list[bytes] = []
    with SealedStore.open(sealed.path, model_key=MODEL_KEY, epoch=1, root=sealed.root) as store:
        root = rekey_tree(
            store,
            sealed.path,
            model_key=NEW_KEY,
            epoch=epoch,
            entropy=os.urandom,
            keep=kept.append,
            name=name,
        )
    return root, kept


def test_a_new_key_for_the_same_objects(sealed: SealedFixture) -> None:
    before = {path: path.read_bytes() for path in sealed.path.rglob("*/*") if path.is_file()}
    with SealedStore.open(sealed.path, model_key=MODEL_KEY, epoch=1, root=sealed.root) as old:
        root, kept = rekey(sealed, name="other")
        assert kept == [root]
        with SealedStore.open(sealed.path, model_key=NEW_KEY, epoch=2, root=root) as new:
            assert new.manifest.entries == old.manifest.entries and new.manifest.name == "other"
            assert new.header.volume_id == old.header.volume_id and new.header.salt != old.header.salt
    assert {path: path.read_bytes() for path in sealed.path.rglob("*/*") if path.is_file()} == before
    assert read_tree(sealed.path, NEW_KEY) == sealed.contents
    assert Index.parse((sealed.path / INDEX).read_bytes()).root == root


@pytest.mark.guarantee("G5")
def test_the_old_release_is_over(sealed: SealedFixture) -> None:
    root, _ = rekey(sealed)
    with (
        pytest.raises(PolicyError, match="epoch is 2, want 1"),
        SealedStore.open(sealed.path, model_key=MODEL_KEY, epoch=1, root=sealed.root),
    ):
        pass
    with (
        pytest.raises(VerifyError, match="key commitment"),
        SealedStore.open(sealed.path, model_key=MODEL_KEY, epoch=2, root=root),
    ):
        pass


def test_what_is_refused(sealed: SealedFixture) -> None:
    with pytest.raises(ConfigError, match="epoch is 1, want it to grow: got 1"):
        rekey(sealed, epoch=1)
    (sealed.path / JOURNAL).touch()
    with pytest.raises(ConfigError, match="a seal into it was cut"):
        rekey(sealed)
    (sealed.path / JOURNAL).unlink()
    with SealedStore.open(sealed.path, model_key=MODEL_KEY, epoch=1, root=sealed.root) as store:
        rekey(sealed)
        with pytest.raises(MachineError, match="changed meanwhile"):
            rekey_tree(
                store, sealed.path, model_key=NEW_KEY, epoch=3, entropy=os.urandom, keep=lambda _: None
            )
        with pytest.raises(MachineError, match="changed meanwhile"):
            prune(store, sealed.path)


def test_a_key_that_cannot_be_kept(sealed: SealedFixture) -> None:
    def fail(_: bytes) -> None:
        raise OSError(28, "No space left on device", "new.key")

    with (
        SealedStore.open(sealed.path, model_key=MODEL_KEY, epoch=1, root=sealed.root) as store,
        pytest.raises(MachineError, match=r"new.key: no space left on device"),
    ):
        rekey_tree(store, sealed.path, model_key=NEW_KEY, epoch=2, entropy=os.urandom, keep=fail)
    assert read_tree(sealed.path, MODEL_KEY) == sealed.contents


def test_pruning_takes_what_nothing_names(sealed: SealedFixture) -> None:
    rubbish = {"objects/" + "00" * 16: 10, "tags/" + "00" * 32: 3, "tags/" + "00" * 32 + ".partial": 2}
    rubbish |= {"JOURNAL": 5, "MANIFEST.partial": 1}
    for name, size in rubbish.items():
        (sealed.path / name).write_bytes(bytes(size))
    for name in ("notes.txt", "objects/README", "tags/mine"):  # none of ours
        (sealed.path / name).write_bytes(b"mine")
    with SealedStore.open(sealed.path, model_key=MODEL_KEY, epoch=1, root=sealed.root) as store:
        found = leftovers(store, sealed.path)
        assert {str(one.path.relative_to(sealed.path)): one.size for one in found} == rubbish
        assert prune(store, sealed.path) == found
        assert leftovers(store, sealed.path) == ()
    assert read_tree(sealed.path, MODEL_KEY) == sealed.contents
    assert (sealed.path / "notes.txt").exists() and (sealed.path / "objects/README").exists()


@pytest.mark.parametrize("swapped", ["objects", "tags"])
def test_pruning_stays_in_the_tree_that_was_opened(
    sealed: SealedFixture, tmp_path: Path, swapped: str
) -> None:
    (tmp_path / "other").mkdir()
    other = make_sealed(tmp_path / "other", epoch=3)
    before = sorted(other.path.rglob("*"))
    rubbish = f"{swapped}/{'0' * (32 if swapped == 'objects' else 64)}"
    (sealed.path / rubbish).touch()
    with SealedStore.open(sealed.path, model_key=MODEL_KEY, epoch=1, root=sealed.root) as store:
        (sealed.path / swapped).rename(sealed.path / "aside")
        (sealed.path / swapped).symlink_to(other.path / swapped)
        assert [one.path for one in prune(store, sealed.path)] == [sealed.path / rubbish]
    assert sorted(other.path.rglob("*")) == before
    assert not (sealed.path / "aside" / Path(rubbish).name).exists()


def test_a_rekey_cut_at_its_commit_goes_on(sealed: SealedFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError(5, "Input/output error")

    kept: list[bytes] = []
    monkeypatch.setattr("strongroom.host.sealed.destination.Destination.recommit", fail)
    with SealedStore.open(sealed.path, model_key=MODEL_KEY, epoch=1, root=sealed.root) as store:
        with pytest.raises(MachineError, match="input/output error"):
            rekey_tree(store, sealed.path, model_key=NEW_KEY, epoch=2, entropy=os.urandom, keep=kept.append)
        monkeypatch.undo()
        with pytest.raises(ConfigError, match=f"holds nothing of a rekey to {'00' * 32}"):
            complete_rekey(sealed.path, before=sealed.root, root=bytes(32))
        with pytest.raises(MachineError, match="changed meanwhile"):
            complete_rekey(sealed.path, before=bytes(32), root=kept[0])
        assert read_tree(sealed.path, MODEL_KEY) == sealed.contents
        for _ in range(2):  # again is no harm
            complete_rekey(sealed.path, before=sealed.root, root=kept[0])
    assert read_tree(sealed.path, NEW_KEY) == sealed.contents
