"""Ways to read one file, each as programs do it. Every reader returns the bytes it read.

A reader that has not finished after MOST seconds stops: its speed is what it read by then.
"""

import mmap
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from strongroom.errors import MachineError

MOST: Final = 10.0  # seconds
MIB: Final = 1 << 20
_STEP: Final = 16 * MIB  # of a copy out of a map
_READS: Final = 2000  # random ones
_SEED: Final = 4096

Reader = Callable[[Path], int]


def sequential(path: Path, *, most: float = MOST) -> int:
    """read(2) of 1 MiB after another."""
    return _pieces(path, MIB, 0, most)


def direct_1m(path: Path) -> int:
    return _pieces(path, MIB, os.O_DIRECT)


def direct_8m(path: Path) -> int:
    return _pieces(path, 8 * MIB, os.O_DIRECT)


def mapped(path: Path) -> int:
    """memcpy out of a shared map."""
    size, out, total, stop = path.stat().st_size, memoryview(bytearray(_STEP)), 0, time.monotonic() + MOST
    with (
        _opened(path) as file,
        mmap.mmap(file, size, prot=mmap.PROT_READ) as whole,
        memoryview(whole) as pages,
    ):
        for offset in range(0, size, _STEP):
            count = min(_STEP, size - offset)
            out[:count] = pages[offset : offset + count]
            total += count
            if time.monotonic() > stop:
                break
    return total


def four_threads(path: Path) -> int:
    """Four threads, a quarter of the file each, by pread(2) of 1 MiB."""
    size = path.stat().st_size
    quarter = -(-size // 4)
    stop = time.monotonic() + MOST

    def read(file: int, start: int) -> int:
        buffer, place, end = memoryview(bytearray(MIB)), start, min(start + quarter, size)
        while place < end and time.monotonic() < stop:
            place += _filled(os.preadv(file, [buffer[: end - place]], place), path)
        return place - start

    with _opened(path) as file, ThreadPoolExecutor(4) as pool:
        return sum(pool.map(lambda start: read(file, start), range(0, size, quarter)))


def random_4k(path: Path) -> int:
    return _random(path, 4 << 10)


def random_128k(path: Path) -> int:
    return _random(path, 128 << 10)


READERS: Final[dict[str, Reader]] = {
    "seq": sequential,
    "mmap": mapped,
    "direct1": direct_1m,
    "direct8": direct_8m,
    "mt4": four_threads,
    "r4k": random_4k,
    "r128k": random_128k,
}


def _pieces(path: Path, size: int, flags: int, most: float = MOST) -> int:
    total, stop = 0, time.monotonic() + most
    with _opened(path, flags) as file, mmap.mmap(-1, size) as buffer:  # a map: O_DIRECT wants whole pages
        while (count := os.readv(file, [buffer])) and time.monotonic() < stop:
            total += count
    return total


def _random(path: Path, size: int) -> int:
    """One thread, one read after another, with the kernel told not to read ahead."""
    pieces = range(path.stat().st_size // size)
    order = random.Random(_SEED).sample(pieces, min(_READS, len(pieces)))  # none twice: that would be cached
    buffer, total, stop = bytearray(size), 0, time.monotonic() + MOST
    with _opened(path) as file:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
        for piece in order:
            total += _filled(os.preadv(file, [buffer], piece * size), path)
            if time.monotonic() > stop:
                break
    return total


def _filled(count: int, path: Path) -> int:
    if not count:
        raise MachineError(f"{path}: nothing read before its end")
    return count


@contextmanager
def _opened(path: Path, flags: int = 0) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY | flags)
    try:
        yield file
    finally:
        os.close(file)
