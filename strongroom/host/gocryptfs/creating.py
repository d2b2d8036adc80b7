"""A new, empty volume: gocryptfs.conf and the IV of the top directory."""

import os
from pathlib import Path

from strongroom.errors import ConfigError, FormatError
from strongroom.sealed.gocryptfs.config import FILE_NAME, Settings
from strongroom.sealed.gocryptfs.names import DIRIV, check_diriv


def create(cipherdir: Path, settings: Settings, *, diriv: bytes) -> None:
    """Make the volume. `diriv` is 16 random bytes, not used where directories have no IV.

    Raises ConfigError unless the directory is absent or empty. The configuration comes last: without it there is no
    volume.
    """
    check_diriv(diriv)
    try:
        cipherdir.mkdir(mode=0o700, exist_ok=True)
        if any(cipherdir.iterdir()):
            raise ConfigError(f"{cipherdir}: not empty, want a new directory")
    except FileExistsError:
        raise ConfigError(f"{cipherdir}: exists and is no directory") from None
    top = os.open(cipherdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if settings.directory_ivs:
            _write(DIRIV, top, diriv, 0o444)
        _write(FILE_NAME, top, settings.pack(), 0o400)
        os.fsync(top)
    finally:
        os.close(top)


def _write(name: bytes, top: int, data: bytes, mode: int) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=top)
    with os.fdopen(fd, "wb", buffering=0) as file:
        if file.write(data) != len(data):
            raise FormatError(f"{os.fsdecode(name)}: written in part, want room for {len(data)} bytes")
        os.fsync(fd)
