"""Mirrors strongroom/cli/status.py."""

import json
import os
from pathlib import Path

import pytest

from guest.keysock.plan import Origin
from guest.keysock.rights import Rights
from strongroom.cli.main import main
from tests.fakes.answering import answering, reply
from tests.fakes.keysock import BACKENDS, served

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "vtpm"])
def test_the_machine_and_ones_rights(socket_dir: Path, capsys: Captured, backend: str) -> None:
    origin = Origin(kind="broker", resource="kbs:///keys/root/a", provider=bytes(32), epoch=7)
    with served(socket_dir, backend, origin=origin, rights=Rights()) as keysock:
        assert main(["status", "--socket", str(keysock.path("agent"))]) == 0
        shown = capsys.readouterr().out
        assert main(["status", "--json", "--socket", str(keysock.path("agent"))]) == 0
        told = json.loads(capsys.readouterr().out)
    me = f"uid-{os.getuid()}"
    for line in (
        f"tee              {backend}",
        "keys from        broker, the key broker: the same on every machine that may have them",
        "newest epoch     7",
        f"you are          {me}",
        "may call         GetKey, Info, Version",
        f"gets keys        {me}/",
        "signs with       none",
    ):
        assert line in shown.splitlines()
    assert "kbs:///keys/root/a" in shown
    assert told["rights"]["paths"] == [f"{me}/"]
    assert told["measurement"] in shown


def test_a_machine_without_keys(socket_dir: Path, capsys: Captured) -> None:
    with served(socket_dir, origin=None) as keysock:
        assert main(["status", "--socket", str(keysock.path("agent"))]) == 0
    assert "none: userdata has no section strongroom.keys" in capsys.readouterr().out


def test_no_machine_at_all(socket_dir: Path, capsys: Captured) -> None:
    assert main(["status", "--socket", str(socket_dir / "none")]) == 9
    assert capsys.readouterr().err.count("\n") == 1


def test_an_answer_that_is_none(socket_dir: Path, capsys: Captured) -> None:
    path = socket_dir / "a.sock"
    with answering(path, reply(b'{"name":[]}')):
        assert main(["status", "--socket", str(path)]) == 7
    assert "want" not in capsys.readouterr().out
