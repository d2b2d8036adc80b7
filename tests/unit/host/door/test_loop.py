"""Mirrors strongroom/host/door/loop.py."""

import asyncio
import sys

import pytest

from strongroom.host.door.loop import run


async def _kind() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def test_uvloop_runs_it_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvloop")
    monkeypatch.delenv("UV_USE_IO_URING", raising=False)
    assert run(_kind()) == "uvloop"


def test_asyncio_runs_it_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run(_kind()) == "asyncio"
