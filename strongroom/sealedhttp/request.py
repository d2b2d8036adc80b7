"""A sealed request: version, key id, and one HPKE ciphertext with everything a request says.

    off len            of the sealed bytes
      0   1 version    1
      1  32 key id     SHA-256 of the key it is sealed to
     33     HPKE       info = LABEL || "request" || 0 || version || key id

    off len            of what is inside
      0   8 time       BE64 unix seconds, the client's clock
      8  32 secret     random, for this one request: the answer is sealed under it
     40   1 method     1 GET, 2 POST
     41   2 target     BE16 length, then origin-form as in HTTP: "/" and printable ASCII
          2 token      BE16 length, then the bearer token; empty for none
          4 body       BE32 length, then the body, byte for byte what a receipt speaks of
            padding    zero bytes, as many as the client likes

Source: docs/formats/sealed-body.md, section 3.
"""

import re
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Final, Self

from strongroom.errors import FormatError
from strongroom.sealedhttp.keys import ENCAPSULATED, ID, LABEL, TAG, OpeningKey, SealingKey
from strongroom.wire.reader import Reader

VERSION: Final = 1
SECRET: Final = 32  # bytes
CONTENT_TYPE: Final = "application/vnd.strongroom.sealed-request"
PADDED_TO: Final = 1024  # bytes: what is inside is a multiple of this, as our client makes it
MAX_TARGET: Final = 2048
MAX_TOKEN: Final = 4096
OVERHEAD: Final = 1 + ID + ENCAPSULATED + TAG  # bytes that sealing adds
_FIXED: Final = 8 + SECRET + 1 + 2 + 2 + 4
_TARGET: Final = re.compile(rb"/[!-~]*")
_TOKEN: Final = re.compile(rb"[!-~]*")
_SUBJECT: Final = "sealed request"


class Method(IntEnum):
    GET = 1
    POST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is inside. Its repr shows the method alone."""

    time: int  # unix seconds
    secret: bytes = field(repr=False)
    method: Method
    target: str = field(repr=False)
    token: str = field(default="", repr=False)
    body: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        # what was wrong is never repeated: it may be the prompt, or the token
        if not 0 <= self.time < 1 << 63:
            raise FormatError(f"{_SUBJECT}: time is out of range")
        if len(self.secret) != SECRET:
            raise FormatError(f"{_SUBJECT}: secret is {len(self.secret)} bytes, want {SECRET}")
        if not _TARGET.fullmatch(_ascii(self.target)) or len(self.target) > MAX_TARGET:
            raise FormatError(f"{_SUBJECT}: target is not '/' and printable characters, {MAX_TARGET} at most")
        if not _TOKEN.fullmatch(_ascii(self.token)) or len(self.token) > MAX_TOKEN:
            raise FormatError(f"{_SUBJECT}: token is not one printable word of at most {MAX_TOKEN}")
        if self.method is Method.GET and self.body:
            raise FormatError(f"{_SUBJECT}: a GET with a body")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises FormatError naming the first broken rule, and nothing of what is inside."""
        reader = Reader(data, _SUBJECT)
        time, secret, method = reader.u64be(), reader.take(SECRET), reader.u8()
        if method not in {*Method}:
            raise FormatError(f"{_SUBJECT}: method is {method}, want one of {[*map(int, Method)]}")
        target = _text(reader.take(reader.u16be()))
        token = _text(reader.take(reader.u16be()))
        body = reader.take(reader.u32be())
        if data.count(0, len(data) - reader.remaining) != reader.remaining:
            raise FormatError(f"{_SUBJECT}: padding is not zero")
        return cls(time=time, secret=secret, method=Method(method), target=target, token=token, body=body)

    def pack(self, *, multiple: int = 1) -> bytes:
        """The bytes, padded to a multiple of so many."""
        target, token = self.target.encode("ascii"), self.token.encode("ascii")
        whole = b"".join((
            self.time.to_bytes(8, "big"),
            self.secret,
            bytes([self.method]),
            len(target).to_bytes(2, "big"), target,
            len(token).to_bytes(2, "big"), token,
            len(self.body).to_bytes(4, "big"), self.body,
        ))  # fmt: skip
        return whole + bytes(-len(whole) % multiple)


def seal(request: Request, key: SealingKey) -> bytes:
    """The body to send. Different each time, also for one request."""
    return bytes([VERSION]) + key.id + key.seal(request.pack(multiple=PADDED_TO), _info(key))


def key_id(sealed: bytes) -> bytes:
    """The id of the key these bytes say they are sealed to. FormatError when they are no sealed request."""
    if len(sealed) < OVERHEAD + _FIXED + 1:
        raise FormatError(f"{_SUBJECT}: {len(sealed)} bytes, want at least {OVERHEAD + _FIXED + 1}")
    if sealed[0] != VERSION:
        raise FormatError(f"{_SUBJECT}: version is {sealed[0]}, want {VERSION}")
    return sealed[1 : 1 + ID]


def open_request(sealed: bytes, key: OpeningKey) -> Request:
    """What was sealed to `key`. FormatError or VerifyError, neither of which says anything of what is inside."""
    if key_id(sealed) != key.public.id:
        raise FormatError(f"{_SUBJECT}: it is sealed to another key")
    return Request.parse(key.open_sealed(sealed[1 + ID :], _info(key.public)))


def digest(sealed: bytes) -> bytes:
    """What the answer's key is bound to: SHA-256 of the bytes that were sent."""
    return sha256(sealed).digest()


def _info(key: SealingKey) -> bytes:
    return LABEL + b"request\0" + bytes([VERSION]) + key.id


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "replace") if text.isascii() else b"\0"


def _text(data: bytes) -> str:
    return data.decode("latin-1")  # what is not ASCII is refused where the value is made
