"""Looks for planted words wherever a process could have left them: its files, its logs, what /proc shows of it."""

import base64
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

MAX_FILE = 64 << 20  # bytes looked at of one file


def forms(words: Iterable[str]) -> list[bytes]:
    """Each word as it is, and as something that quotes, encodes or dumps it would write it."""
    found = []
    for word in words:
        raw = word.encode()
        found += [raw, quote(word).encode(), raw.hex().encode(), raw[::-1]]
        # whatever stands before it, base64 shows one of three spellings of the same bytes
        found += [base64.b64encode(b"x" * shift + raw)[4 if shift else 0 : -4] for shift in range(3)]
    return [form for form in found if len(form) >= 8]


def tainted(words: Iterable[str], *, folders: Iterable[Path], pids: Iterable[int]) -> list[str]:
    """Every place that holds one of the words: a file's path, or a file of /proc."""
    needles = forms(words)
    return [
        where
        for where, data in (*_files(folders), *_shown(pids))
        if any(needle in data for needle in needles)
    ]


def _files(folders: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            with suppress(OSError):
                if path.is_file() and not path.is_symlink():
                    yield str(path), path.read_bytes()[:MAX_FILE]


def _shown(pids: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    for pid in pids:
        for name in ("cmdline", "environ", "comm", "status", "limits"):
            with suppress(OSError):
                yield f"/proc/{pid}/{name}", Path(f"/proc/{pid}/{name}").read_bytes()
        with suppress(OSError):
            for opened in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    yield f"/proc/{pid}/fd/{opened}", os.readlink(f"/proc/{pid}/fd/{opened}").encode()
