"""The one session that this machine has with its key broker: whoever needs a resource, at any time, gets it over this.

It is made at the first question and kept while anybody may ask: one handshake serves a whole boot and the programs
after it, and what is renewed is renewed once for all. The broker therefore knows of the event log what stood in it at
the last handshake. Once nobody is left to ask, token and key are forgotten.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Self

from guest.attester import Attester
from guest.config import Broker
from strongroom.broker.dialect import dialect_of
from strongroom.errors import ConfigError, MachineError
from strongroom.host.fetch import Pin
from strongroom.host.release import BrokerSession, Speaking


class KeyBroker:
    """A context manager; leaving it ends the session, and no other is made."""

    def __init__(self, attester: Attester) -> None:
        self._attester = attester
        self._broker: Broker | None = None
        self._session: BrokerSession | None = None
        self._opening, self._stack = asyncio.Lock(), AsyncExitStack()
        self._ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended = True
        await self.rest()

    async def session(self, broker: Broker | None) -> BrokerSession:
        """The session with the broker that userdata names, ready to be asked. ConfigError where they name none."""
        if broker is None:
            raise ConfigError("keys: a resource is named and no broker, want both")
        async with self._opening:
            if self._ended:
                raise MachineError("key broker: this machine is going down")
            if self._session is None:
                self._session = await self._stack.enter_async_context(await self._made(broker))
                self._broker = broker
            elif broker != self._broker:
                raise MachineError("key broker: another one than this boot began with, want that")
            return self._session

    async def rest(self) -> None:
        """Forget token and key, until somebody asks again."""
        async with self._opening:
            self._session = None
            await self._stack.aclose()

    async def _made(self, broker: Broker) -> BrokerSession:
        pinned = None if broker.spki_sha256 is None else bytes.fromhex(broker.spki_sha256)
        return BrokerSession(
            url=broker.url,
            pin=Pin(ca_pem=broker.ca_pem, spki_sha256=pinned),
            tee=await self._attester.broker_tee(),
            collect=self._attester.for_broker,
            deadline_s=broker.deadline_s,
            speaking=speaking(broker),
        )


def speaking(broker: Broker) -> Speaking:
    """How this broker is spoken to."""
    return Speaking(dialect=dialect_of(broker.protocol), hashes=(broker.hash,), init_data=broker.init_data)
