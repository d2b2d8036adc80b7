"""The server's half of HTTP/1.1, sans-IO, with no more of it than a door needs.

Where two parsers can disagree, requests are smuggled. So there is one reading of a head or none: CRLF only, no folded
lines, one Host, one framing, HTTP/1.1, origin-form, checked on its raw bytes by one expression. Bodies are bounded
here. What reaches the engine is built anew, never forwarded.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple, NoReturn

from strongroom.errors import FormatError, ProtocolError
from strongroom.host.door.chunks import ChunkReader
from strongroom.host.door.refusal import bad_request

MAX_HEAD: Final = 32 * 1024  # bytes
MAX_HEADERS: Final = 100
MAX_BODY: Final = 32 * 1024 * 1024  # bytes, after chunks are joined
MAX_CHUNKS: Final = 16 * 1024  # of one body: each costs us far more than a byte costs its sender
_LINE: Final = rb"([A-Z]{1,16}) ([\x21-\x7e]+) HTTP/1\.([01])"
_FIELD: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[ \t]*(?:[\x21-\x7e\x80-\xff][\x20-\x7e\x80-\xff\t]*)?"
_HEAD: Final = re.compile(rb"%b\r\n((?:%b\r\n)*)\r\n" % (_LINE, _FIELD))
_REQUEST_LINE: Final = re.compile(_LINE)
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_CLOSE: Final = re.compile(rb"(?:.*,)?[ \t]*close[ \t]*(?:,.*)?", re.IGNORECASE)
_DIGITS: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)
_ONCE: Final = frozenset({
    b"host", b"content-length", b"transfer-encoding", b"content-type", b"content-encoding", b"authorization", b"expect",
})  # fmt: skip
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"
_LAST: Final = b"connection: close\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Head(NamedTuple):
    method: str
    target: str
    headers: Mapping[bytes, bytes]  # names in lower case; of a repeated name that may repeat, the last
    body: Literal["none", "length", "chunked"]

    def __repr__(self) -> str:  # headers hold the client's token
        return f"Head({self.method})"


class _Again:
    """A head that came before on the connection. Programs send one again and again, but for the body's length."""

    def __init__(self, raw: bytes, head: Head) -> None:
        found = _DIGITS.search(raw)
        self._before, self._after = (raw[: found.start(1)], raw[found.end(1) :]) if found else (b"", b"")
        self._head = head

    def read(self, raw: bytes) -> Head | None:
        """What parse_head() makes of `raw`, where it is the same but for those digits."""
        before, after = self._before, self._after
        if not before or not raw.startswith(before) or not raw.endswith(after):
            return None
        digits = raw[len(before) : -len(after)]
        if len(before) + len(digits) + len(after) != len(raw) or not digits.isdigit() or len(digits) > 18:
            return None
        if not 0 < int(digits) <= MAX_BODY:
            return None
        method, target, headers, body = self._head
        return Head(method, target, {**headers, b"content-length": digits}, body)


def parse_head(raw: bytes) -> Head:
    """The head in `raw`, which ends with its empty line. Refusal naming the first broken rule; never its bytes."""
    found = _HEAD.fullmatch(raw)
    if not found:
        _refuse(raw)
    method, target, minor, fields = found.groups()
    if minor == b"0":
        raise bad_request("HTTP/1.0 is not spoken here", code="http_version", status=505)
    if target[:1] != b"/" or target[:2] == b"//" or b"#" in target:
        raise bad_request("the target is not in origin form")
    headers = _headers(fields)
    if b"host" not in headers:
        raise bad_request("there is no Host header")
    return Head(method.decode(), target.decode(), headers, _framing(headers))


def _refuse(raw: bytes) -> NoReturn:
    if not raw.endswith(b"\r\n\r\n"):
        raise bad_request("the head is not ended by an empty line")
    if not _REQUEST_LINE.fullmatch(raw.partition(b"\r\n")[0]):
        raise bad_request("the request line is not METHOD SP target SP HTTP/1.1")
    raise bad_request("a header line is malformed")


def _headers(fields: bytes) -> dict[bytes, bytes]:
    lines = fields.split(b"\r\n")
    lines.pop()  # what follows the last line's end
    if len(lines) > MAX_HEADERS:
        raise bad_request(f"more than {MAX_HEADERS} headers", code="too_many_headers", status=431)
    headers: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip(b" \t")
    if len(headers) < len(lines):
        _require_once(lines)
    return headers


def _require_once(lines: list[bytes]) -> None:
    seen = set()
    for line in lines:
        name = line.partition(b":")[0].lower()
        if name in _ONCE and name in seen:
            raise bad_request(f"header {name.decode()} appears twice")
        seen.add(name)


