"""What every sealed or encrypted volume gives whoever serves it, while its content does not change.

Readers hold buffers made once, so each thread and each process takes one of its own.
"""

import mmap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

HUGE_PAGE: Final = 2 << 20  # bytes
MAX_READ: Final = 1 << 20  # bytes of one read: the largest request the kernel makes


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file, directory or link. `key` is what Reader takes; None where there is nothing to read."""

    path: bytes  # relative, parts joined by "/"; b"" is the top
    mode: int  # type and permissions
    mtime_ns: int = 0
    size: int = 0  # bytes of plaintext
    nlink: int = 1
    target: bytes = b""  # of a link
    content: bytes | None = field(default=None, repr=False)  # of a file small enough to be kept in memory
    key: int | None = None


class Reader(Protocol):
    """Reads verified plaintext. For one thread at a time.

    Raises VerifyError naming object and chunk when any byte of the range does not verify, MachineError when the
    store fails: then nothing may be given out.
    """

    def read(self, key: int, offset: int, size: int) -> memoryview:
        """1..MAX_READ bytes inside one file; valid until the next call."""
        ...

    def read_into(self, key: int, offset: int, out: memoryview) -> None:
        """As read(), of any length, into `out`, which holds garbage after a failure."""
        ...


class Source(Protocol):
    """An opened volume: its table, parents before what they hold, and readers for it."""

    @property
    def items(self) -> Sequence[Item]: ...

    @property
    def unit(self) -> int:
        """Bytes that are verified together."""
        ...

    def reader(self) -> Reader: ...


def make_buffer(size: int) -> memoryview:
    """Zeros in memory of one's own, on huge pages where there are any: what goes through them to the kernel and back
    takes a tenth less of the processor.
    """
    whole = -(-size // HUGE_PAGE) * HUGE_PAGE  # less than one of them would lie across two
    pages = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        pages.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(pages)[:size]
