"""Mirrors host/brokerage/recorder.py."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from strongroom.broker.audit import Audit
from strongroom.errors import MachineError, VerifyError
from strongroom.host.brokerage import ledger
from strongroom.host.brokerage.database import FILE
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

    def counted(audits: Sequence[Audit]) -> list[bytes]:
        sizes.append(len(audits))
        return real(audits)

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
    monkeypatch.setattr(made, "record", lambda audits: 1 / 0)

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
