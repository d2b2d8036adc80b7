"""Opening what a stranger stores: no link is followed, nothing but the wanted kind is taken, sizes are capped."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

from strongroom.errors import MachineError, VerifyError
from strongroom.sealed.gocryptfs.config import FILE_NAME, MAX_CONFIG, Settings

_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO})


def open_top(path: Path) -> int:
    """A descriptor of the cipher directory itself; the way to it is the caller's."""
    try:
        return os.open(path, _DIRECTORY)
    except OSError as error:
        raise MachineError(f"volume {path}: {words(error)}") from error


def open_directory(name: bytes, above: int, subject: str) -> int:
    """A descriptor of a directory in `above`; VerifyError when it is not there, or a link."""
    return _open(name, _DIRECTORY | os.O_NOFOLLOW, above, subject)


def open_regular(name: bytes, above: int, subject: str) -> int:
    """A descriptor of a regular file in `above`; VerifyError when it is not there, a link, or of another kind."""
    fd = _open(name, _FILE, above, subject)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise VerifyError(f"{subject}: not a regular file")
    return fd


def reopen(path: bytes, top: int, subject: str) -> int:
    """A descriptor of the regular file at a path below `top`, no part of which is a link."""
    *parts, name = path.split(b"/")
    above = os.dup(top)
    try:
        for part in parts:
            below = open_directory(part, above, subject)
            os.close(above)
            above = below
        return open_regular(name, above, subject)
    finally:
        os.close(above)


def read_small(name: bytes, above: int, subject: str, *, most: int) -> bytes:
    """A whole file of at most `most` bytes; VerifyError when it is missing or larger."""
    with os.fdopen(open_regular(name, above, subject), "rb", buffering=0) as file:
        try:
            data = file.read(most + 1)
        except OSError as error:
            raise MachineError(f"{subject}: {words(error)}") from error
    if len(data) > most:
        raise VerifyError(f"{subject}: more than {most} bytes")
    return data


def read_settings(path: Path) -> Settings:
    """What the gocryptfs.conf of a cipher directory says. FormatError, VerifyError or MachineError if it cannot be."""
    top = open_top(path)
    try:
        return settings_of(top)
    finally:
        os.close(top)


def settings_of(top: int) -> Settings:
    """As read_settings(), of a directory that is open."""
    return Settings.parse(read_small(FILE_NAME, top, "gocryptfs.conf", most=MAX_CONFIG))


def words(error: OSError) -> str:
    return (error.strerror or "failed").lower()


def _open(name: bytes, flags: int, above: int, subject: str) -> int:
    try:
        return os.open(name, flags, dir_fd=above)
    except OSError as error:
        if error.errno in _ABSENT:
            raise VerifyError(f"{subject}: missing, or not what it was") from None
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise MachineError(f"{subject}: too many open files, raise LimitNOFILE") from error
        raise MachineError(f"{subject}: {words(error)}") from error
