"""Files that hold a model's key: read only where nobody else can, written so that no crash loses one.

A key is on disk before the first byte is sealed under it, as an unfinished key file:

    {"epoch": int, "key": base64url of 32 bytes, "version": "strongroom/unfinished-key/v1"}

It becomes the volume key file (broker/resource.py) when the root digest is known, and right before the tree appears.
"""

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from strongroom.broker.resource import KEY_BYTES, MAX_VOLUME_KEY, VolumeKey
from strongroom.errors import ConfigError, FormatError
from strongroom.host.sealed.destination import PARTIAL, machine_errors, sync_directory
from strongroom.host.sealed.plain import Entropy
from strongroom.host.secret import Secret
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u

STDIN: Final = Path("-")
UNFINISHED: Final = "strongroom/unfinished-key/v1"
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def read_volume_key(path: Path) -> VolumeKey:
    """The volume key in a file, or on standard input when `path` is "-".

    ConfigError for a file that others may read, FormatError for what is no volume key; neither shows a byte of it.
    """
    data = _read(path)
    try:
        return VolumeKey.parse(data)
    except FormatError as error:
        if _unfinished(data) is not None:
            raise FormatError(f"{path}: the key of a seal that was cut, want one that was finished") from None
        raise FormatError(f"{path}: {error}") from None


class NewKeyFile:
    """The key of a seal that is under way. `root` is None as long as it is not known which tree it opens."""

    def __init__(self, path: Path, key: Secret, epoch: int, root: bytes | None = None) -> None:
        self.path: Final = path
        self.key: Final = key
        self.epoch: Final = epoch
        self.root = root
        self.fresh = False  # made now, and not left by a seal that was cut

    @classmethod
    def create(cls, path: Path, *, epoch: int, entropy: Entropy) -> Self:
        """Draw a key and put it on disk. ConfigError when there is a file of that name: it is never touched."""
        made = cls(path, Secret(entropy(KEY_BYTES)), epoch)
        content: dict[str, JSON] = {"epoch": epoch, "key": b64u(made.key.reveal()), "version": UNFINISHED}
        with machine_errors(path):
            try:
                _write(path, pack_json(content))
            except FileExistsError:
                raise ConfigError(
                    f"{path}: exists, want a new file: a key written over is a model lost"
                ) from None
        made.fresh = True
        return made

    @classmethod
    def reopen(cls, path: Path, *, epoch: int, entropy: Entropy) -> Self:
        """The key of a seal that was cut; a new one when it was cut before it had one.

        ConfigError when it is for another epoch.
        """
        if not os.path.lexists(path):
            return cls.create(path, epoch=epoch, entropy=entropy)
        if not (data := _read(path)):  # cut between making the file and writing it
            path.unlink()
            return cls.create(path, epoch=epoch, entropy=entropy)
        if (pair := _unfinished(data)) is not None:
            found = cls(path, *pair)
        else:
            volume = read_volume_key(path)
            found = cls(path, Secret(volume.key), volume.epoch, volume.root)
        if found.epoch != epoch:
            raise ConfigError(f"{path}: epoch is {found.epoch}, want {epoch}")
        return found

    def finish(self, root: bytes) -> None:
        """Make it a volume key file for the tree with this root digest, in one step."""
        volume = VolumeKey(key=self.key.reveal(), root=root, epoch=self.epoch)
        partial = self.path.with_name(f"{self.path.name}{PARTIAL}")
        with machine_errors(self.path):
            partial.unlink(missing_ok=True)
            _write(partial, volume.pack())
            os.rename(partial, self.path)
            sync_directory(self.path.absolute().parent)
        self.root = root

    def discard(self) -> None:
        """Remove it: nothing was sealed under it. Where it cannot be removed it stays, and is worth nothing."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    if path == STDIN:
        return sys.stdin.buffer.read(MAX_VOLUME_KEY + 1)
    with machine_errors(path), path.open("rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise ConfigError(f"{path}: mode is {mode:04o}, want 0600: others may read this key")
        return file.read(MAX_VOLUME_KEY + 1)


def _unfinished(data: bytes) -> tuple[Secret, int] | None:
    """Key and epoch of an unfinished key file; None for anything else, whose words may be secret."""
    try:
        value = parse_json(data, "key", max_bytes=MAX_VOLUME_KEY)
        match value:
            case {"version": str(version), "epoch": int(epoch), "key": str(key), **rest} if not rest:
                if version == UNFINISHED and len(raw := unb64u(key, "key")) == KEY_BYTES:
                    return Secret(raw), epoch
    except FormatError:
        pass
    return None


def _write(path: Path, content: bytes) -> None:
    """A new file, or an error and none."""
    file = os.open(path, _CREATE, 0o600)
    try:
        while content:
            content = content[os.write(file, content) :]
        os.fsync(file)
        sync_directory(path.absolute().parent)
    except BaseException:
        with suppress(OSError):  # what failed is what is said
            path.unlink()
        raise
    finally:
        os.close(file)
