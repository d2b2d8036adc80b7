"""Questions to vendors over HTTPS, asked again while a service is away, with pauses that grow and differ.

Only what a later try may change is asked again: a service that cannot be reached, is busy or is broken. An answer
that is wrong, or that says no, is believed at once.
"""

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from strongroom.errors import ProtocolError, TransportError
from strongroom.host.collateral.item import Answer, Request
from strongroom.host.collateral.services import Service, Services
from strongroom.host.fetch import Fetcher

REQUEST_TIMEOUT: Final = 20.0  # seconds
DEADLINE: Final = 60.0  # seconds after which nothing is begun again
FIRST_PAUSE: Final = 1.0  # seconds
LONGEST_PAUSE: Final = 30.0  # AMD's service wants about ten seconds between two certificates of chips
_BUSY: Final = (408, 425, 429)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Asks the services it was given, and no other."""

    services: Services
    timeout_s: float = REQUEST_TIMEOUT
    deadline_s: float = DEADLINE
    first_pause_s: float = FIRST_PAUSE

    async def ask(self, request: Request) -> Answer:
        """The answer, of status 200. TransportError when the service stayed away, ProtocolError when it says no."""
        service, clock = self.services[request.vendor], asyncio.get_running_loop().time
        end = clock() + self.deadline_s
        for pause in _pauses(self.first_pause_s):
            try:
                return await self._once(service, request)
            except TransportError:
                if clock() + pause > end:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("pauses never end")

    async def _once(self, service: Service, request: Request) -> Answer:
        headers = {"Accept": request.accept}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        method = "GET" if request.body is None else "POST"
        async with Fetcher(service.url, service.pin) as fetcher:
            response = await fetcher.request(
                method,
                request.path,
                body=request.body,
                headers=headers,
                max_bytes=request.max_bytes,
                timeout_s=self.timeout_s,
            )
        if response.status == 200:
            return Answer(response.body, response.headers)
        said = f"{method} {service.url}{request.path}: answer is {response.status}, want 200"
        if response.status in _BUSY or response.status >= 500:
            raise TransportError(said)
        raise ProtocolError(said)


def _pauses(first: float) -> Iterator[float]:
    pause, chance = first, secrets.SystemRandom()
    while True:
        yield pause * chance.uniform(0.5, 1.0)
        pause = min(2 * pause, LONGEST_PAUSE)
