"""Mirrors strongroom/host/life.py."""

import asyncio
import logging
import os
import signal

import pytest

from strongroom.host.life import reporter, running, until_stopped

LOG = logging.getLogger("strongroom.test")


@pytest.mark.guarantee("G14")
def test_a_defect_is_logged_by_kind_and_place_never_by_its_text(caplog: pytest.LogCaptureFixture) -> None:
    loop, report = asyncio.new_event_loop(), reporter(LOG)
    try:
        raise KeyError("correct horse battery staple")
    except KeyError as error:
        report(loop, {"exception": error, "message": "Task exception was never retrieved"})
    report(loop, {"message": "something with a prompt: correct horse"})
    loop.close()
    assert "defect: KeyError at test_life.py:" in caplog.text
    assert "correct" not in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_an_end_without_fault(number: int) -> None:
    async def work() -> int:
        os.kill(os.getpid(), number)
        await asyncio.sleep(10)
        return 1

    assert asyncio.run(until_stopped(work(), LOG)) == 0


def test_work_that_ends_says_how() -> None:
    async def work() -> int:
        return 75

    assert asyncio.run(until_stopped(work(), LOG)) == 75


def test_what_runs_beside_is_over_at_the_end() -> None:
    async def beside() -> asyncio.Task[None]:
        async with running(asyncio.sleep(10)) as task:
            assert not task.done()
        return task

    assert asyncio.run(beside()).cancelled()
