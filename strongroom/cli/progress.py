"""How far a long command is, on stderr: one line that moves on a terminal, a line every ten seconds in a log."""

import sys
import time
from typing import Final, TextIO

_ON_TERMINAL: Final = 0.2  # seconds between two lines
_IN_LOG: Final = 10.0


def size(count: int) -> str:
    """Bytes as a person reads them: 512 bytes, 12.3 MB, 140.2 GB."""
    if count < 1_000_000:
        return f"{count} bytes"
    return f"{count / 1e6:.1f} MB" if count < 1_000_000_000 else f"{count / 1e9:.1f} GB"


class Progress:
    """Counts up to `total` bytes. Says nothing about work that is done before the first line is due."""

    def __init__(self, verb: str, total: int, *, stream: TextIO | None = None) -> None:
        self._verb = verb
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._moves = self._stream.isatty()
        self._started = self._said = time.monotonic()

    def show(self, done: int) -> None:
        now = time.monotonic()
        if now - self._said >= (_ON_TERMINAL if self._moves else _IN_LOG):
            self._said = now
            self._write(self.line(done, now - self._started))

    def line(self, done: int, seconds: float) -> str:
        """What is said after `seconds`: how much, how fast, how much longer."""
        speed = done / seconds if seconds > 0 else 0.0
        percent = 100 * done // self._total if self._total else 100
        left = _clock((self._total - done) / speed) if speed else "?"
        return f"{self._verb} {size(done)} of {size(self._total)} ({percent}%), {speed / 1e6:.0f} MB/s, {left} left"

    def end(self) -> None:
        """Leave the terminal clean for what is printed next."""
        if self._moves:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _write(self, line: str) -> None:
        self._stream.write(f"\r{line}\x1b[K" if self._moves else f"{line}\n")
        self._stream.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
