"""A sealed response: version, a nonce of the machine's, then frames, each sealed under its number.

    off len            of the sealed bytes
      0   1 version    1
      1  32 nonce      random, for this one answer
     33     frames     BE32 length, then so many bytes: AES-256-GCM of a kind and its content

    key    HKDF-SHA256(secret, salt SHA-256(sealed request) || nonce, info LABEL || "response" || 0 || 1 || key id)
    IV     the frame's number as 12 bytes, big-endian; the first is 0

    kind   content
       1   head: canonical JSON {"headers": [[name, value], ...], "status": number}; the first frame, and only that
       2   data: 1 to 65536 bytes of the body
       3   end: nothing; the last frame, and only that

An answer without its end is cut. The machine's nonce keeps a request that is sent again from getting two answers under
one key. Source: docs/formats/sealed-body.md, section 4.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.errors import FormatError, ProtocolError, VerifyError
from strongroom.sealedhttp.keys import LABEL, TAG
from strongroom.wire.canonical import JSON, pack_json, parse_json

VERSION: Final = 1
NONCE: Final = 32  # bytes
CONTENT_TYPE: Final = "application/vnd.strongroom.sealed-response"
MAX_DATA: Final = 65536  # bytes of body in a frame
MAX_FRAMES: Final = 1 << 32
MAX_HEAD: Final = 16384  # bytes of its JSON
_NAME: Final = re.compile(r"[a-z0-9-]{1,64}")
_VALUE: Final = re.compile(r"[ -~]{0,4096}")
_SUBJECT: Final = "sealed response"


class Kind(IntEnum):
    HEAD = 1
    DATA = 2
    END = 3


@dataclass(frozen=True, slots=True)
class Head:
    status: int
    headers: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        if not 100 <= self.status <= 599:
            raise FormatError(f"{_SUBJECT}: status is {self.status}, want 100..599")
        for name, value in self.headers:
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise FormatError(f"{_SUBJECT}: a header is not a lower-case name and printable text")

    def pack(self) -> bytes:
        return pack_json({"headers": [[*pair] for pair in self.headers], "status": self.status})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        value = parse_json(data, f"{_SUBJECT}: head", max_bytes=MAX_HEAD)
        match value:
            case {"status": int(status), "headers": list(headers), **rest} if not rest:
                head = cls(status, tuple(map(_pair, headers)))
            case _:
                raise FormatError(f"{_SUBJECT}: head is not an object of exactly headers and status")
        if head.pack() != data:
            raise FormatError(f"{_SUBJECT}: head is not canonical JSON")
        return head


def _pair(value: JSON) -> tuple[str, str]:
    match value:
        case [str(name), str(text)]:
            return name, text
    raise FormatError(f"{_SUBJECT}: a header is not a name and a value")


class _Key:
    """Seals or opens one frame after another. Used in one direction, once."""

    def __init__(self, *, secret: bytes, request: bytes, nonce: bytes, key_id: bytes) -> None:
        info = LABEL + b"response\0" + bytes([VERSION]) + key_id
        derived = HKDF(algorithm=SHA256(), length=32, salt=request + nonce, info=info).derive(secret)
        self._aead = AESGCM(derived)
        self._number = 0

    def seal(self, plaintext: bytes) -> bytes:
        return self._aead.encrypt(self._next(), plaintext, None)

    def open_sealed(self, ciphertext: bytes) -> bytes:
        number = self._number
        try:
            return self._aead.decrypt(self._next(), ciphertext, None)
        except InvalidTag:
            raise VerifyError(
                f"{_SUBJECT}: frame {number} was changed, moved, or is of another answer"
            ) from None

    def _next(self) -> bytes:
        if self._number >= MAX_FRAMES:
            raise ProtocolError(f"{_SUBJECT}: more than {MAX_FRAMES} frames")
        self._number += 1
        return (self._number - 1).to_bytes(12, "big")


class Sealer:
    """The machine's side: head(), data() as often as there is some, end(). `request` is the sealed one's digest."""

    def __init__(self, *, secret: bytes, request: bytes, nonce: bytes, key_id: bytes) -> None:
        if len(nonce) != NONCE:
            raise FormatError(f"{_SUBJECT}: nonce is {len(nonce)} bytes, want {NONCE}")
        self._key = _Key(secret=secret, request=request, nonce=nonce, key_id=key_id)
        self._nonce = nonce
        self._next = Kind.HEAD

    def head(self, status: int, headers: Iterable[tuple[str, str]]) -> bytes:
        self._require(Kind.HEAD)
        self._next = Kind.DATA
        return bytes([VERSION]) + self._nonce + self._frame(Kind.HEAD, Head(status, tuple(headers)).pack())

    def data(self, data: bytes) -> bytes:
        """Frames of at most MAX_DATA bytes; none for no bytes."""
        self._require(Kind.DATA)
        if len(data) <= MAX_DATA:
            return self._frame(Kind.DATA, data) if data else b""
        pieces = (data[at : at + MAX_DATA] for at in range(0, len(data), MAX_DATA))
        return b"".join(self._frame(Kind.DATA, piece) for piece in pieces)

    def end(self) -> bytes:
        self._require(Kind.DATA)
        self._next = Kind.END
        return self._frame(Kind.END, b"")

    def _require(self, kind: Kind) -> None:
        if self._next is not kind:
            raise ProtocolError(f"{_SUBJECT}: {self._next.name.lower()} is to come, not {kind.name.lower()}")

    def _frame(self, kind: Kind, content: bytes) -> bytes:
        sealed = self._key.seal(bytes([kind]) + content)
        return len(sealed).to_bytes(4, "big") + sealed


class Opener:
    """The client's side: feed() whatever comes, at last require_end(). Any error is the end of it."""

    def __init__(self, *, secret: bytes, request: bytes, key_id: bytes) -> None:
        self.head: Head | None = None
        self.ended = False
        self._secret, self._request, self._key_id = secret, request, key_id
        self._key: _Key | None = None
        self._raw = b""

    def feed(self, raw: bytes) -> bytes:
        """More of the body, perhaps none. VerifyError or FormatError as soon as a frame is wrong."""
        self._raw += raw
        if self._key is None and not self._begin():
            return b""
        body = []
        while (frame := self._next_frame()) is not None:
            body.append(self._content(frame))
        if self.ended and self._raw:
            raise FormatError(f"{_SUBJECT}: bytes after its end")
        return b"".join(body)

    def require_end(self) -> None:
        """VerifyError when the answer was cut."""
        if not self.ended:
            raise VerifyError(f"{_SUBJECT}: it was cut before its end")

    def _begin(self) -> bool:
        if self._raw and self._raw[0] != VERSION:
            raise FormatError(f"{_SUBJECT}: version is {self._raw[0]}, want {VERSION}")
        if len(self._raw) < 1 + NONCE:
            return False
        nonce, self._raw = self._raw[1 : 1 + NONCE], self._raw[1 + NONCE :]
        self._key = _Key(secret=self._secret, request=self._request, nonce=nonce, key_id=self._key_id)
        return True

    def _next_frame(self) -> bytes | None:
        if self.ended or len(self._raw) < 4:
            return None
        size = int.from_bytes(self._raw[:4], "big")
        if not 1 + TAG <= size <= 1 + MAX_DATA + TAG:
            raise FormatError(f"{_SUBJECT}: a frame of {size} bytes, want {1 + TAG}..{1 + MAX_DATA + TAG}")
        if len(self._raw) < 4 + size:
            return None
        frame, self._raw = self._raw[4 : 4 + size], self._raw[4 + size :]
        return frame

    def _content(self, frame: bytes) -> bytes:
        if self._key is None:
            raise ProtocolError(f"{_SUBJECT}: a frame before its key")
        plaintext = self._key.open_sealed(frame)
        kind, content = plaintext[0], plaintext[1:]
        if self.head is None:
            if kind != Kind.HEAD:
                raise FormatError(f"{_SUBJECT}: the first frame is of kind {kind}, want a head")
            self.head = Head.parse(content)
            return b""
        if kind == Kind.DATA and content:
            return content
        if kind == Kind.END and not content:
            self.ended = True
            return b""
        raise FormatError(f"{_SUBJECT}: a frame of kind {kind} and {len(content)} bytes has no place here")
