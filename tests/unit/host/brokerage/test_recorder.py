"""Mirrors host/brokerage/recorder.py."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from strongroom.broker.audit import Audit
from strongroom.errors import MachineError, VerifyError
from strongroom.host.brokerage import ledger
from strongroom.host.brokerage.database import FILE, LOG_BYTES
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.recorder import Recorder
from tests.fakes.house import decision, house


@pytest.fixture
def made(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "b") as one:
        yield one


def test_whoever_waited_finds_the_line(made: House) -> None:
    echoed: list[str] = []

    async def many() -> None:
        recorder = Recorder(made, echoed.append)

        async def one(n: int) -> None:
            await recorder.record(decision(f"policy {n}"))
            kept = [json.loads(line)["rule"] for line in ledger.read(made.database)]
            assert f"policy {n}" in kept

        await asyncio.gather(*(one(n) for n in range(200)))
        recorder.close()

    asyncio.run(many())
    assert [line.encode() for line in echoed] == ledger.read(made.database)[1:]
    assert made.verify_audit().number == 201


def test_what_waits_together_is_one_commit(made: House, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = made.record

    def counted(audits: Sequence[Audit], *, wait: bool = True) -> list[bytes]:
        sizes.append(len(audits))
        return real(audits, wait=wait)

    monkeypatch.setattr(made, "record", counted)

    async def many() -> None:
        recorder = Recorder(made, lambda line: None)
        await asyncio.gather(*(recorder.record(decision()) for _ in range(300)))
        recorder.close()

    asyncio.run(many())
    assert sum(sizes) == 300 and len(sizes) < 100


def test_a_line_that_cannot_be_kept_is_an_error(made: House) -> None:
    with sqlite3.connect(made.directory / FILE) as connection:
        connection.execute("DELETE FROM audit")

    async def one() -> None:
        recorder = Recorder(made, lambda line: None)
        try:
            for _ in range(2):  # the thread lives on
                with pytest.raises(VerifyError, match="audit: ends at 0"):
                    await recorder.record(decision())
        finally:
            recorder.close()

    asyncio.run(one())


def test_a_defect_is_an_error_too(made: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "record", lambda audits, wait: 1 / 0)

    async def one() -> None:
        recorder = Recorder(made, lambda line: None)
        try:
            with pytest.raises(MachineError, match="audit: ZeroDivisionError"):
                await recorder.record(decision())
        finally:
            recorder.close()

    asyncio.run(one())


def test_a_journal_that_is_gone_holds_nobody_up(made: House) -> None:
    def gone(_line: str) -> None:
        raise BrokenPipeError

    async def some() -> None:
        recorder = Recorder(made, gone)
        for _ in range(3):
            async with asyncio.timeout(20):
                await recorder.record(decision())
        recorder.told((b"line",))
        recorder.close()

    asyncio.run(some())
    assert made.verify_audit().number == 4


def warmed(made: House) -> Recorder:
    """One that has seen how quick the disk is."""
    recorder = Recorder(made, lambda line: None)
    recorder._pace = 0.0
    return recorder


def test_a_line_that_nobody_waits_beside_changes_no_thread(
    made: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    real = made.record

    def seen(audits: Sequence[Audit], *, wait: bool = True) -> list[bytes]:
        threads.append(threading.current_thread().name)
        return real(audits, wait=wait)

    monkeypatch.setattr(made, "record", seen)

    async def some() -> None:
        recorder = warmed(made)
        await recorder.record(decision("policy at once"))
        assert json.loads(ledger.read(made.database)[-1])["rule"] == "policy at once"
        recorder._pace = 1.0  # the disk became slow
        await recorder.record(decision())
        await asyncio.to_thread(recorder.keep, decision())
        recorder.close()

    asyncio.run(some())
    assert threads == ["MainThread", "audit", "audit"]
    assert made.verify_audit().number == 4


@pytest.mark.parametrize("other", ["process", "thread"])
def test_the_loop_waits_for_nobody_who_writes(made: House, other: str) -> None:
    """Another one's transaction holds up the line, and not the loop."""

    async def some() -> None:
        recorder = warmed(made)
        with ExitStack() as stack:
            if other == "thread":
                stack.enter_context(made.database.transaction())
            else:
                connection = stack.enter_context(closing(sqlite3.connect(made.directory / FILE)))
                connection.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(recorder.record(decision()))
            await asyncio.sleep(0)  # it has begun, and we are here
            assert not waiting.done()
        await waiting
        recorder.close()

    asyncio.run(some())
    assert made.verify_audit().number == 2


def test_everything_kept_is_told_to_the_journal(made: House) -> None:
    echoed: list[str] = []

    async def many() -> None:
        recorder = Recorder(made, echoed.append)
        for n in range(50):
            recorder._pace = 0.0 if n % 3 else 1.0
            await recorder.record(decision(f"policy {n}"))
        recorder.close()

    asyncio.run(many())
    assert [line.encode() for line in echoed] == ledger.read(made.database)[1:]


def test_the_log_of_commits_begins_anew_between_answers(made: House) -> None:
    made.record([decision()])
    made.database.write_out()
    log = Path(f"{made.directory / FILE}-wal")
    whole = log.stat().st_size

    async def many() -> None:
        recorder = warmed(made)
        for _ in range(1200):
            await recorder.record(decision())
        recorder.close()

    asyncio.run(many())
    assert log.stat().st_size == whole == LOG_BYTES
    assert made.verify_audit().number == 1202
