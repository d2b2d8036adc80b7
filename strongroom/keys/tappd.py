"""report_data as Tappd, dstack's interface before 0.4, computes it: a hash of what the caller gives.

hash(prefix || ":" || data), then zeros to 64 bytes        prefix "app-data" unless the caller says another
raw                                                        the data themselves, zeros to 64 bytes
"""

import hashlib
from collections.abc import Callable
from typing import Final

from strongroom.errors import FormatError
from strongroom.keys.derivation import octets
from strongroom.keys.keccak import keccak256, keccak384, keccak512

RAW: Final = "raw"
DEFAULT_HASH: Final = "sha512"
DEFAULT_PREFIX: Final = "app-data"
SIZE: Final = 64  # bytes of report_data
_HASHES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "sha384": lambda data: hashlib.sha384(data).digest(),
    "sha512": lambda data: hashlib.sha512(data).digest(),
    "sha3-256": lambda data: hashlib.sha3_256(data).digest(),
    "sha3-384": lambda data: hashlib.sha3_384(data).digest(),
    "sha3-512": lambda data: hashlib.sha3_512(data).digest(),
    "keccak256": keccak256,
    "keccak384": keccak384,
    "keccak512": keccak512,
}


def report_data(data: bytes, *, hash: str = DEFAULT_HASH, prefix: str = DEFAULT_PREFIX) -> bytes:
    """64 bytes. An empty hash or prefix is the default one. FormatError for a hash we have not."""
    name = hash or DEFAULT_HASH
    if name == RAW:
        if len(data) > SIZE:
            raise FormatError(f"report data is too long: {len(data)} bytes, want at most {SIZE}")
        return data + bytes(SIZE - len(data))
    if (function := _HASHES.get(name)) is None:
        raise FormatError(f"hash: got {name[:40]!a}, want {RAW} or one of {', '.join(_HASHES)}")
    digest = function(octets(prefix or DEFAULT_PREFIX) + b":" + data)
    return digest + bytes(SIZE - len(digest))
