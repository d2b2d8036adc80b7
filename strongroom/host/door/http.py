"""The server's half of HTTP/1.1, sans-IO: h11 keeps the state, and our own rules come first.

h11 is lenient where two parsers can disagree, which is what request smuggling lives on. So a head is checked here
on its raw bytes before h11 sees it: CRLF only, no folded lines, one Host, one framing, HTTP/1.1, origin-form. Bodies
are decoded by h11 and bounded here. What reaches the engine is built anew, never forwarded.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import h11

from strongroom.host.door.refusal import bad_request

MAX_HEAD: Final = 32 * 1024  # bytes
MAX_HEADERS: Final = 100
MAX_BODY: Final = 32 * 1024 * 1024  # bytes, after chunks are joined
MAX_CHUNKS: Final = 16 * 1024  # of one body: each costs us far more than a byte costs its sender
_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]+) HTTP/1\.([01])")
_HEADER: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[\x21-\x7e\x80-\xff][\x20-\x7e\x80-\xff\t]*)?)"
)
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_ONCE: Final = frozenset({
    b"host", b"content-length", b"transfer-encoding", b"content-type", b"content-encoding", b"authorization", b"expect",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Head:
    method: str
    target: str
    headers: Mapping[bytes, bytes]  # names in lower case; of a repeated name that may repeat, the last
    body: Literal["none", "length", "chunked"]

    def __repr__(self) -> str:  # headers hold the client's token
        return f"Head({self.method})"


def parse_head(raw: bytes) -> Head:
    """The head in `raw`, which ends with its empty line. Refusal naming the first broken rule; never its bytes."""
    if not raw.endswith(b"\r\n\r\n"):
        raise bad_request("the head is not ended by an empty line")
    first, *lines = raw[:-4].split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if not line:
        raise bad_request("the request line is not METHOD SP target SP HTTP/1.1")
    if line[3] == b"0":
        raise bad_request("HTTP/1.0 is not spoken here", code="http_version", status=505)
    if not line[2].startswith(b"/") or line[2].startswith(b"//") or b"#" in line[2]:
        raise bad_request("the target is not in origin form")
    headers = _headers(lines)
    if b"host" not in headers:
        raise bad_request("there is no Host header")
    return Head(line[1].decode(), line[2].decode(), headers, _framing(headers))


def _headers(lines: list[bytes]) -> dict[bytes, bytes]:
    if len(lines) > MAX_HEADERS:
        raise bad_request(f"more than {MAX_HEADERS} headers", code="too_many_headers", status=431)
    headers: dict[bytes, bytes] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if not match:
            raise bad_request("a header line is malformed")
        name = match[1].lower()
        if name in _ONCE and name in headers:
            raise bad_request(f"header {name.decode()} appears twice")
        headers[name] = match[2].rstrip(b" \t")
    return headers


def _framing(headers: Mapping[bytes, bytes]) -> Literal["none", "length", "chunked"]:
    length, encoding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
    if b"upgrade" in headers:
        raise bad_request("no other protocol is spoken here")
    if headers.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise bad_request("that expectation cannot be met", code="expectation_failed", status=417)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise bad_request("compressed bodies are not accepted", code="content_encoding", status=415)
    if length is not None and encoding is not None:
        raise bad_request("both content-length and transfer-encoding are given")
    if encoding is not None:
        if encoding.lower() != b"chunked":
            raise bad_request("transfer-encoding is not exactly chunked")
        return "chunked"
    if length is None:
        return "none"
    if not _LENGTH.fullmatch(length):
        raise bad_request("content-length is not a plain number")
    if int(length) > MAX_BODY:
        raise bad_request(f"the body is larger than {MAX_BODY} bytes", code="too_large", status=413)
    return "length" if int(length) else "none"


class ServerHTTP:
    """One client connection: head, body, response, then recycle() for the next. Used by one task."""

    def __init__(self) -> None:
        self._raw = bytearray()  # not yet given to h11
        self._begin()

    def _begin(self) -> None:
        # one h11 connection per request: bytes that follow a request must pass our own checks first
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._head: Head | None = None
        self._tail = b""
        self._received = self._chunks = 0
        self._body_over = False

    @property
    def buffered(self) -> int:
        return len(self._raw)

    def feed(self, data: bytes) -> None:
        self._raw += data

    def next_head(self) -> Head | None:
        """The next request's head, or None while it is incomplete. Refusal when it breaks a rule."""
        end = self._raw.find(b"\r\n\r\n", 0, MAX_HEAD)
        if _BARE_LF.search(self._raw, 0, end if end >= 0 else MAX_HEAD):
            raise bad_request("a line ends with a bare LF")
        if end < 0:
            if len(self._raw) >= MAX_HEAD:
                raise bad_request(
                    f"the head is larger than {MAX_HEAD} bytes", code="head_too_large", status=431
                )
            return None
        raw = bytes(self._raw[: end + 4])
        head = parse_head(raw)
        del self._raw[: end + 4]
        try:
            self._h11.receive_data(raw)
            self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise bad_request("the head is malformed") from error
        self._head = head
        if head.body == "none":
            self.next_body()
        return head

    def next_body(self) -> bytes | None:
        """More of the body, b"" at its end, None while more must be fed. Refusal when it is broken or too large."""
        if self._body_over:
            return b""
        if self._raw:
            self._tail += self._raw
            self._h11.receive_data(bytes(self._raw))
            self._raw.clear()
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise bad_request("the body's framing is broken") from error
        if isinstance(event, h11.Data):
            self._received += len(event.data)
            self._chunks += event.chunk_start
            if self._chunks > MAX_CHUNKS:
                raise bad_request(f"the body has more than {MAX_CHUNKS} chunks", code="too_large", status=413)
            if self._received > MAX_BODY:
                raise bad_request(f"the body is larger than {MAX_BODY} bytes", code="too_large", status=413)
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            self._end_body(event)
            return b""
        self._tail = self._tail[-8:]  # all of it is consumed; enough stays to see how a last chunk began
        return None

    def _end_body(self, event: h11.EndOfMessage) -> None:
        left, _ = self._h11.trailing_data
        if self._head is not None and self._head.body == "chunked":
            # h11 also takes trailers, and a bare LF after the last chunk
            consumed = self._tail[: len(self._tail) - len(left)]
            if list(event.headers) or not consumed.endswith(b"0\r\n\r\n"):
                raise bad_request("the chunked body does not end with an empty last chunk")
        self._body_over = True
        self._raw[:0] = left

    @property
    def expects_continue(self) -> bool:
        return self._h11.they_are_waiting_for_100_continue

    def go_on(self) -> bytes:
        """The interim answer to `Expect: 100-continue`."""
        return self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))

    def start(self, status: int, headers: Iterable[tuple[str, str]], *, length: int | None) -> bytes:
        """Status line and headers; without a length the body is chunked. Closes after a body we did not read."""
        framing = [] if length is None else [("content-length", str(length))]
        if not self._body_over:
            framing.append(("connection", "close"))
        return self._send(h11.Response(status_code=status, headers=[*headers, *framing]))

    def data(self, data: bytes) -> bytes:
        if self._head is not None and self._head.method == "HEAD":
            return b""
        return self._send(h11.Data(data=data))

    def end(self) -> bytes:
        return self._send(h11.EndOfMessage())

    def recycle(self) -> bool:
        """Make ready for the next request; False when this connection cannot carry one."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._begin()
        return True

    def _send(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""
