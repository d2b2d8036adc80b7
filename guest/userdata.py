"""Raw userdata, read once from a cloud-init NoCloud seed: a directory, or an ISO 9660 image or disk labelled `cidata`.

Nothing here is believed. The bytes are read into memory once, hashed, and only then looked at by guest/config.py.
`meta-data`, `vendor-data` and `network-config` of a seed are never read: they are the host's to change.
"""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from guest.machine import iso9660
from strongroom.errors import ConfigError, MachineError

MAX_BYTES: Final = 1 << 20
FILE_NAME: Final = "user-data"


@dataclass(frozen=True, slots=True)
class Userdata:
    """Exactly the bytes the host handed over, and their SHA-256."""

    raw: bytes = field(repr=False)
    sha256: bytes

    @classmethod
    def of(cls, raw: bytes) -> "Userdata":
        return cls(raw=raw, sha256=hashlib.sha256(raw).digest())


def read_seed(seed: Path) -> Userdata:
    """The `user-data` file of a NoCloud seed.

    Raises ConfigError when there is none or it is over MAX_BYTES, MachineError when the medium cannot be read.
    """
    try:
        if seed.is_dir():
            return Userdata.of(_read_file(seed / FILE_NAME))
        with seed.open("rb") as medium:
            return Userdata.of(iso9660.read_file(medium, FILE_NAME, label="cidata", max_bytes=MAX_BYTES))
    except FileNotFoundError:
        raise ConfigError(f"userdata: {seed} has no {FILE_NAME}, want a cloud-init NoCloud seed") from None
    except OSError as error:
        raise MachineError(f"userdata: cannot read {seed}: {error.strerror}") from error


def _read_file(path: Path) -> bytes:
    # O_NOFOLLOW: a seed folder is the host's, and a link in it must not reach into the guest.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"userdata: more than {MAX_BYTES} bytes, want at most that")
    return raw
