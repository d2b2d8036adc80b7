"""Mirrors sidecars/fs/__main__.py: what the status says, and never says again."""

import itertools
import os
import signal
import time
from typing import Any

import pytest

from sidecars.fs import __main__ as daemon
from sidecars.fs.__main__ import Failures
from sidecars.fs.workers.loop import Loop
from strongroom.errors import MachineError, VerifyError


class Served:
    """Lives for as many looks as it has waits to show."""

    def __init__(self, *waits: float, sentences: tuple[str, ...] = ()) -> None:
        self._waits = list(waits)
        self._sentences = list(sentences)
        self.longest_wait = 0.0
        self.sentence = "serving tiny"
        self.given_back = 0

    @property
    def alive(self) -> bool:
        return bool(self._waits)

    def look(self) -> None:
        self.longest_wait = self._waits.pop(0)
        self.sentence = self._sentences.pop(0) if self._sentences else self.sentence

    def give_back(self) -> None:
        self.given_back += 1


def told(monkeypatch: pytest.MonkeyPatch, served: Served, *failures: str) -> list[str]:
    said, failed, loop = list[str](), Failures(), Loop()
    monkeypatch.setattr(daemon, "_LOOK", 0.001)
    monkeypatch.setattr(daemon, "status", said.append)
    for failure in failures:
        failed(failure)
    try:
        with pytest.raises(MachineError, match="no longer served"):
            daemon._watch(served, loop, failed)
    finally:
        loop.close()
    return said


def test_a_silent_store_is_told_and_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    said = told(monkeypatch, Served(0, 31, 40, 0, 0))
    assert said == ["serving tiny; the store has not answered for 30 s", "serving tiny"]


def test_progress_is_told_as_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = ("serving tiny; 1 of 2", "serving tiny; 1 of 2", "serving tiny; 2 of 2")
    assert told(monkeypatch, Served(0, 0, 0, 0, sentences=sentences)) == [sentences[0], sentences[2]]


@pytest.mark.guarantee("G4")
def test_a_failure_is_never_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    said = told(monkeypatch, Served(0, 31, 0, sentences=("a", "b", "c")), "object a: chunk 1")
    assert said == ["object a: chunk 1"]


def test_memory_is_given_back_at_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    served: Any = Served(*[0.0] * 50)
    loop = Loop()
    kept = signal.getsignal(signal.SIGHUP)
    try:
        loop.catch([signal.SIGHUP, signal.SIGTERM])
        monkeypatch.setattr(daemon, "_LOOK", 0.001)
        os.kill(os.getpid(), signal.SIGHUP)
        served.look = lambda: os.kill(os.getpid(), signal.SIGTERM)
        daemon._watch(served, loop, Failures())
        assert served.given_back == 1
    finally:
        loop.close()
        signal.signal(signal.SIGHUP, kept)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_pings_come_twice_as_often_as_they_must(monkeypatch: pytest.MonkeyPatch) -> None:
    notices, now = list[tuple[float, str]](), [0.0]
    served: Any = Served(*[0.0] * 20)
    monkeypatch.setattr(daemon, "watchdog_interval", lambda: 4.0)
    monkeypatch.setattr(daemon, "notify", lambda state: notices.append((now[0], state)))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Clock:
        caught = frozenset[int]()

        def step(self, timeout: float) -> None:
            now[0] += timeout

    with pytest.raises(MachineError):
        daemon._watch(served, Clock(), Failures())  # type: ignore[arg-type]
    pings = [moment for moment, state in notices if state == "WATCHDOG=1"]
    assert pings[0] <= 4.0
    assert all(later - earlier <= 4.0 for earlier, later in itertools.pairwise(pings))


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize("error", [ValueError("two\nlines"), RecursionError(), KeyboardInterrupt()])
def test_what_nobody_expected_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(daemon, "make_undumpable", lambda: None)
    monkeypatch.setattr(daemon, "read_credential", fail)
    assert daemon.main() == 8
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("strongroom-fs: daemon: unexpected ")
    assert out.err.count("\n") == 1


def test_what_another_mount_hides_is_let_go_with_the_refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hidden:
        gone = False

        def give_up(self) -> None:
            raise MachineError("unmount /m: another lies there")

        def let_go(self) -> None:
            self.gone = True

    left = Hidden()
    assert daemon._failed(VerifyError("manifest: x"), left) == 5  # type: ignore[arg-type]
    assert left.gone
    assert capsys.readouterr().err.splitlines() == [
        "strongroom-fs: unmount /m: another lies there",
        "strongroom-fs: manifest: x",
    ]
