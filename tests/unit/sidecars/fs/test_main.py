"""Mirrors sidecars/fs/__main__.py: what the status says, and never says again."""

from queue import SimpleQueue
from typing import Any

import pytest

from sidecars.fs import __main__ as daemon
from strongroom.errors import MachineError


class Server:
    """Lives for as many looks as it has waits to show."""

    def __init__(self, *waits: float) -> None:
        self._waits = list(waits)
        self.longest_wait = 0.0

    @property
    def alive(self) -> bool:
        if self._waits:
            self.longest_wait = self._waits.pop(0)
            return True
        return False


def told(monkeypatch: pytest.MonkeyPatch, server: Any, *failures: str) -> list[str]:
    queue, said = SimpleQueue[str](), list[str]()
    for failure in failures:
        queue.put(failure)
    monkeypatch.setattr(daemon, "_LOOK", 0.001)
    monkeypatch.setattr(daemon, "status", said.append)
    with pytest.raises(MachineError, match="no longer served"):
        daemon._watch(server, queue, "serving tiny")
    return said


def test_a_silent_store_is_told_and_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    said = told(monkeypatch, Server(0, 31, 40, 0, 0))
    assert said == ["serving tiny; the store has not answered for 30 s", "serving tiny"]


@pytest.mark.guarantee("G4")
def test_a_failure_is_never_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, Server(0, 31, 0), "object a: chunk 1") == ["object a: chunk 1"]
