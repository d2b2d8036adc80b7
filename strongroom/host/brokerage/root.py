"""Where a broker's root key comes from. It is named when the directory is made, in one of three ways.

    file:NAME          32 raw bytes, mode 0600, owned by us; NAME is relative to the directory, or absolute
    credential:NAME    a credential of the unit, exactly 32 bytes; systemd may decrypt it with the machine's TPM
    tpm:PCRS           DIR/root.tpm, which only this machine's TPM unseals, and only while PCRS (such as 7+11, or
                       none) hold what they held

A new key is staged beside the old one before anything is sealed under it, and takes its place afterwards, so that
a crash between the two leaves a key for what is on the disk.
"""

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final, Protocol

from strongroom.errors import ConfigError, FormatError, MachineError, StrongroomError
from strongroom.host.brokerage.sealing import ROOT_BYTES
from strongroom.host.brokerage.tpm import MAX_OBJECT, parse_pcrs, seal_to_tpm, unseal_with_tpm
from strongroom.host.credentials import read_secret
from strongroom.host.secret import Secret

DEFAULT: Final = "file:root.key"
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_STAGED: Final = ".next"
_CREDENTIAL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Found:
    """A root key, and whether it is only staged yet."""

    key: Secret
    staged: bool


class Root(Protocol):
    """A place a root key comes from. `str()` is how it is named."""

    @property
    def place(self) -> Path | None:
        """The file it is kept in, where we keep it."""

    def load(self) -> list["Found"]:
        """The key, and the one staged beside it if there is one. MachineError when there is neither."""

    def stage(self) -> Secret:
        """A new key, on the disk already."""

    def taken(self) -> bool:
        """Whether there is a key already that a new house must not replace."""

    def unsettled(self) -> bool:
        """Whether something is staged, which a rotation that was cut off leaves behind."""

    def settle(self, *, staged: bool) -> None:
        """Keep the staged key and destroy the other, or the other way round."""


def parse_root(text: str, directory: Path) -> Root:
    """ConfigError for a name we do not know."""
    kind, _, rest = text.partition(":")
    if kind == "file" and rest and "\0" not in rest:
        return FileRoot(text, directory / rest)
    if kind == "credential" and _CREDENTIAL.fullmatch(rest):
        return CredentialRoot(text, rest)
    if kind == "tpm":
        return TPMRoot(text, directory / "root.tpm", parse_pcrs(rest))
    raise ConfigError(f"root key: got {text[:100]!r}, want file:NAME, credential:NAME or tpm:PCRS")


class FileRoot:
    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path

    def __str__(self) -> str:
        return self._name

    def load(self) -> list[Found]:
        return _found(self._path, lambda path: Secret(read_private(path, ROOT_BYTES, exact=True)))

    def stage(self) -> Secret:
        key = Secret(secrets.token_bytes(ROOT_BYTES))
        write_private(_staged(self._path), key.reveal())
        return key

    @property
    def place(self) -> Path:
        return self._path.resolve()

    def taken(self) -> bool:
        return os.path.lexists(self._path)

    def unsettled(self) -> bool:
        return os.path.lexists(_staged(self._path))

    def settle(self, *, staged: bool) -> None:
        settle_files(self._path, staged=staged)


class CredentialRoot:
    def __init__(self, name: str, credential: str) -> None:
        self._name, self._credential = name, credential

    def __str__(self) -> str:
        return self._name

    def load(self) -> list[Found]:
        return [Found(read_secret(self._credential, length=ROOT_BYTES), staged=False)]

    def stage(self) -> Secret:
        """The credential itself: whoever runs the unit made it."""
        return self.load()[0].key

    @property
    def place(self) -> None:
        return None

    def taken(self) -> bool:
        return False

    def unsettled(self) -> bool:
        return False

    def settle(self, *, staged: bool) -> None:
        pass  # the service manager keeps it


class TPMRoot:
    def __init__(self, name: str, path: Path, pcrs: tuple[int, ...]) -> None:
        self._name, self._path, self._pcrs = name, path, pcrs

    def __str__(self) -> str:
        return self._name

    def load(self) -> list[Found]:
        return _found(self._path, lambda path: unseal_with_tpm(read_private(path, MAX_OBJECT), self._pcrs))

    def stage(self) -> Secret:
        key = Secret(secrets.token_bytes(ROOT_BYTES))
        write_private(_staged(self._path), seal_to_tpm(key, self._pcrs))
        return key

    @property
    def place(self) -> Path:
        return self._path.resolve()

    def taken(self) -> bool:
        return os.path.lexists(self._path)

    def unsettled(self) -> bool:
        return os.path.lexists(_staged(self._path))

    def settle(self, *, staged: bool) -> None:
        settle_files(self._path, staged=staged)


def read_private(path: Path, most: int, *, exact: bool = False) -> bytes:
    """A file that is ours alone. ConfigError for one that others may read, or of another size."""
    try:
        file = FileIO(os.open(path, _OPEN), "rb")  # which refuses a directory
    except OSError as error:
        raise MachineError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise ConfigError(f"{path}: want a regular file of our own user")
        if status.st_mode & 0o077:
            raise ConfigError(f"{path}: mode is {status.st_mode & 0o777:o}, want 600: others may read it")
        content = file.read(most + 1)
    if len(content) > most or (exact and len(content) != most):
        raise FormatError(f"{path}: not of {most} bytes{'' if exact else ' at most'}")
    return content


def write_private(path: Path, content: bytes) -> None:
    """A new file of mode 0600, on the disk when this returns. MachineError where there is one already."""
    try:
        with os.fdopen(os.open(path, _NEW, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)
    except OSError as error:
        raise MachineError(f"{path}: {(error.strerror or 'cannot be written').lower()}") from error


def sync_directory(directory: Path) -> None:
    """Names in it are on the disk when this returns."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _found(path: Path, read: Callable[[Path], Secret]) -> list[Found]:
    """The key, and the staged one where it was written whole: it is in use only after that.

    One of the two may be there for other PCRs, and not to be read by this name.
    """
    found: list[Found] = []
    trouble: StrongroomError | None = None
    for one, staged in ((path, False), (_staged(path), True)):
        if staged and not one.exists():
            continue
        try:
            found.append(Found(read(one), staged=staged))
        except StrongroomError as error:
            trouble = trouble or error
    if not found and trouble is not None:
        raise trouble
    return found


def settle_files(path: Path, *, staged: bool) -> None:
    """The staged file in place of the other, or no staged file."""
    if staged:
        os.replace(_staged(path), path)
    else:
        with contextlib.suppress(FileNotFoundError):
            _staged(path).unlink()
    sync_directory(path.parent)


def _staged(path: Path) -> Path:
    return path.with_name(path.name + _STAGED)
