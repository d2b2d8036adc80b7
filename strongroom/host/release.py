"""Secrets from the broker for this machine: the exchange of strongroom.broker over HTTPS.

One handshake at a time, and its token is kept: whoever asks meanwhile waits for it, and before it ends a new one is
made in the background. A broker that cannot be reached is asked again, after a pause that grows and is never the same
on two machines, or that it asked for itself. A broker that is not the pinned one, or that says no, is believed at once;
one that has forgotten us gets one new handshake.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from strongroom.broker.dialect import CURRENT, Dialect
from strongroom.broker.errors import SessionLostError
from strongroom.broker.exchange import Admission, Collect, Exchange, Reply, Send
from strongroom.broker.messages import COOKIE, HASH
from strongroom.broker.resource import ResourceURI, VolumeKey
from strongroom.errors import StrongroomError, TransportError
from strongroom.evidence.initdata import InitData
from strongroom.evidence.kbs import CompositeEvidence, KBSTee
from strongroom.host.fetch import Fetcher, Pin, checked_url
from strongroom.host.secret import Secret
from strongroom.keys.jwk import PrivateKey

CollectEvidence = Callable[[Collect], Awaitable[CompositeEvidence]]
"""What the broker wants evidence over, to that evidence."""

KeyKind = Literal["ECDH-ES+A256KW-P256", "ECDH-ES+A256KW-P521", "RSA-OAEP-256"]

REQUEST_TIMEOUT: Final = 20.0  # seconds
RENEW_AT: Final = 0.8  # of a token's life
DEFAULT_LIFE: Final = 240.0  # seconds, of a token that does not say
_SHORTEST_LIFE: Final = 1.0  # seconds between two renewals
_LONGEST_LIFE: Final = 3600.0  # seconds that a token is kept, whatever it says
_FIRST_PAUSE: Final = 0.25  # seconds
_LONGEST_PAUSE: Final = 8.0
_LONGEST_ASKED: Final = 60.0  # seconds of a Retry-After that we wait
_RSA_BITS: Final = 2048
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaking:
    """How to speak to one broker. The defaults are ours; other makers' brokers differ."""

    dialect: Dialect = CURRENT
    hashes: tuple[str, ...] = (HASH,)  # that it may select, see `Exchange`
    key: KeyKind = "ECDH-ES+A256KW-P256"
    init_data: InitData | None = None  # what the launcher committed to, sent where there is some
    request_timeout_s: float = REQUEST_TIMEOUT


@dataclass(frozen=True, slots=True)
class _Held:
    admission: Admission
    renew_at: float  # seconds of the loop's clock
    until: float


