"""What a store wants to know before it lets us read: lines of NAME=VALUE in a file only its owner can read.

    BEARER_TOKEN                                                     https://
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN      s3://
    REGISTRY_USER, REGISTRY_PASSWORD, REGISTRY_TOKEN_HOST            oci://
    HF_TOKEN                                                         hf://

The names may have `export ` before them and the values quotes around them, as in the files that shells read. Nothing is
taken from the environment or the command line, which other processes can see.
"""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from strongroom.errors import ConfigError
from strongroom.host.secret import Secret

NAMES: Final = frozenset(
    """BEARER_TOKEN AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN REGISTRY_USER REGISTRY_PASSWORD
    REGISTRY_TOKEN_HOST HF_TOKEN""".split()
)
MAX_FILE: Final = 64 << 10  # bytes
_LINE: Final = re.compile(rb"""(?:export )?([A-Z][A-Z0-9_]*)=(["']?)([!-~]*?)\2""")


class Credentials:
    """Named secrets, each handed out as text for a header. Shown by nobody."""

    def __init__(self, values: Mapping[str, Secret] | None = None) -> None:
        self._values = dict(values or {})

    @classmethod
    def read(cls, path: Path) -> "Credentials":
        """The lines of a file. ConfigError, without a byte of a value, for one others can read and for other lines."""
        values: dict[str, Secret] = {}
        for number, line in enumerate(read_private(path, MAX_FILE).splitlines(), 1):
            if not (line := line.strip()) or line.startswith(b"#"):
                continue
            match = _LINE.fullmatch(line)
            if match is None or not match[3]:
                raise ConfigError(f"{path}: line {number} is not NAME=VALUE in visible ASCII")
            name = match[1].decode()
            if name not in NAMES or name in values:
                raise ConfigError(
                    f"{path}: line {number} sets {name[:40]}, want one of {', '.join(sorted(NAMES))}, once"
                )
            values[name] = Secret(match[3])
        return cls(values)

    def get(self, name: str) -> str | None:
        return self._values[name].reveal().decode("ascii") if name in self._values else None

    def __repr__(self) -> str:
        return f"Credentials({', '.join(sorted(self._values))})"


def read_private(path: Path, max_bytes: int) -> bytes:
    """The content of a file that belongs to its owner alone; ConfigError for one that others may read."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path}: not a regular file")
        if status.st_mode & 0o077:
            raise ConfigError(
                f"{path}: mode is {stat.S_IMODE(status.st_mode):04o}, want 0600: it holds a secret"
            )
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ConfigError(f"{path}: more than {max_bytes} bytes")
    return content
