"""Init-data: a TOML text that whoever launches a guest gives it, and that the hardware commits to.

    algorithm = "sha384"        sha256, sha384 or sha512
    version = "0.1.0"
    [data]
    "aa.toml" = '''...'''    any file name to its text

Its digest is over the exact bytes of the text, and is cut or filled with zeros to fit where it is bound: HOST_DATA
(32 bytes), MRCONFIGID (48), or PCR 8, which is extended with it once. It is delivered as base64 of gzip of the text, or
as it is.

Source: Confidential Containers trustee, kbs/docs/initdata.md.
"""

import base64
import gzip
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self

from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON, b64, pack_json
from strongroom.wire.toml import parse_toml

VERSION: Final = "0.1.0"
PCR: Final = 8
MAX_BYTES: Final = 256 << 10  # of the text
MAX_DELIVERED: Final = 256 << 10  # bytes: clouds carry 16 to 64 KiB
AGENT_SETTINGS: Final = "aa.toml"
_SUBJECT: Final = "init-data"
_HASHES: Final = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}
_DELIVERED: Final = b"H4sI"  # base64 of the first bytes of any gzip member
_GZIP: Final = 16 + zlib.MAX_WBITS  # header and check sum of gzip, and nothing else


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where init-data says the key broker is. Nothing of it is checked here."""

    url: str
    certificate: str | None  # PEM


@dataclass(frozen=True, slots=True)
class InitData:
    """The text as it was given, and what it says."""

    text: str
    algorithm: str
    data: Mapping[str, str]  # by file name

    @classmethod
    def parse(cls, text: str) -> Self:
        """FormatError for anything but the three members above."""
        value = parse_toml(text, _SUBJECT, max_bytes=MAX_BYTES)
        if value.keys() != {"algorithm", "version", "data"}:
            raise FormatError(f"{_SUBJECT}: want exactly algorithm, version and data")
        algorithm, data = value["algorithm"], value["data"]
        if not isinstance(algorithm, str) or algorithm not in _HASHES:
            raise FormatError(
                f"{_SUBJECT}.algorithm: got {ascii(algorithm)[:40]}, want one of {', '.join(_HASHES)}"
            )
        if value["version"] != VERSION:
            raise FormatError(f"{_SUBJECT}.version: got {ascii(value['version'])[:40]}, want {VERSION}")
        if not isinstance(data, dict) or not all(isinstance(content, str) for content in data.values()):
            raise FormatError(f"{_SUBJECT}.data: want file names and their texts")
        return cls(text, algorithm, MappingProxyType(data))

    @classmethod
    def of(cls, raw: bytes) -> Self:
        """As `parse`, of bytes: UTF-8 to the last one, so that the digest is over all of them."""
        try:
            return cls.parse(raw.decode())
        except UnicodeDecodeError as error:
            raise FormatError(f"{_SUBJECT}: byte {error.start} is not UTF-8") from None

    @property
    def digest(self) -> bytes:
        return _HASHES[self.algorithm](self.text.encode()).digest()

    def claims(self) -> dict[str, JSON]:
        """What it says as a token repeats it: TOML files as objects, the rest as text."""
        named = {"policy.rego": "agent_policy_claims"}
        return {named.get(name, name): _read(name, content) for name, content in self.data.items()}

    def broker(self) -> BrokerAddress | None:
        """The key broker of its aa.toml, or None where it names none. All else in there is for other programs."""
        if (settings := self.data.get(AGENT_SETTINGS)) is None:
            return None
        at = f"{_SUBJECT}.{AGENT_SETTINGS}"
        kbs: Any = parse_toml(settings, at, max_bytes=MAX_BYTES)
        for name in ("token_configs", "kbs"):
            kbs, at = kbs.get(name, {}), f"{at}.{name}"
            if not isinstance(kbs, dict):
                raise FormatError(f"{at}: not a table")
        url, certificate = kbs.get("url"), kbs.get("cert") or None
        if url is None:
            return None
        if not isinstance(url, str) or not isinstance(certificate, str | None):
            raise FormatError(f"{at}: url and cert must be text")
        return BrokerAddress(url, certificate)

    def pack(self) -> bytes:
        """The form in which it is delivered: always the same for the same text."""
        return b64(gzip.compress(self.text.encode(), mtime=0)).encode()


def delivered_text(delivered: bytes) -> bytes:
    """The text inside what was delivered, not yet read. FormatError where base64 or gzip is not whole, or too large."""
    if len(delivered) > MAX_DELIVERED:
        raise FormatError(f"{_SUBJECT}: {len(delivered)} bytes delivered, want at most {MAX_DELIVERED}")
    if not delivered.startswith(_DELIVERED):
        return delivered
    try:
        packed = base64.b64decode(b"".join(delivered.split()), validate=True)
    except ValueError:
        raise FormatError(f"{_SUBJECT}: not base64") from None
    unpacking = zlib.decompressobj(_GZIP)
    try:
        text = unpacking.decompress(packed, MAX_BYTES + 1)
    except zlib.error:
        raise FormatError(f"{_SUBJECT}: not gzip") from None
    if len(text) > MAX_BYTES:
        raise FormatError(f"{_SUBJECT}: more than {MAX_BYTES} bytes, want at most that")
    if not unpacking.eof or unpacking.unused_data:
        raise FormatError(f"{_SUBJECT}: gzip is cut or goes on, want one whole member")
    return text


def fitted(digest: bytes, size: int) -> bytes:
    """A digest in a field of `size` bytes."""
    return digest[:size].ljust(size, b"\0")


def register(digest: bytes) -> bytes:
    """PCR 8 (SHA-256 bank) of a guest that extended it with this digest, and nothing else."""
    return hashlib.sha256(bytes(32) + fitted(digest, 32)).digest()


def _read(name: str, content: str) -> JSON:
    if not name.endswith(".toml"):
        return content
    try:
        value: JSON = parse_toml(content, name, max_bytes=MAX_BYTES)
        pack_json(value)
    except FormatError:  # TOML has dates and fractions, our JSON has not
        return content
    return value
