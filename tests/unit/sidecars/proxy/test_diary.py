"""Mirrors sidecars/proxy/diary.py."""

import asyncio
import logging

import pytest

from sidecars.proxy import diary
from sidecars.proxy.diary import Diary


def test_lines_are_written_together_a_moment_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diary, "MOMENT", 0.01)
    caplog.set_level(logging.INFO)

    async def main() -> None:
        kept = Diary()
        kept.note("one")
        kept.note("two")
        assert caplog.messages == []
        await asyncio.sleep(0.1)
        assert caplog.messages == ["one\ntwo"]
        kept.note("three %s")
        kept.write()
        kept.write()
        assert caplog.messages == ["one\ntwo", "three %s"]

    asyncio.run(main())


def test_many_lines_wait_for_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diary, "MOST", 3)
    caplog.set_level(logging.INFO)

    async def main() -> None:
        kept = Diary()
        for _ in range(7):
            kept.note("line")
        assert caplog.messages == ["line\nline\nline"] * 2
        kept.write()

    asyncio.run(main())
