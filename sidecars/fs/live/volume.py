"""A gocryptfs volume that can be read and written: an operations class over its cipher directory.

Made for one daemon on one machine. Where other machines use the store at the same time, `shared` makes it look again
instead of remembering; docs/guides/volumes.md says what that can and cannot do.
"""
# ruff: noqa: ARG002 - fusepy gives every method a path, needed or not

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from sidecars.fs.live.directories import Directories
from sidecars.fs.live.files import Files
from sidecars.fs.live.intents import Intents, Workspace
from sidecars.fs.live.operations import Attributes
from sidecars.fs.live.tree import VolumeTree
from sidecars.fs.live.troubles import UnverifiedError
from sidecars.fs.protocol.writing import MAX_TRANSFER
from strongroom.errors import FormatError, MachineError, VerifyError
from strongroom.host.gocryptfs.directory import open_top, settings_of
from strongroom.sealed.gocryptfs.ciphers import Ciphers
from strongroom.sealed.keys import Octets

WORKSPACES: Final = 8  # requests that are worked on at once


class Volume(VolumeTree):
    """`report` gets a sentence about what does not verify: an inode and a block number, never a name."""

    def __init__(
        self, top: int, ciphers: Ciphers, intents: Intents, *, shared: bool, report: Callable[[str], None]
    ) -> None:
        directories = Directories(os.dup(top), ciphers, shared=shared)
        super().__init__(directories, Files(ciphers.content, shared=shared), ciphers)
        self._intents: Final = intents
        self._report: Final = report

    def check_key(self) -> None:
        """Raise VerifyError when there are names in the top directory and none of the first hundred opens."""
        if not self._ciphers.settings.plaintext_names and not self._directories.top.opens():
            raise VerifyError("volume: no name opens under this key")

    def open(self, path: str, flags: int) -> int:
        directory, stored = self._directories.place(path)
        writing = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)
        fh = self._files.open(stored.on_disk, directory.fd, writing=writing)
        if flags & os.O_TRUNC:
            try:
                self.truncate(path, 0, fh)
            except BaseException:
                self._files.close(fh)
                raise
        return fh

    def create(self, path: str, mode: int, flags: int = os.O_RDWR) -> int:
        return self.created(path, mode, flags)[0]

    def created(self, path: str, mode: int, flags: int) -> tuple[int, Attributes]:
        ours = self.caller() == (os.geteuid(), os.getegid())
        wanted = stat.S_IMODE(mode)
        try:
            with self._new(path) as (directory, stored):
                fh, status = self._files.create(stored.on_disk, directory.fd, wanted if ours else 0o600)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            return self._looked_at(path, self.open(path, flags & ~os.O_CREAT | os.O_RDWR))
        owner = self._owner(status)
        if owner != (-1, -1) or stat.S_IMODE(status.st_mode) != wanted:
            status = self._give_file(fh, owner, wanted)
        return fh, self._attributes(status, None, b"")

    def _give_file(self, fh: int, owner: tuple[int, int], mode: int) -> os.stat_result:
        """The new file's status, once it has its owner and its mode."""
        fd = self._files.content(fh).fd
        try:
            if owner != (-1, -1):
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)  # last: a change of owner takes setuid away
            return os.fstat(fd)
        except BaseException:
            self._files.close(fh)
            raise

    @contextmanager
    def _working(self, fh: int, refused: str) -> Iterator[Workspace]:
        """Buffers for one request; EIO, and a sentence, for what does not verify."""
        work = self._intents.take()
        try:
            yield work
        except (VerifyError, FormatError) as error:
            self._report(f"inode {self._files.content(fh).key[1]}: {error}; {refused} refused")
            raise UnverifiedError from None
        finally:
            self._intents.give(work)

    def read_into(self, path: str, out: memoryview, offset: int, fh: int) -> int:
        content, done = self._files.content(fh), 0
        with self._working(fh, "read") as work:
            while done < len(out):
                piece = out[done : done + MAX_TRANSFER]
                got = content.read_into(piece, offset + done, work)
                done += got
                if got < len(piece):
                    break
        return done

    def write(self, path: str, data: bytes | memoryview, offset: int, fh: int) -> int:
        content, view, done = self._files.content(fh), memoryview(data), 0
        with self._working(fh, "write") as work:
            while done < len(view):
                piece = view[done : done + MAX_TRANSFER]
                try:
                    put = content.write(piece, offset + done, work)
                except OSError:
                    if not done:
                        raise
                    break  # the caller is told how much there was room for
                done += put
                if put < len(piece):
                    break
        return done

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        handle = self.open(path, os.O_WRONLY) if fh is None else fh
        try:
            with self._working(handle, "truncation") as work:
                self._files.content(handle).truncate(length, work)
        finally:
            if fh is None:
                self._files.close(handle)
        return 0

    def fallocate(self, path: str, mode: int, offset: int, length: int, fh: int) -> int:
        with self._working(fh, "change") as work:
            self._files.content(fh).allocate(mode, offset, length, work)
        return 0

    def lseek(self, path: str, offset: int, whence: int, fh: int) -> int:
        return self._files.content(fh).seek(offset, whence)

    def flush(self, path: str, fh: int) -> int:
        """Have a network store take what it was given, so that close(2) can say when it could not."""
        os.close(os.dup(self._files.content(fh).fd))
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._files.content(fh).sync(data_only=bool(datasync))
        with suppress(FileNotFoundError, NotADirectoryError):  # it was renamed, or removed, meanwhile
            self._directories.settle(path)
        return 0

    def release(self, path: str, fh: int) -> int:
        self._files.close(fh)
        return 0


@contextmanager
def open_volume(
    cipherdir: Path,
    *,
    master_key: Octets,
    intents: Path,
    report: Callable[[str], None],
    note: Callable[[str], None] | None = None,
    shared: bool = False,
    workspaces: int = WORKSPACES,
) -> Iterator[Volume]:
    """The volume at `cipherdir`, once what a killed daemon left at `intents` is written.

    `note`, or `report` without one, gets a sentence about that.

    VerifyError for another master key, if there is a name to try it on; MachineError when the store cannot be used or
    another daemon on this machine has the volume.
    """
    with ExitStack() as stack:
        top = open_top(cipherdir)
        stack.callback(os.close, top)
        if not shared:  # network file systems have no locks on directories
            _hold(top, cipherdir)
            stack.callback(fcntl.flock, top, fcntl.LOCK_UN)  # copies of the descriptor may live longer
        ciphers = Ciphers.make(master_key, settings_of(top))
        work = stack.enter_context(Intents.open(intents, count=workspaces))
        volume = Volume(top, ciphers, work, shared=shared, report=report)
        volume.check_key()
        finished, lost = work.complete(top)
        note = note or report
        if finished:
            note(f"volume: finished {finished} writes of a daemon that was killed")
        if lost:
            note(f"volume: {lost} writes of a daemon that was killed are lost, their files are gone")
        yield volume


def _hold(top: int, cipherdir: Path) -> None:
    try:
        fcntl.flock(top, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MachineError(f"volume {cipherdir}: held by another daemon, want one writer") from None
    except OSError as error:
        raise MachineError(f"volume {cipherdir}: {(error.strerror or 'failed').lower()}") from error
