"""Where a command takes a secret from: a file only its owner can read, standard input, or a credential of its unit.

Never an argument or the environment: both are shown to other processes of the machine.
"""

import os
import re
import stat
import sys
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from strongroom.errors import ConfigError, FormatError
from strongroom.host.credentials import read_credential

HELP: Final = 'a file of mode 0600, "-" for standard input, or "credential:NAME" of a service unit'
_CREDENTIAL: Final = "credential:"
_MAX: Final = 4096  # bytes
_HEX: Final = re.compile(rb"[0-9a-fA-F-]+")
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def read_password(source: str) -> bytes:
    """The first line, without its end; what follows is not looked at, as gocryptfs does."""
    line = _read(source).split(b"\n", 1)[0]
    if not line:
        raise FormatError(f"{source}: empty, want a password in the first line")
    return line


def read_master_key(source: str) -> bytes:
    """32 bytes, raw or as the 64 hex digits that `gocryptfs -init` prints, dashes between them or not."""
    data = _read(source)
    if len(data) == 32:
        return data
    digits = data.strip()
    if _HEX.fullmatch(digits) and len(digits := digits.replace(b"-", b"")) == 64:
        return bytes.fromhex(digits.decode())
    raise FormatError(f"{source}: want a master key, 32 bytes or 64 hex digits")


def read_signing_key(source: str) -> Ed25519PrivateKey:
    """An Ed25519 key in PEM (PKCS 8), as `strongroom push keygen` or `openssl genpkey` writes one."""
    try:
        key = load_pem_private_key(_read(source), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise FormatError(f"{source}: want an Ed25519 private key in PEM, without a password")
    return key


def write_new(path: Path, data: bytes) -> None:
    """A new file only its owner can read, on disk when this returns. An existing one is never touched."""
    try:
        fd = os.open(path, _CREATE, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path}: exists, want a new file: a key written over is a volume lost") from None
    with os.fdopen(fd, "wb", buffering=0) as file:
        file.write(data)
        os.fsync(fd)


def _read(source: str) -> bytes:
    if source.startswith(_CREDENTIAL):
        return read_credential(source.removeprefix(_CREDENTIAL), max_bytes=_MAX)
    if source == "-":
        data = sys.stdin.buffer.read(_MAX + 1)
    else:
        with open(source, "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
                mode = stat.S_IMODE(status.st_mode)
                raise ConfigError(f"{source}: mode is {mode:04o}, want 0600: others may read this secret")
            data = file.read(_MAX + 1)
    if len(data) > _MAX:
        raise FormatError(f"{source}: more than {_MAX} bytes, want one secret")
    return data
