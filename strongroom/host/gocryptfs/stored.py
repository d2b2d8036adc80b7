"""One object of a volume, opened: its descriptor, its length, and where its blocks lie."""

import errno
import os
from typing import Final, Self

from strongroom.errors import FormatError, MachineError, VerifyError
from strongroom.host.gocryptfs.directory import open_regular, reopen, words
from strongroom.host.gocryptfs.walk import shown
from strongroom.sealed.gocryptfs.content import BLOCK, HEADER_SIZE, ContentCipher


class StoredFile:
    """For several threads, each with its own buffers. A file without content has no file id."""

    __slots__ = ("_cipher", "_top", "fd", "file_id", "full", "path", "rest", "size", "subject")

    def __init__(
        self, path: bytes, fd: int, top: int, cipher: ContentCipher, *, size: int, file_id: bytes
    ) -> None:
        self.path: Final = path  # on disk, below `top`
        self.subject: Final = f"object {shown(path)}"
        self.fd: Final = fd
        self._top: Final = top
        self._cipher: Final = cipher
        self.size: Final = size  # bytes of plaintext
        self.file_id: Final = file_id
        self.full: Final = size // BLOCK  # blocks of full length
        short = size % BLOCK
        self.rest: Final = short + cipher.overhead if short else 0  # bytes on disk of the block behind them

    @classmethod
    def find(cls, path: bytes, above: int, top: int, cipher: ContentCipher) -> Self:
        """The object called by the last part of `path` in the directory `above`, and what it says of itself.

        Raises VerifyError or FormatError for what is no object of a volume.
        """
        subject = f"object {shown(path)}"
        fd = open_regular(path.rpartition(b"/")[2], above, subject)
        try:
            size = cipher.plain_size(os.fstat(fd).st_size)
            file_id = cipher.parse_header(_header(fd, subject)) if size else b""
        except BaseException as error:
            os.close(fd)
            if isinstance(error, FormatError):
                raise FormatError(f"{subject}: {error}") from None
            raise
        return cls(path, fd, top, cipher, size=size, file_id=file_id)

    @classmethod
    def again(cls, path: bytes, top: int, cipher: ContentCipher, *, size: int, file_id: bytes) -> Self:
        """An object that was found before. What has become of it since shows in its blocks."""
        fd = reopen(path, top, f"object {shown(path)}")
        return cls(path, fd, top, cipher, size=size, file_id=file_id)

    @property
    def blocks(self) -> int:
        return self.full + (self.rest > 0)

    def load(self, block: int, room: memoryview) -> None:
        """Fill `room` with what lies on disk from a block on.

        Raises VerifyError when the object has become shorter, MachineError when the store cannot be read.
        """
        offset = HEADER_SIZE + block * self._cipher.sealed_block
        try:
            got = os.preadv(self.fd, [room], offset)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise MachineError(f"{self.subject}: {words(error)} at byte {offset}") from error
            got = self._load_again(room, offset)
        if got != len(room):
            raise VerifyError(f"{self.subject}: {got} bytes at byte {offset}, want {len(room)}")

    def check(self, size: int, file_id: bytes | None) -> None:
        """Raise VerifyError unless the object has this many bytes of plaintext and this file id."""
        if self.size != size:
            raise VerifyError(f"{self.subject}: {self.size} bytes of plaintext, want {size}")
        if self.file_id != (file_id or b""):
            raise VerifyError(
                f"{self.subject}: file id is {self.file_id.hex()}, want {(file_id or b'').hex()}"
            )

    def close(self) -> None:
        os.close(self.fd)

    def _load_again(self, room: memoryview, offset: int) -> int:
        fresh = reopen(self.path, self._top, self.subject)
        os.dup2(fresh, self.fd, inheritable=False)  # in place: other threads hold the same number
        os.close(fresh)
        try:
            return os.preadv(self.fd, [room], offset)
        except OSError as error:
            raise MachineError(f"{self.subject}: {words(error)} at byte {offset}") from error


def _header(fd: int, subject: str) -> bytes:
    try:
        return os.pread(fd, HEADER_SIZE, 0)
    except OSError as error:
        raise MachineError(f"{subject}: {words(error)} at byte 0") from error
