"""HTTP/1.1 as the key socket speaks it: bytes in, requests out, and answers of a known length. Touches no socket.

    a head of at most 8 KiB, lines ended by CRLF, a method, a path, HTTP/1.1
    a body as long as Content-Length says, and none without: nothing is ever chunked, compressed or upgraded
    an answer with Content-Type, Content-Length and ASCII JSON, whatever its status

What breaks a rule is answered once and then the connection is over, because nobody knows where the next request begins.
Some clients parse by hand, count characters, and look at no status: so the answer to everything has this one form.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from strongroom.wire.canonical import JSON

MAX_HEAD: Final = 8 << 10  # bytes
MAX_BODY: Final = 10 << 20  # bytes, of what signs, verifies or hashes
MAX_SMALL_BODY: Final = 64 << 10  # of everything else
_LARGE: Final = frozenset({"Sign", "Verify", "TdxQuote", "signatures"})
MAX_HEADERS: Final = 64
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_REQUEST_LINE: Final = re.compile(rb"(GET|POST|HEAD|PUT|DELETE|OPTIONS|PATCH) (/[!-~]{0,4095}) HTTP/1\.1")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
_ONCE: Final = {b"content-length", b"content-type", b"host", b"connection", b"transfer-encoding", b"expect"}


class HTTPError(Exception):
    """A request that is not understood, and the status and sentence to answer it with."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str  # path and query as they came
    content_type: str  # in lower case, without its parameters
    body: bytes = field(repr=False)
    keep_alive: bool = True


@dataclass(frozen=True, slots=True)
class _Head:
    method: str
    target: str
    headers: Mapping[bytes, bytes]
    length: int


class Parser:
    """One connection's requests, one after the other. After an HTTPError it is of no further use."""

    def __init__(self) -> None:
        self._raw = bytearray()
        self._head: _Head | None = None

    def feed(self, data: bytes) -> None:
        self._raw += data

    @property
    def buffered(self) -> int:
        return len(self._raw)

    @property
    def begun(self) -> bool:
        """Whether part of a request is there."""
        return bool(self._raw) or self._head is not None

    @property
    def awaited(self) -> int:
        """Bytes of the body that the head announces; 0 while there is no head."""
        return 0 if self._head is None else self._head.length

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for a word before it sends the body."""
        return (
            self._head is not None
            and not self._raw
            and self._head.headers.get(b"expect", b"").lower() == b"100-continue"
        )

    def next(self) -> Request | None:
        """The next whole request, or None while it is incomplete."""
        if self._head is None:
            if (head := self._next_head()) is None:
                return None
            self._head = head
        head = self._head
        if len(self._raw) < head.length:
            return None
        body = bytes(self._raw[: head.length])
        del self._raw[: head.length]
        self._head = None
        return Request(
            method=head.method,
            target=head.target,
            content_type=head.headers.get(b"content-type", b"")
            .split(b";")[0]
            .strip()
            .lower()
            .decode("latin-1"),
            body=body,
            keep_alive=head.headers.get(b"connection", b"").lower() != b"close",
        )

    def _next_head(self) -> _Head | None:
        end = self._raw.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            if len(self._raw) >= MAX_HEAD:
                raise HTTPError(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head is larger than {MAX_HEAD} bytes"
                )
            if not b"GPHDO".count(self._raw[:1]):
                raise HTTPError(HTTPStatus.BAD_REQUEST, "this is no HTTP")
            return None
        head = parse_head(bytes(self._raw[:end]))
        del self._raw[: end + 4]
        return head


def parse_head(raw: bytes) -> _Head:
    first, *lines = raw.split(b"\r\n")
    if not (line := _REQUEST_LINE.fullmatch(first)):
        raise HTTPError(HTTPStatus.BAD_REQUEST, "the request line is not METHOD SP /path SP HTTP/1.1")
    headers = _headers(lines)
    if b"transfer-encoding" in headers:
        raise HTTPError(HTTPStatus.LENGTH_REQUIRED, "chunked bodies are not read, want Content-Length")
    if b"upgrade" in headers:
        raise HTTPError(HTTPStatus.BAD_REQUEST, "no other protocol is spoken here")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise HTTPError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not read")
    if headers.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise HTTPError(HTTPStatus.EXPECTATION_FAILED, "that expectation cannot be met")
    target = line[2].decode()
    return _Head(line[1].decode(), target, headers, _length(headers, _most(target)))


def _headers(lines: list[bytes]) -> dict[bytes, bytes]:
    if len(lines) > MAX_HEADERS:
        raise HTTPError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {MAX_HEADERS} headers")
    headers: dict[bytes, bytes] = {}
    for line in lines:
        if not (match := _HEADER.fullmatch(line)):
            raise HTTPError(HTTPStatus.BAD_REQUEST, "a header line is malformed")
        name = match[1].lower()
        if name in _ONCE and name in headers:
            raise HTTPError(HTTPStatus.BAD_REQUEST, f"header {name.decode()} appears twice")
        headers[name] = match[2].rstrip(b" \t")
    return headers


def _most(target: str) -> int:
    """Bytes that the body of a request for this may have."""
    name = target.partition("?")[0].rpartition("/")[2].rpartition(".")[2]
    return MAX_BODY if name in _LARGE else MAX_SMALL_BODY


def _length(headers: Mapping[bytes, bytes], most: int) -> int:
    value = headers.get(b"content-length", b"0")
    if not _LENGTH.fullmatch(value):
        raise HTTPError(HTTPStatus.BAD_REQUEST, "content-length is not a plain number")
    if int(value) > most:
        raise HTTPError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is {int(value)} bytes, want at most {most}"
        )
    return int(value)


def answer(status: HTTPStatus, value: JSON, *, close: bool = False) -> bytes:
    """A whole response: ASCII JSON, and as many bytes of it as its Content-Length says."""
    body = json.dumps(value, separators=(",", ":")).encode("ascii")
    last = "Connection: close\r\n" if close else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n{last}\r\n"
    )
    return head.encode("ascii") + body


def failure(status: HTTPStatus, sentence: str, *, close: bool = False) -> bytes:
    """The answer to what cannot be answered: a JSON object too."""
    return answer(status, {"error": sentence}, close=close)
