"""What the service manager hands to a unit: files in $CREDENTIALS_DIRECTORY, read once, each with a cap.

The directory is memory that only this unit sees (systemd.exec(5), LoadCredential=). A credential may still be
a secret, so no message here shows a byte of one.
"""

import os
import re
import stat
from io import FileIO
from typing import Final

from strongroom.errors import ConfigError, FormatError, MachineError
from strongroom.host.secret import Secret

_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_credential(name: str, *, max_bytes: int) -> bytes:
    """The whole content of one credential. For what is secret use read_secret()."""
    with _open(name) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise FormatError(f"credential {name}: more than {max_bytes} bytes")
    return content


def read_secret(name: str, *, length: int) -> Secret:
    """A credential of exactly `length` bytes, in a holder that can be wiped."""
    buffer = bytearray(length + 1)
    with _open(name) as file:
        count = file.readinto(buffer)
    if count != length:
        buffer[:] = bytes(length + 1)
        raise FormatError(f"credential {name}: {'more' if count > length else 'less'} than {length} bytes")
    secret = Secret(memoryview(buffer)[:length])
    buffer[:] = bytes(length + 1)
    return secret


def _open(name: str) -> FileIO:
    if not (directory := os.environ.get(_DIRECTORY)):
        raise MachineError(f"credential {name}: ${_DIRECTORY} is not set")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"credential {name!r}: not a name")
    try:
        file = FileIO(os.open(os.path.join(directory, name), _OPEN), "rb")
    except OSError as error:
        raise MachineError(f"credential {name}: {(error.strerror or 'failed').lower()}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise MachineError(f"credential {name}: not a regular file")
    return file
