"""Raw userdata, read once from a cloud-init NoCloud seed: a directory, or an ISO 9660 image or disk labelled `cidata`.

Nothing here is believed. The bytes are read into memory once, hashed, and only then looked at by guest/config.py.
`meta-data`, `vendor-data` and `network-config` of a seed are never read: they are the host's to change.

A seed may also have a file `initdata`, as Confidential Containers deliver theirs (strongroom.evidence.initdata).
"""

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from guest.machine import iso9660
from guest.machine.iso9660 import AbsentFileError
from strongroom.errors import ConfigError, MachineError
from strongroom.evidence.initdata import MAX_DELIVERED

MAX_BYTES: Final = 1 << 20
FILE_NAME: Final = "user-data"
INIT_DATA: Final = "initdata"
_FILE: Final = (stat.S_IFREG,)
_MEDIUM: Final = (stat.S_IFREG, stat.S_IFBLK)


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
    return Userdata.of(_read(seed, FILE_NAME, MAX_BYTES))


def read_init_data(seed: Path) -> bytes | None:
    """What the `initdata` file of a NoCloud seed holds, None where there is no such file. Raises as `read_seed`."""
    try:
        return _read(seed, INIT_DATA, MAX_DELIVERED)
    except AbsentFileError:
        return None


def has_userdata(seed: Path) -> bool:
    """Whether a NoCloud seed has a `user-data` file. Raises as `read_seed`."""
    try:
        read_seed(seed)
    except AbsentFileError:
        return False
    return True


def _read(seed: Path, name: str, max_bytes: int) -> bytes:
    try:
        if seed.is_dir():
            return _read_file(seed / name, max_bytes)
        with _opened(seed, _MEDIUM) as medium:
            return iso9660.read_file(medium, name, label="cidata", max_bytes=max_bytes)
    except FileNotFoundError:
        raise AbsentFileError(f"userdata: {seed} has no {name}, want a cloud-init NoCloud seed") from None
    except OSError as error:
        raise MachineError(f"userdata: cannot read {seed}: {error.strerror}") from error


def _read_file(path: Path, max_bytes: int) -> bytes:
    # O_NOFOLLOW: a seed folder is the host's, and a link in it must not reach into the guest.
    with _opened(path, _FILE, os.O_NOFOLLOW) as file:
        raw = file.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise ConfigError(f"userdata: more than {max_bytes} bytes, want at most that")
    return raw


def _opened(path: Path, kinds: tuple[int, ...], flags: int = 0) -> BinaryIO:
    # O_NONBLOCK: opening a FIFO would otherwise wait for a writer that never comes.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags), "rb")
    if (kind := stat.S_IFMT(os.fstat(file.fileno()).st_mode)) not in kinds:
        file.close()
        raise ConfigError(
            f"userdata: {path} is of file type {kind:#o}, want {FILE_NAME} in a file or an image"
        )
    return file
