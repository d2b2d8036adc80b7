"""Names of a volume, enciphered and deciphered once and remembered for all its directories."""

import errno
import os
from typing import Final

from sidecars.fs.live.operations import refuse
from strongroom.errors import FormatError
from strongroom.sealed.gocryptfs.config import LONGEST_NAME
from strongroom.sealed.gocryptfs.names import NameCipher, StoredName

MOST: Final = 32768  # names remembered each way: about 20 MB


class Names:
    """Usable from several threads. Keyed by the directory's IV, so nothing has to be forgotten when one is moved."""

    def __init__(self, cipher: NameCipher) -> None:
        self._cipher: Final = cipher
        self._on_disk: dict[tuple[bytes, str], StoredName] = {}
        self._plain: dict[tuple[bytes, bytes], str] = {}

    def store(self, name: str, diriv: bytes) -> StoredName:
        """What a name is called on disk. OSError for one that no directory can hold."""
        if (stored := self._on_disk.get((diriv, name))) is not None:
            return stored
        raw = os.fsencode(name)
        try:
            stored = self._cipher.store(raw, diriv)
        except FormatError:
            refuse(errno.ENAMETOOLONG if len(raw) > LONGEST_NAME else errno.EINVAL)
        if len(self._on_disk) >= MOST:
            self._on_disk = {}
        self._on_disk[diriv, name] = stored
        return stored

    def known(self, on_disk: bytes, diriv: bytes) -> str | None:
        return self._plain.get((diriv, on_disk))

    def open(self, on_disk: bytes, diriv: bytes, long: bytes | None) -> str:
        """The plain name; `long` is what its .name file holds. FormatError for what is no name of the volume."""
        name = os.fsdecode(self._cipher.open(on_disk, diriv, long))
        if len(self._plain) >= MOST:
            self._plain = {}
        self._plain[diriv, on_disk] = name
        return name
