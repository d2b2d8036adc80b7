"""Mirrors strongroom/cli/pull.py, as a person runs it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.broker.resource import VolumeKey
from strongroom.cli.main import main
from strongroom.cli.progress import size
from strongroom.host.sealed.tree import SealedTree
from strongroom.sealed.index import INDEX, Index
from tests.fakes.https import certificate
from tests.fakes.sealed import MODEL_KEY, SealedFixture, make_sealed
from tests.fakes.stores import Answer, Store, at, serving


@pytest.fixture
def sealed(tmp_path: Path) -> SealedFixture:
    return make_sealed(tmp_path, epoch=3)


@pytest.fixture
def store(tmp_path: Path, sealed: SealedFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    (tmp_path / "ca.pem").write_text(certificate(tmp_path / "tls").pem)
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path / "tls") as store:
        for path in sealed.path.rglob("*"):
            if path.is_file():
                store.files[f"/m/{path.relative_to(sealed.path)}"] = path.read_bytes()
        yield store


def key_file(sealed: SealedFixture, *, root: bytes | None = None) -> str:
    path = Path("m.key")
    path.write_bytes(VolumeKey(key=MODEL_KEY, root=root or sealed.root, epoch=sealed.epoch).pack())
    path.chmod(0o600)
    return str(path)


def index(sealed: SealedFixture) -> bytes:
    (tags,) = (sealed.path / "tags").iterdir()
    return Index(
        root=sealed.root,
        manifest_size=(sealed.path / "MANIFEST").stat().st_size,
        tags_sha256=bytes.fromhex(tags.name),
        tags_size=tags.stat().st_size,
        objects={path.name: path.stat().st_size for path in sealed.objects.values()},
    ).pack()


def pull(store: Store, *more: str) -> int:
    return main(["pull", f"{store.url}/m", "dest", "--ca", "ca.pem", *more])


def test_with_the_key_no_index_is_needed(
    store: Store, sealed: SealedFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    store.files.pop(f"/m/{INDEX}", None)
    assert pull(store, "--key", key_file(sealed)) == 0
    out = capsys.readouterr()
    assert out.out.startswith("pulled   3 objects, 9") and out.out.endswith(f"root     {sealed.root.hex()}\n")
    assert out.err == ""
    with SealedTree.open(Path("dest"), model_key=MODEL_KEY, epoch=3, root=sealed.root) as tree:
        assert len(tree.objects) == 3
    assert Path("dest", INDEX).read_bytes() == index(sealed)


def test_without_the_key_the_index_names_the_files(
    store: Store, sealed: SealedFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    store.files[f"/m/{INDEX}"] = index(sealed)
    assert pull(store, "--root", sealed.root.hex(), "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["root"] == sealed.root.hex() and facts["fetched"] == 4
    assert facts["carried"] == facts["bytes"] - (sealed.path / "MANIFEST").stat().st_size
    with SealedTree.open(Path("dest"), model_key=MODEL_KEY, epoch=3, root=sealed.root):
        pass


@pytest.mark.guarantee("G4")
def test_another_model_under_the_name_is_refused(
    store: Store, sealed: SealedFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pull(store, "--root", "0" * 64) == 5
    assert capsys.readouterr().err == (
        f"strongroom: {store.url}/m: root is {sealed.root.hex()}, want {'0' * 64}\n"
    )
    assert pull(store, "--key", key_file(sealed, root=bytes(32))) == 5
    assert not Path("dest").exists()


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("more", "line"),
    [
        ([], "--root: want the digest of the model, or --key with the file that holds it"),
        (["--root", "x"], "--root: got 'x', want 64 lowercase hex digits"),
        (["--root", "0" * 64, "--parallel", "0"], "--parallel: got 0, want 1..32"),
        (["--root", "0" * 64, "--idle", "nan"], "--idle: got nan, want 0.1..3600 seconds"),
        (["--root", "0" * 64, "--recheck"], "--recheck: want --key too, which tells what was sealed"),
        (["--root", "0" * 64, "--tries", "0"], "--tries: got 0, want 1..1000"),
        (["--root", "0" * 64, "--region", "x"], "--region: is for s3, not for 'https'"),
    ],
)
def test_arguments_are_checked_first(
    store: Store, more: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pull(store, *more) == 3
    assert capsys.readouterr().err == f"strongroom: {line}\n"
    assert store.heard == [] and not Path("dest").exists()


@pytest.mark.guarantee("G11")
def test_a_key_that_others_can_read_is_not_used(
    store: Store, sealed: SealedFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(key_file(sealed)).chmod(0o644)
    assert pull(store, "--key", "m.key") == 3
    assert capsys.readouterr().err == "strongroom: m.key: mode is 0644, want 0600: others may read this key\n"


def test_failures_are_one_line(
    store: Store, sealed: SealedFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    store.rules = [at("MANIFEST", Answer(404))]
    assert pull(store, "--root", sealed.root.hex()) == 7
    assert capsys.readouterr().err == (
        f"strongroom: {store.url}/m: MANIFEST: answer is 404, there is no such file\n"
    )
    store.rules = [at("MANIFEST", Answer(503))]
    assert pull(store, "--root", sealed.root.hex(), "--tries", "1") == 9
    assert capsys.readouterr().err == f"strongroom: {store.url}/m: MANIFEST: answer is 503, want 200\n"


def test_a_recheck_shows_how_far_it_is(
    store: Store, sealed: SealedFixture, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = key_file(sealed)
    assert pull(store, "--key", key) == 0
    monkeypatch.setattr("strongroom.cli.progress._IN_LOG", 0.0)
    capsys.readouterr()
    assert pull(store, "--key", key) == 0
    assert capsys.readouterr().err == ""  # nothing was to be done
    assert pull(store, "--key", key, "--recheck") == 0
    lines = capsys.readouterr().err.splitlines()
    total = size(sum(path.stat().st_size for path in sealed.objects.values()))
    assert lines[-1].startswith(f"checking {total} of {total} (100%), ")
    assert all(line.startswith("checking ") for line in lines)
