"""Mirrors sidecars/fs/workers/master.py: its end, and what of a failure goes where."""

from collections.abc import Iterator
from typing import Any

import pytest

from sidecars.fs.device import Terms
from sidecars.fs.mounting import TYPE, Mounted
from sidecars.fs.protocol.frames import InitFlag
from sidecars.fs.workers import master
from sidecars.fs.workers.kept import Held
from sidecars.fs.workers.loop import Loop
from sidecars.fs.workers.master import Master
from sidecars.fs.workers.worker import Failure, Word

MOUNTED = Mounted(24, "0:40", TYPE)


@pytest.fixture
def reported() -> list[str]:
    return []


@pytest.fixture
def served(reported: list[str]) -> Iterator[Master]:
    loop = Loop()
    held = Held(-1, Terms(45, InitFlag.HAS_RESEND), MOUNTED, [-1])
    nothing: Any = None
    yield Master(held, nothing, nothing, loop=loop, store=(), report=reported.append)
    loop.close()


@pytest.mark.parametrize(("ended", "works"), [(True, True), (False, True), (False, False)])
def test_what_cannot_be_killed_holds_no_reader(
    served: Master,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ended: bool,
    works: bool,
) -> None:
    aborted: list[Mounted] = []

    def abort(mounted: Mounted) -> bool:
        aborted.append(mounted)
        return works

    monkeypatch.setattr(master, "kill_all", lambda _: ended)
    monkeypatch.setattr(master, "abort", abort)
    served.end(0.0)
    assert aborted == ([] if ended else [MOUNTED])
    assert ("no connection can be aborted" in capsys.readouterr().err) == (not works)


@pytest.mark.guarantee("G4")
def test_only_what_does_not_verify_is_reported(
    served: Master, reported: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        served._failed(Failure(Word.STORE_FAILED, "object a: gone"))
        served._failed(Failure(Word.STORE_FAILED, ""))
        served._failed(Failure(Word.MISHAP, "request 1 failed"))
        served._failed(Failure(Word.FORGED, "object a: chunk 1: x"))
    assert served.store_failures == 4
    assert reported == ["object a: chunk 1: x"]
    assert capsys.readouterr().err.splitlines() == [
        "strongroom-fs: object a: gone",
        "strongroom-fs: request 1 failed",
    ]
