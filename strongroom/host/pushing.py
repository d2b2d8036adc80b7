"""A model pushed into a guest: the guest proves itself first, then takes what it does not have, until it has accepted.

    PushTree.of     what lies in a directory, every file hashed, as a manifest
    push            connection after connection until the guest says "accepted"

Whatever breaks a connection is tried again, each time with everything verified anew; whatever the guest or the
evidence says against it ends the push at once.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.errors import (
    ConfigError,
    FormatError,
    MachineError,
    PolicyError,
    ProtocolError,
    StrongroomError,
    TransportError,
)
from strongroom.evidence.eventlog import EventLog
from strongroom.host.attested import AttestedConnection
from strongroom.host.http1 import Limits, Response
from strongroom.host.sealed.digests import digests
from strongroom.host.sealed.plain import changed, open_plain, read_at, scan, stamp
from strongroom.push.answers import (
    CONTENT_PATH,
    FINISH_PATH,
    MANIFEST_PATH,
    MAX_ANSWER,
    MAX_RANGE,
    Accepted,
    Missing,
    parse_answer,
)
from strongroom.push.content import Content, Span
from strongroom.push.manifest import PlainEntry, PlainFile, PushManifest
from strongroom.push.offer import EXPORTER_LABEL, Offer, provider_name, spki_of
from strongroom.sealed.manifest import Entry, InlineFile, SealedFile
from strongroom.wire.canonical import parse_json
from strongroom.wire.line import sentence

TRIES: Final = 8  # in a row without one new byte
FIRST_PAUSE: Final = 0.5  # seconds
LONGEST_PAUSE: Final = 30.0
FIRST_RANGE: Final = 1 << 20  # bytes; doubled as long as a range takes less than BRISK
BRISK: Final = 1.0  # seconds
_TAKING: Final = 120.0  # seconds a guest may take to put a range on its disk
_SEALING: Final = 1800.0  # seconds a guest may take to commit a tree
_REPEATED: Final = 300  # characters of a guest's sentence that we repeat
_CHANCE: Final = secrets.SystemRandom()

Connect = Callable[[], AttestedConnection]
Begin = Callable[[str, int], Callable[[int], None]]  # what is done to how many bytes, from now on


@dataclass(frozen=True, slots=True)
class PushTree:
    """A directory and its manifest."""

    source: Path
    manifest: PushManifest

    @classmethod
    def of(
        cls, source: Path, *, name: str, epoch: int, dereference: bool = False, begin: Begin | None = None
    ) -> Self:
        """What lies in `source`, every file read once for its digest. ConfigError for a tree that cannot be sealed."""
        try:
            entries = scan(source, dereference=dereference, entropy=secrets.token_bytes)
            large = [entry for entry in entries if isinstance(entry, SealedFile)]
            show = (begin or _silent)("hashing", sum(file.size for file in large))
            found = digests(source, large, show)
            plain = tuple(_plain(entry, found) for entry in entries)
            return cls(source, PushManifest(name=name, epoch=epoch, entries=plain))
        except FormatError as error:
            raise ConfigError(f"{source}: {error}") from error

    @property
    def content(self) -> Content:
        return Content([file.size for file in self.manifest.files])


def push(
    connect: Connect,
    tree: PushTree,
    key: Ed25519PrivateKey,
    *,
    begin: Begin | None = None,
    tries: int = TRIES,
    pause: float = FIRST_PAUSE,
) -> Accepted:
    """Push the tree; the result is what the guest says that it accepted.

    `connect` opens a verified connection, anew after each failure of transport. PolicyError when the guest waits for no
    push of ours or refuses what it gets, TransportError after `tries` connections in a row without a new byte.
    """
    effort, reached, left, wait = _Push(tree, key, begin or _silent), 0, tries, pause
    while True:
        try:
            with connect() as connection:
                return effort.over(connection)
        except TransportError:
            if effort.reached > reached:
                reached, left, wait = effort.reached, tries, pause
            left -= 1
            if left <= 0:
                raise
        time.sleep(wait * _CHANCE.uniform(0.5, 1.0))
        wait = min(2 * wait, LONGEST_PAUSE)


def check_waiting(events: EventLog | None, *, name: str, provider: bytes) -> None:
    """PolicyError unless a guest with this event log waits for a push of this model by this provider (DER SPKI).

    The log is part of the evidence: a guest that serves by now, or that would take models from others alone, is found
    out before anything is sent.
    """
    if events is None or (payload := events.find("push")) is None:
        raise PolicyError("guest: it waits for no push")
    if events.find("model") is not None or events.find("boot-done") is not None:
        raise PolicyError("guest: it has its model already, want one that waits for a push")
    value = parse_json(payload, "event push")
    match value:
        case {"name": str(wanted), "providers": list(providers)}:
            pass
        case _:
            raise FormatError("event push: want an object with name and providers")
    if wanted != name:
        raise PolicyError(f"guest: it waits for model {wanted!r}, want {name!r}")
    if provider_name(provider) not in providers:
        raise PolicyError(f"guest: it takes no model from key {provider_name(provider)}")


class _Push:
    """One push over as many connections as it takes. `reached` is the most bytes a guest has had so far."""

    def __init__(self, tree: PushTree, key: Ed25519PrivateKey, begin: Begin) -> None:
        self.reached = 0
        self._tree, self._key = tree, key
        self._packed, self._digest = tree.manifest.packed, tree.manifest.digest
        self._content = tree.content
        self._begin = begin
        self._show: Callable[[int], None] | None = None
        self._length = FIRST_RANGE

    def over(self, connection: AttestedConnection) -> Accepted:
        provider = spki_of(self._key.public_key())
        events = connection.examination.channel.claims.events
        check_waiting(events, name=self._tree.manifest.name, provider=provider)
        exporter = connection.exporter(EXPORTER_LABEL, self._digest)
        offer = Offer.sign(self._key, manifest_sha256=self._digest, exporter=exporter)
        headers = {"authorization": offer.header}
        answer = self._ask(connection, "PUT", MANIFEST_PATH, headers, self._packed, _SEALING)
        if isinstance(answer, Missing):
            self._send(connection, answer.spans)
            answer = self._ask(connection, "POST", FINISH_PATH, None, b"", _SEALING)
        if not isinstance(answer, Accepted):
            raise ProtocolError("guest: answered with a number, want what it accepted")
        self._check(answer, provider)
        return answer

    def _send(self, connection: AttestedConnection, spans: tuple[Span, ...]) -> None:
        if spans and spans[-1].end > self._content.size:
            raise ProtocolError("guest: wants bytes that are not there")
        left = sum(map(len, spans))
        if self._show is None:
            self._show = self._begin("pushing", self._content.size)
        with closing(_Bytes(self._tree, self._content)) as source:
            for span in spans:
                at = span.start
                while at < span.end:
                    begun = time.monotonic()
                    piece = source.read(Span(at, min(at + self._length, span.end)))
                    answer = self._ask(connection, "PUT", f"{CONTENT_PATH}?from={at}", None, piece, _TAKING)
                    at, left = at + len(piece), left - len(piece)
                    if answer != (at if at < span.end else _after(spans, span, self._content.size)):
                        raise ProtocolError("guest: it lost count of the bytes")
                    self.reached = max(self.reached, self._content.size - left)
                    self._show(self._content.size - left)
                    if time.monotonic() - begun < BRISK:
                        self._length = min(2 * self._length, MAX_RANGE)

    def _ask(
        self,
        connection: AttestedConnection,
        method: str,
        path: str,
        headers: dict[str, str] | None,
        body: bytes,
        silence: float,
    ) -> Missing | Accepted | int:
        limits = Limits(silence=silence, body=MAX_ANSWER)
        response = connection.request(method, path, headers, body, limits)
        if response.status != 200:
            raise _refusal(response)
        return parse_answer(response.read())

    def _check(self, accepted: Accepted, provider: bytes) -> None:
        manifest = self._tree.manifest
        if (accepted.name, accepted.epoch) != (manifest.name, manifest.epoch):
            raise ProtocolError("guest: accepted another name or epoch")
        if accepted.manifest_sha256 != self._digest:
            raise ProtocolError("guest: accepted another manifest")
        if accepted.provider_sha256.hex() != provider_name(provider):
            raise ProtocolError("guest: accepted it from another provider")


class _Bytes:
    """The content of a tree, read by spans; a file that is not as it was hashed is a MachineError."""

    def __init__(self, tree: PushTree, content: Content) -> None:
        self._tree, self._content = tree, content
        self._open: tuple[int, int] | None = None  # number of the open file, its descriptor

    def read(self, span: Span) -> bytes:
        out = bytearray(len(span))
        view, at = memoryview(out), 0
        for piece in self._content.pieces(span):
            file = self._tree.manifest.files[piece.file]
            if not read_at(self._descriptor(piece.file), piece.offset, view[at : at + piece.length]):
                raise changed(self._tree.source / file.path)
            at += piece.length
        return bytes(out)

    def close(self) -> None:
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def _descriptor(self, number: int) -> int:
        if self._open is None or self._open[0] != number:
            self.close()
            file = self._tree.manifest.files[number]
            path = self._tree.source / file.path
            try:
                with open_plain(path) as reader:
                    self._open = number, os.dup(reader.fileno())
            except OSError as error:
                raise MachineError(f"{path}: {(error.strerror or 'failed').lower()}") from error
            if stamp(os.fstat(self._open[1])) != (file.size, file.mtime * 1_000_000_000 + file.nanos):
                raise changed(path)
        return self._open[1]


def _silent(_: str, __: int) -> Callable[[int], None]:
    return lambda _: None


def _after(spans: tuple[Span, ...], span: Span, size: int) -> int:
    later: Iterator[int] = (one.start for one in spans if one.start >= span.end)
    return next(later, size)


def _plain(entry: Entry, found: dict[str, bytes]) -> PlainEntry:
    if not isinstance(entry, InlineFile | SealedFile):
        return entry
    digest = sha256(entry.content).digest() if isinstance(entry, InlineFile) else found[entry.path]
    return PlainFile(
        path=entry.path,
        mode=entry.mode,
        mtime=entry.mtime,
        nanos=entry.nanos,
        size=entry.size,
        sha256=digest,
    )


def _refusal(response: Response) -> StrongroomError:
    said = "no reason given"
    try:
        value = parse_json(response.read(), "refusal", max_bytes=1 << 16)
    except FormatError:
        value = None
    match value:
        case {"error": {"message": str(message)}}:
            said = sentence(message, most=_REPEATED)
    if response.status in (429, 503) or response.status == 408:
        return TransportError(f"guest: {said}")
    if response.status in (401, 403, 422):
        return PolicyError(f"guest: refused: {said}")
    if response.status == 507:
        return MachineError(f"guest: {said}")
    return ProtocolError(f"guest: http status {response.status}: {said}")
