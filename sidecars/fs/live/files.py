"""The open files of a volume: one Content for each inode however often it is opened, and handles to it."""

import errno
import os
import stat
from itertools import count
from threading import Lock
from typing import Final

from sidecars.fs.live.contents import Content
from sidecars.fs.live.operations import refuse
from strongroom.sealed.gocryptfs.content import ContentCipher

_SAFE: Final = (
    os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
)  # neither a link nor a pipe that waits for its other end
_READ_ONLY: Final = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY}


class Files:
    """Usable from several threads."""

    def __init__(self, cipher: ContentCipher, *, shared: bool) -> None:
        self._cipher: Final = cipher
        self._shared: Final = shared
        self._lock: Final = Lock()
        self._contents: dict[tuple[int, int], Content] = {}
        self._handles: dict[int, Content] = {}
        self._numbers = count(1)

    def content(self, handle: int) -> Content:
        if (content := self._handles.get(handle)) is None:
            refuse(errno.EBADF)
        return content

    def open(self, on_disk: bytes, directory: int, *, writing: bool) -> int:
        """A handle for a file that is there. Writing one block takes reading it, so both are asked for."""
        try:
            fd = os.open(on_disk, os.O_RDWR | _SAFE, dir_fd=directory)
        except OSError as error:
            if writing or error.errno not in _READ_ONLY:
                raise
            return self._take(os.open(on_disk, os.O_RDONLY | _SAFE, dir_fd=directory), writable=False)[0]
        return self._take(fd, writable=True)[0]

    def create(self, on_disk: bytes, directory: int, mode: int) -> tuple[int, os.stat_result]:
        """Handle and status of a new file; OSError EEXIST when there is one."""
        fd = os.open(on_disk, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE, mode, dir_fd=directory)
        return self._take(fd, writable=True)

    def close(self, handle: int) -> None:
        with self._lock:
            if (content := self._handles.pop(handle, None)) is None:
                return
            content.users -= 1
            if content.users:
                return
            del self._contents[content.key]
        os.close(content.fd)

    def _take(self, fd: int, *, writable: bool) -> tuple[int, os.stat_result]:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            refuse(errno.EIO)  # the kernel was told of a regular file, or it would not ask
        key = (status.st_dev, status.st_ino)
        with self._lock:
            content = self._contents.get(key)
            if content is None:
                content = Content(fd, key, self._cipher, writable=writable, shared=self._shared)
                self._contents[key] = content
            else:
                content.users += 1
                if writable and not content.writable:
                    os.dup2(fd, content.fd, inheritable=False)  # in place: others are reading by its number
                    content.writable = True
                os.close(fd)
            handle = next(self._numbers)
            self._handles[handle] = content
            return handle, status
