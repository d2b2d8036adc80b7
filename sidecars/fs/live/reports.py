"""Sentences about failures, each said once: a program that tries again for ever fills no journal."""

from collections.abc import Callable
from threading import Lock
from typing import Final

MOST: Final = 1000  # sentences


def once(report: Callable[[str], None]) -> Callable[[str], None]:
    """The same, for several threads, that passes a sentence on the first time only, and no more than MOST."""
    said, lock = set[str](), Lock()

    def say(sentence: str) -> None:
        with lock:
            if sentence in said or len(said) >= MOST:
                return
            said.add(sentence)
        report(sentence)

    return say
