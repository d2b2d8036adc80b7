"""One file of a store, continued where it broke off, tried again while that helps, and never more than it may be.

A file grows as `….partial`. What is there is not asked for again: the rest comes by a range, and If-Range with the ETag
makes sure that it is the rest of the same file. Where a store gives no ETag, the names vouch: an object's is random and
stands for one content only, and a store that breaks this is found out by the tags.
"""

import asyncio
import re
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, Protocol

from strongroom.errors import ProtocolError, TransportError, VerifyError
from strongroom.host.fetch import Stream
from strongroom.host.pull.attempts import FIRST_PAUSE, TRIES, Attempts
from strongroom.host.pull.client import Client, refuse
from strongroom.host.pull.landing import Landing, Partial, strong_etag
from strongroom.host.pull.source import Source

_RANGE: Final = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")
_REREAD: Final = 1 << 20  # bytes


class Count(Protocol):
    def __call__(self, more: int, /) -> None:
        """`more` bytes have come, or gone when negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    name: str
    size: int  # bytes, exactly
    sha256: bytes | None = None


class Download:
    """Takes files from one store to one landing, one after the other."""

    def __init__(
        self,
        client: Client,
        source: Source,
        landing: Landing,
        count: Count,
        *,
        tries: int = TRIES,
        first_pause_s: float = FIRST_PAUSE,
    ) -> None:
        self._client = client
        self._source = source
        self._landing = landing
        self._count = count
        self._tries, self._first_pause_s = tries, first_pause_s
        self.carried = 0  # bytes that came over the wire into files

    async def whole(self, name: str, *, max_bytes: int) -> bytes:
        """A small file, in memory. ProtocolError when it is longer than `max_bytes`."""
        attempts = self._attempts()
        while True:
            try:
                return await self._whole_once(name, max_bytes, attempts)
            except TransportError as error:
                await attempts.pause(error, reached=0)

    async def keep(self, wanted: Wanted) -> None:
        """The whole file on disk, of the wanted size and digest.

        TransportError when the store stayed away; what has come is kept for another time. ProtocolError when it says
        no, or has a file of another size; VerifyError when the file has another digest, and then nothing is kept.
        """
        attempts = self._attempts()
        with self._landing.partial(wanted.name) as partial:
            if partial.length > wanted.size:
                partial.restart(None)
            self._count(partial.length)
            while partial.length < wanted.size:
                try:
                    await self._continue(wanted, partial, attempts)
                except TransportError as error:
                    await attempts.pause(error, reached=partial.length)
            await asyncio.to_thread(_check_digest, wanted, partial, self._source.title)
            await asyncio.to_thread(partial.finish)

    async def _whole_once(self, name: str, max_bytes: int, attempts: Attempts) -> bytes:
        what = f"{self._source.title}: {name}"
        for _ in range(2):
            ask = self._source.ask(name)
            async with self._client.get(ask, max_bytes=max_bytes) as answer:
                if answer.status == 200:
                    return await answer.read(max_bytes)
                if answer.status != 401 or not await self._source.admit(self._client, ask, answer, attempts):
                    raise await refuse(answer, what, attempts)
        raise ProtocolError(f"{what}: answer is 401 once more, want credentials that may read it")

    async def _continue(self, wanted: Wanted, partial: Partial, attempts: Attempts) -> None:
        what = f"{self._source.title}: {wanted.name}"
        for _ in range(2):
            ask = self._source.ask(wanted.name)
            if partial.length:
                ask = replace(ask, headers={**ask.headers, **_range(partial)})
            async with self._client.get(ask, max_bytes=wanted.size) as answer:
                if answer.status == 401 and await self._source.admit(self._client, ask, answer, attempts):
                    continue
                await self._take(answer, wanted, partial, what, attempts)
                return
        raise ProtocolError(f"{what}: answer is 401 once more, want credentials that may read it")

    async def _take(
        self, answer: Stream, wanted: Wanted, partial: Partial, what: str, attempts: Attempts
    ) -> None:
        etag = strong_etag(answer.headers.get("etag", ""))
        if answer.status == 200:
            if answer.length not in (None, wanted.size):
                raise ProtocolError(f"{what}: is {answer.length} bytes, want {wanted.size}")
            end = wanted.size
            self._restart(partial, etag)
        elif answer.status == 206 and partial.length:
            end = _end_of_range(answer, wanted, partial, what)
            if partial.etag is not None and etag not in (None, partial.etag):
                self._restart(partial, None)
                raise TransportError(f"{what}: changed while it was read")
        elif answer.status == 416:
            raise ProtocolError(f"{what}: has no byte {partial.length}, want {wanted.size} bytes")
        else:
            raise await refuse(answer, what, attempts)
        while piece := await answer.piece():
            if partial.length + len(piece) > end:
                raise ProtocolError(f"{what}: sends more than byte {end}, want {wanted.size} bytes")
            partial.write(piece)
            self._count(len(piece))
            self.carried += len(piece)
        if partial.length < end:
            raise TransportError(f"{what}: ended at byte {partial.length}, want {wanted.size} bytes")

    def _restart(self, partial: Partial, etag: str | None) -> None:
        self._count(-partial.length)
        partial.restart(etag)

    def _attempts(self) -> Attempts:
        return Attempts(tries=self._tries, first_pause_s=self._first_pause_s)


def _range(partial: Partial) -> dict[str, str]:
    headers = {"Range": f"bytes={partial.length}-"}
    return headers if partial.etag is None else {**headers, "If-Range": partial.etag}


def _end_of_range(answer: Stream, wanted: Wanted, partial: Partial, what: str) -> int:
    text = answer.headers.get("content-range", "")
    match = _RANGE.fullmatch(text)
    first, last, size = map(int, match.groups()) if match else (-1, -1, -1)
    if size != wanted.size and match:
        raise ProtocolError(f"{what}: is {size} bytes, want {wanted.size}")
    if first != partial.length or not first <= last < size or answer.length not in (None, last + 1 - first):
        raise ProtocolError(f"{what}: content-range is {text[:80]!a}, want bytes from {partial.length} on")
    return last + 1


def _check_digest(wanted: Wanted, partial: Partial, title: str) -> None:
    if wanted.sha256 is None:
        return
    digest, at = sha256(), 0
    while piece := partial.read(at, _REREAD):
        digest.update(piece)
        at += len(piece)
    if digest.digest() != wanted.sha256:
        partial.discard()
        raise VerifyError(
            f"{title}: {wanted.name}: sha256 is {digest.hexdigest()}, want {wanted.sha256.hex()}"
        )