class BrokerSession:
    """One broker as seen from one machine. A context manager: leaving it forgets the token and its key.

    `collect` is asked once for every handshake. All of it belongs to one event loop.
    """

    def __init__(
        self,
        *,
        url: str,
        pin: Pin,
        tee: KBSTee,
        collect: CollectEvidence,
        deadline_s: float,
        speaking: Speaking = Speaking(),
    ) -> None:
        self.url = checked_url(url)
        self.broker_spki_sha256 = b""  # of the peer that last answered
        self.handshakes = 0  # begun so far
        self._pin, self._tee, self._collect = pin, tee, collect
        self._deadline_s, self._speaking = deadline_s, speaking
        self._held: _Held | None = None
        self._flight: asyncio.Task[_Held] | None = None  # the one handshake in progress
        self._renewal: asyncio.Task[None] | None = None
        self._doing = "nothing was tried"
        self._pause_asked = 0.0

    async def __aenter__(self) -> Self:
        self._fetcher = Fetcher(self.url, self._pin)
        await self._fetcher.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in (self._renewal, self._flight):
            if task is not None and not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        self._renewal = self._flight = self._held = None
        await self._fetcher.__aexit__(kind, error, trace)

    async def get(
        self, resource: ResourceURI, *, version: int | None = None, deadline_s: float | None = None
    ) -> Secret:
        """The secret at `resource`, or one version of it, within the session's deadline or a nearer one.

        TransportError when the deadline was not enough, naming the last cause. VerifyError when the peer is not the
        pinned one or did not find our evidence genuine, PolicyError with the broker's reasons when it refuses,
        ProtocolError when it speaks another version: all at once.
        """
        lost = 0

        async def attempt() -> Secret:
            nonlocal lost
            held = await self._admitted()
            send = held.admission.ask(resource, version=version)
            reply = await self._send(send)
            try:
                return Secret(held.admission.open(send, reply))
            except SessionLostError:
                self._forget(held)
                lost += 1
                if lost > 1:
                    raise
                return await attempt()

        return await self._until_answered(attempt, f"no answer for {resource}", deadline_s)

    async def admission(self, *, deadline_s: float | None = None) -> Admission:
        """A token of this broker and the key it speaks for, good for some time yet. Raises as `get` does."""
        return (await self._until_answered(self._admitted, "no token", deadline_s)).admission

    async def _until_answered(
        self, attempt: Callable[[], Awaitable[T]], failed: str, deadline_s: float | None
    ) -> T:
        deadline = self._deadline_s if deadline_s is None else min(deadline_s, self._deadline_s)
        scope = asyncio.timeout(deadline)
        try:
            async with scope:
                for pause in _pauses():
                    try:
                        return await attempt()
                    except TransportError as error:
                        self._doing = str(error)
                    await self._rest(pause)
        except TimeoutError:
            if not scope.expired():
                raise
        raise TransportError(f"{self.url}: {failed} within {deadline:g} s, last {self._doing}")

    async def _admitted(self) -> _Held:
        if self._held is not None and _clock() < self._held.until:
            return self._held
        return await self._fly()

    async def _fly(self) -> _Held:
        """A new handshake, or the one in progress: it goes on when one of those who wait for it gives up."""
        if self._flight is None or self._flight.done():
            self._flight = asyncio.get_running_loop().create_task(self._handshake())
            self._flight.add_done_callback(_heard)
        held = self._held = await asyncio.shield(self._flight)
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.get_running_loop().create_task(self._renew())
        return held

    def _forget(self, held: _Held) -> None:
        if self._held is held:
            self._held = None

    async def _renew(self) -> None:
        """Renews ahead, until the broker says no: then the next question finds out why."""
        pauses = _pauses()
        while (held := self._held) is not None:
            await asyncio.sleep(max(held.renew_at - _clock(), _SHORTEST_LIFE))
            if self._held is not held:
                continue  # somebody made a new one meanwhile
            try:
                await self._fly()
                pauses = _pauses()
            except TransportError:
                if _clock() >= held.until:
                    return
                await self._rest(next(pauses))
            except StrongroomError:
                return

    async def _rest(self, pause: float) -> None:
        await asyncio.sleep(max(pause, self._pause_asked))

    async def _handshake(self) -> _Held:
        self.handshakes += 1
        speaking, begun = self._speaking, _clock()
        exchange = Exchange(
            self._tee,
            _new_key(speaking.key),
            hashes=speaking.hashes,
            dialect=speaking.dialect,
            init_data=speaking.init_data,
        )
        asked = exchange.receive(await self._send(exchange.start()))
        if isinstance(asked, Collect):
            self._doing = "collecting evidence"
            asked = exchange.receive(await self._send(exchange.evidence(await self._collect(asked))))
        if isinstance(asked, Collect):
            raise TransportError("key exchange: challenged twice, want a token")
        life = DEFAULT_LIFE
        if asked.lifetime is not None and asked.lifetime.seconds is not None:
            life = min(float(asked.lifetime.seconds), _LONGEST_LIFE)
        return _Held(asked, begun + RENEW_AT * life, begun + life)

    async def _send(self, send: Send) -> Reply:
        self._doing, self._pause_asked = f"waiting for the answer to {send.asked}", 0.0
        response = await self._fetcher.request(
            send.method,
            send.path,
            body=send.body or None,
            cookies=None if send.cookie is None else {COOKIE: send.cookie},
            max_bytes=send.max_bytes,
            timeout_s=self._speaking.request_timeout_s,
        )
        self.broker_spki_sha256 = response.peer_spki_sha256
        self._pause_asked = _asked_for(response.headers.get("retry-after", ""))
        return Reply(response.status, response.body, response.cookies.get(COOKIE))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedKey:
    """A key, and who gave it."""

    volume: VolumeKey = field(repr=False)
    resource: ResourceURI
    broker_spki_sha256: bytes


async def release_key(
    *,
    url: str,
    resource: str,
    tee: KBSTee,
    collect: CollectEvidence,
    deadline_s: float,
    ca_pem: str | None = None,
    spki_sha256: bytes | None = None,
    speaking: Speaking = Speaking(),
) -> ReleasedKey:
    """The key at `resource` (kbs:///...), from the broker at `url` (https) pinned by exactly one of the two pins.

    Raises as `BrokerSession.get` does, and FormatError when what the broker gave is not a volume key.
    """
    pin, uri = Pin(ca_pem=ca_pem, spki_sha256=spki_sha256), ResourceURI.parse(resource)
    async with BrokerSession(
        url=url, pin=pin, tee=tee, collect=collect, deadline_s=deadline_s, speaking=speaking
    ) as session:
        with await session.get(uri) as secret:
            volume = VolumeKey.parse(secret.reveal())
        return ReleasedKey(volume=volume, resource=uri, broker_spki_sha256=session.broker_spki_sha256)


def _new_key(kind: KeyKind) -> PrivateKey:
    if kind == "RSA-OAEP-256":
        return rsa.generate_private_key(65537, _RSA_BITS)
    return ec.generate_private_key(ec.SECP521R1() if kind.endswith("P521") else ec.SECP256R1())


def _asked_for(header: str) -> float:
    """Seconds of a Retry-After; a date, or anything else, asks for nothing."""
    if not header.isascii() or not header.isdigit() or len(header) > 6:
        return 0.0
    return min(float(header), _LONGEST_ASKED)


def _heard(flight: asyncio.Task[_Held]) -> None:
    if not flight.cancelled():
        flight.exception()  # those who waited have it; where all gave up, nobody misses it


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _pauses() -> Iterator[float]:
    pause, chance = _FIRST_PAUSE, secrets.SystemRandom()
    while True:
        yield pause * chance.uniform(0.5, 1.0)
        pause = min(2 * pause, _LONGEST_PAUSE)