def _framing(headers: Mapping[bytes, bytes]) -> Literal["none", "length", "chunked"]:
    length, encoding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
    if b"upgrade" in headers:
        raise bad_request("no other protocol is spoken here")
    if b"expect" in headers and headers[b"expect"].lower() != b"100-continue":
        raise bad_request("that expectation cannot be met", code="expectation_failed", status=417)
    if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
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
        self._raw = b""  # not yet looked into
        self._again: _Again | None = None
        self._begin()

    def _begin(self) -> None:
        # bytes that follow a request are looked into only now: as a head, which must pass every check
        self._head: Head | None = None
        self._seen = 0  # bytes of a head that is not whole, which hold no end of it
        self._left = 0  # bytes the body lacks, where a length says so
        self._received = 0
        self._chunks: ChunkReader | None = None
        self._body_over = self._closes = self._waits = False
        self._owed: int | None = None  # bytes of the answer's body; None in a chunked one
        self._started = self._answered = False

    @property
    def buffered(self) -> int:
        return len(self._raw)

    def feed(self, data: bytes) -> None:
        self._raw = self._raw + data if self._raw else data

    def next_head(self) -> Head | None:
        """The next request's head, or None while it is incomplete. Refusal when it breaks a rule."""
        raw = self._raw
        end = raw.find(b"\r\n\r\n", max(self._seen - 3, 0), MAX_HEAD)
        if end < 0:
            self._require_promising(raw)
            return None
        end += 4
        self._head = head = self._read_head(raw[:end])
        self._raw = raw[end:]
        if head.body == "none":
            self._body_over = True
        elif head.body == "length":
            self._left = int(head.headers[b"content-length"])
        else:
            self._chunks = ChunkReader()
        connection = head.headers.get(b"connection")
        self._closes = connection is not None and _CLOSE.fullmatch(connection) is not None
        self._waits = not self._body_over and b"expect" in head.headers
        return head

    def _read_head(self, raw: bytes) -> Head:
        if self._again is not None and (head := self._again.read(raw)) is not None:
            return head
        head = parse_head(raw)
        self._again = _Again(raw, head) if head.body == "length" else None
        return head

    def _require_promising(self, raw: bytes) -> None:
        if _BARE_LF.search(raw, max(self._seen - 1, 0)):
            raise bad_request("a line ends with a bare LF")
        if len(raw) >= MAX_HEAD:
            raise bad_request(f"the head is larger than {MAX_HEAD} bytes", code="head_too_large", status=431)
        self._seen = len(raw)

    def next_body(self) -> bytes | None:
        """More of the body, b"" at its end, None while more must be fed. Refusal when it is broken or too large."""
        if self._body_over:
            return b""
        raw, self._raw = self._raw, b""
        if not raw:
            return None
        self._waits = False
        if self._chunks is not None:
            return self._next_chunks(self._chunks, raw)
        left = self._left
        if len(raw) > left:
            raw, self._raw = raw[:left], raw[left:]
        self._left = left = left - len(raw)
        self._body_over = not left
        return raw

    def _next_chunks(self, chunks: ChunkReader, raw: bytes) -> bytes | None:
        try:
            data = chunks.feed(raw)
        except FormatError as error:
            raise bad_request("the body's framing is broken") from error
        self._received += len(data)
        if chunks.chunks > MAX_CHUNKS:
            raise bad_request(f"the body has more than {MAX_CHUNKS} chunks", code="too_large", status=413)
        if self._received > MAX_BODY:
            raise bad_request(f"the body is larger than {MAX_BODY} bytes", code="too_large", status=413)
        if chunks.over:
            self._body_over, self._raw = True, chunks.rest
            return data
        return data or None

    @property
    def expects_continue(self) -> bool:
        return self._waits and not self._raw

    def go_on(self) -> bytes:
        """The interim answer to `Expect: 100-continue`."""
        self._waits = False
        return _CONTINUE

    def start(self, status: int, headers: Iterable[tuple[str, str]], *, length: int | None) -> bytes:
        """Status line and headers; without a length the body is chunked. Closes after a body we did not read."""
        return self.start_with(status, pack_headers(headers), length=length)

    def start_with(self, status: int, lines: bytes, *, length: int | None) -> bytes:
        """The same with what pack_headers() made."""
        if self._started:
            raise ProtocolError("http: a second answer to one request")
        self._started, self._owed = True, length
        self._closes = self._closes or not self._body_over
        return b"HTTP/1.1 %d \r\n%b%b%b\r\n" % (
            status,
            lines,
            _CHUNKED if length is None else b"content-length: %d\r\n" % length,
            _LAST if self._closes else b"",
        )

    def data(self, data: bytes) -> bytes:
        if self._owed is not None:
            self._owed -= len(data)
            framed = data
        else:
            framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        return b"" if self._bodiless else framed

    def end(self) -> bytes:
        if not self._started or self._owed:
            raise ProtocolError("http: the answer has another length than it says")
        self._answered = True
        return b"0\r\n\r\n" if self._owed is None and not self._bodiless else b""

    @property
    def _bodiless(self) -> bool:
        return self._head is not None and self._head.method == "HEAD"

    def recycle(self) -> bool:
        """Make ready for the next request; False when this connection cannot carry one."""
        if self._closes or not self._answered or not self._body_over:
            return False
        self._begin()
        return True


def pack_headers(headers: Iterable[tuple[str, str]]) -> bytes:
    """Header lines as they go out. ProtocolError for one that would be two."""
    lines = [f"{name}: {value}\r\n" for name, value in headers]
    packed = "".join(lines).encode("latin-1")
    if packed.count(b"\n") != len(lines) or packed.count(b"\r") != len(lines):
        raise ProtocolError("http: a line break within a header")
    return packed
