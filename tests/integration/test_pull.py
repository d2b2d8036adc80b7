"""A model sealed, published, pulled through a bad line and a killed process, and read: by the commands alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.cli.main import main
from tests import ROOT
from tests.fakes.https import certificate
from tests.fakes.sealed import make_source
from tests.fakes.stores import Answer, Request, Store, serving


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    (tmp_path / "ca.pem").write_text(certificate(tmp_path / "tls").pem)
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path / "tls") as store:
        yield store


def publish(store: Store, sealed: str) -> None:
    paths = (path for path in Path(sealed).rglob("*") if path.is_file())
    store.files = {f"/m/{path.relative_to(sealed)}": path.read_bytes() for path in paths}


def root_in(out: str) -> str:
    return next(line.split()[1] for line in out.splitlines() if line.startswith("root"))


def test_sealed_published_pulled_and_read(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    contents = make_source(Path("model"))
    assert main(["seal", "model", "sealed", "--name", "m", "--epoch", "1", "--key-out", "m.key"]) == 0
    root = root_in(capsys.readouterr().out)
    publish(store, "sealed")
    flaky = [0]

    def cut(request: Request) -> Answer | None:
        answer = store.serve(request)
        flaky[0] += 1
        if "objects/" not in request.path or flaky[0] % 3 == 0:
            return None
        return Answer(answer.status, answer.body, answer.headers, cut=min(60_000, len(answer.body) // 2))

    store.rules = [cut]
    words = ["pull", f"{store.url}/m", "here", "--ca", "ca.pem", "--root", root]
    assert main(words) == 0  # with INDEX, as sealing wrote it
    assert main(["check", "here", "--key", "m.key"]) == 0
    assert main(["open", "here", "plain", "--key", "m.key"]) == 0
    assert {name: Path("plain", name).read_bytes() for name in contents} == contents
    del store.files["/m/INDEX"]
    assert main([*words[:2], "there", *words[3:5], "--key", "m.key"]) == 0
    assert main(["check", "there", "--key", "m.key"]) == 0
    same = (
        (path, Path("there", path.relative_to("here"))) for path in Path("here").rglob("*") if path.is_file()
    )
    assert all(one.read_bytes() == other.read_bytes() for one, other in same)


@pytest.mark.guarantee("G4")
def test_what_a_store_changed_is_found_by_the_key(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    make_source(Path("model"))
    assert main(["seal", "model", "sealed", "--name", "m", "--epoch", "1", "--key-out", "m.key"]) == 0
    root = root_in(capsys.readouterr().out)
    publish(store, "sealed")
    name = next(name for name in store.files if "objects/" in name)
    store.files[name] = bytes(len(store.files[name]))
    assert main(["pull", f"{store.url}/m", "here", "--ca", "ca.pem", "--root", root]) == 0
    capsys.readouterr()
    assert main(["check", "here", "--key", "m.key"]) == 5
    assert name.rpartition("/")[2] in capsys.readouterr().err


def test_a_killed_pull_is_continued(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    make_source(Path("model"))
    assert main(["seal", "model", "sealed", "--name", "m", "--epoch", "1", "--key-out", "m.key"]) == 0
    publish(store, "sealed")
    whole = {name: len(content) for name, content in store.files.items() if "objects/" in name}
    store.rules = [lambda request: hung(store, request)]
    words = ["pull", f"{store.url}/m", "here", "--ca", "ca.pem", "--key", "m.key", "--parallel", "8"]
    program = "import sys; from strongroom.cli.main import main; sys.exit(main(sys.argv[1:]))"
    child = subprocess.Popen(
        [sys.executable, "-c", program, *words], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        until = time.monotonic() + 60
        while sum(path.stat().st_size for path in Path("here/objects").glob("*.partial")) < 40_000 * len(
            whole
        ):
            assert time.monotonic() < until and child.poll() is None
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not Path("here/MANIFEST").exists()
    store.rules.clear()
    store.heard.clear()
    assert main(words) == 0
    asked = {
        request.path: request.headers.get("range") for request in store.heard if "objects/" in request.path
    }
    assert asked == dict.fromkeys(whole, "bytes=40000-")
    assert main(["check", "here", "--key", "m.key"]) == 0
    capsys.readouterr()


def hung(store: Store, request: Request) -> Answer | None:
    answer = store.serve(request)
    if "objects/" not in request.path:
        return None
    return Answer(answer.status, answer.body, answer.headers, cut=40_000, hang=True)
