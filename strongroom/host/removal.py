"""Trees of files that have to go: whatever their depth and their modes, and without a step outside of them."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Final

from strongroom.errors import StrongroomError

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TAKEN: Final = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def clear(directory: int) -> None:
    """Remove everything in an open directory. No link is followed, and nobody else may be making files there.

    What can be removed is, also when something cannot: then the first OSError is raised at the end.
    """
    numbers, stuck, first = count(), set[str](), list[OSError]()
    while names := set(os.listdir(directory)) - stuck:
        for name in names:
            try:
                _remove(name, directory, numbers, first)
            except OSError as error:
                stuck.add(name)
                first.append(error)
    if first:
        raise first[0]


def remove(name: str | os.PathLike[str], within: int | None = None) -> None:
    """Remove a file, or a directory with all it holds; nothing happens when there is none."""
    with suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=within)
        except IsADirectoryError:
            fd = _open(name, within)
            try:
                clear(fd)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=within)


@contextmanager
def undone(undo: Callable[[], None], what: str) -> Iterator[None]:
    """Call `undo` when the body fails. Its error stays what it was; when `undo` fails too, it says that of `what`."""
    try:
        yield
    except BaseException as error:
        try:
            undo()
        except OSError as failed:
            if isinstance(error, StrongroomError):
                reason = (failed.strerror or "failed").lower()
                raise type(error)(f"{error}; {what} could not be removed: {reason}") from error
        raise


def _remove(name: str, directory: int, numbers: Iterator[int], errors: list[OSError]) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        _take_apart(name, directory, numbers, errors)
        os.rmdir(name, dir_fd=directory)


def _take_apart(name: str, directory: int, numbers: Iterator[int], errors: list[OSError]) -> None:
    """Remove the files in a directory and lift its directories beside it: so no tree is too deep, nor has it to be
    walked into."""
    fd = _open(name, directory)
    try:
        for child in os.listdir(fd):
            try:
                os.unlink(child, dir_fd=fd)
            except IsADirectoryError:
                os.close(_open(child, fd))  # to move a directory takes the right to write to it
                _lift(child, fd, directory, numbers)
            except OSError as error:
                errors.append(error)
    finally:
        os.close(fd)


def _lift(child: str, fd: int, directory: int, numbers: Iterator[int]) -> None:
    for number in numbers:
        try:
            return os.rename(child, f".removed-{number}", src_dir_fd=fd, dst_dir_fd=directory)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
    return None


def _open(name: str | os.PathLike[str], within: int | None) -> int:
    """A directory with all rights to it, which its mode may have denied to its owner."""
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=within)
    except PermissionError:
        place = os.open(name, _PLACE, dir_fd=within)
        try:
            os.chmod(f"/proc/self/fd/{place}", 0o700)
        finally:
            os.close(place)
        fd = os.open(name, _DIRECTORY, dir_fd=within)
    with suppress(OSError):  # what is denied then is said by what it is denied to
        os.fchmod(fd, 0o700)
    return fd
