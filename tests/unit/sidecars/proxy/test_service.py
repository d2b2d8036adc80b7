"""Mirrors sidecars/proxy/service.py."""

import asyncio
import os

import pytest

from sidecars.proxy.engine.connection import Process
from sidecars.proxy.engine.pool import UnreachableError
from sidecars.proxy.receipts.book import Book
from sidecars.proxy.routes import ASKED, Route
from sidecars.proxy.service import Service
from tests.fakes import book as fake

PLAN = fake.plan()


def made() -> Service:
    return Service(PLAN, tls=fake.tls(), book=Book(PLAN, fake.KEYS, fake.identity(PLAN)))


def test_there_is_no_engine_before_its_canary_and_after_the_end() -> None:
    async def main() -> None:
        service = made()
        assert (service.state, service.serves(Route.CHAT), service.serves(Route.MODELS)) == (
            "closed",
            False,
            True,
        )
        with pytest.raises(UnreachableError, match="canary"):
            service.pool()
        service.open(Process(os.getpid(), os.getuid()), served=ASKED, max_model_len=1)
        assert (service.state, service.serves(Route.CHAT)) == ("open", True)
        service.pool()
        service.close()
        with pytest.raises(UnreachableError):
            service.pool()

    asyncio.run(main())
