"""A key from the broker for this machine: the exchange of strongroom.broker over HTTPS, within one deadline.

A broker that cannot be reached is asked again, each time in a new handshake with a new key pair, after a pause that
grows and is never the same on two machines. A broker that is not the pinned one, or that says no, is believed at once.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.broker.exchange import Collect, Done, Exchange, Reply, Send
from strongroom.broker.messages import COOKIE
from strongroom.broker.resource import ResourceURI, VolumeKey
from strongroom.errors import TransportError
from strongroom.host.fetch import Fetcher, Pin, checked_url

CollectEvidence = Callable[[bytes], Awaitable[tuple[bytes, bytes]]]
"""report_data (64 bytes) to the raw report and its certificate table (may be empty)."""

REQUEST_TIMEOUT: Final = 20.0  # seconds
_FIRST_PAUSE: Final = 0.25  # seconds
_LONGEST_PAUSE: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What was asked for, and who gave it."""

    resource: ResourceURI
    broker_spki_sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedSecret(Released):
    """The resource as it is."""

    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedKey(Released):
    """The key of a sealed model."""

    volume: VolumeKey = field(repr=False)


async def release_key(
    *,
    url: str,
    resource: str,
    collect: CollectEvidence,
    deadline_s: float,
    ca_pem: str | None = None,
    spki_sha256: bytes | None = None,
    request_timeout_s: float = REQUEST_TIMEOUT,
) -> ReleasedKey:
    """The key of a sealed model at `resource`: as release_secret(), and FormatError when what came is none."""
    released = await release_secret(
        url=url,
        resource=resource,
        collect=collect,
        deadline_s=deadline_s,
        ca_pem=ca_pem,
        spki_sha256=spki_sha256,
        request_timeout_s=request_timeout_s,
    )
    volume = VolumeKey.parse(released.secret)
    return ReleasedKey(
        volume=volume, resource=released.resource, broker_spki_sha256=released.broker_spki_sha256
    )


async def release_secret(
    *,
    url: str,
    resource: str,
    collect: CollectEvidence,
    deadline_s: float,
    ca_pem: str | None = None,
    spki_sha256: bytes | None = None,
    request_timeout_s: float = REQUEST_TIMEOUT,
) -> ReleasedSecret:
    """The bytes at `resource` (kbs:///...), from the broker at `url` (https) pinned by exactly one of the two pins.

    TransportError when `deadline_s` seconds were not enough, naming the last cause. VerifyError when the peer is not
    the pinned one or did not find our evidence genuine, PolicyError with the broker's reasons when it refuses,
    ProtocolError when it speaks another version: all at once.
    """
    release = _Release(
        checked_url(url), Pin(ca_pem=ca_pem, spki_sha256=spki_sha256), ResourceURI.parse(resource)
    )
    scope = asyncio.timeout(deadline_s)
    try:
        async with scope:
            return await release.until_answered(collect, request_timeout_s)
    except TimeoutError:
        if not scope.expired():
            raise
        raise TransportError(f"{release.url}: no key within {deadline_s:g} s, last {release.doing}") from None


class _Release:
    def __init__(self, url: str, pin: Pin, resource: ResourceURI) -> None:
        self.url = url
        self.doing = "nothing was tried"
        self._pin = pin
        self._resource = resource

    async def until_answered(self, collect: CollectEvidence, timeout_s: float) -> ReleasedSecret:
        pauses = _pauses()
        while True:
            try:
                return await self._handshake(collect, timeout_s)
            except TransportError as error:
                self.doing = str(error)
            await asyncio.sleep(next(pauses))

    async def _handshake(self, collect: CollectEvidence, timeout_s: float) -> ReleasedSecret:
        exchange = Exchange(self._resource, ec.generate_private_key(ec.SECP256R1()))
        async with Fetcher(self.url, self._pin) as fetcher:
            spki_sha256 = b""
            action: Send | Collect | Done = exchange.start()
            while True:
                match action:
                    case Send():
                        self.doing = f"waiting for the answer to {action.asked}"
                        reply, spki_sha256 = await _send(fetcher, action, timeout_s)
                        action = exchange.receive(reply)
                    case Collect(report_data):
                        self.doing = "collecting evidence"
                        action = exchange.evidence(*await collect(report_data))
                    case Done(secret):
                        return ReleasedSecret(
                            secret=secret, resource=self._resource, broker_spki_sha256=spki_sha256
                        )


async def _send(fetcher: Fetcher, send: Send, timeout_s: float) -> tuple[Reply, bytes]:
    response = await fetcher.request(
        send.method,
        send.path,
        body=send.body or None,
        cookies=None if send.cookie is None else {COOKIE: send.cookie},
        max_bytes=send.max_bytes,
        timeout_s=timeout_s,
    )
    reply = Reply(response.status, response.body, response.cookies.get(COOKIE))
    return reply, response.peer_spki_sha256


def _pauses() -> Iterator[float]:
    pause, chance = _FIRST_PAUSE, secrets.SystemRandom()
    while True:
        yield pause * chance.uniform(0.5, 1.0)
        pause = min(2 * pause, _LONGEST_PAUSE)
