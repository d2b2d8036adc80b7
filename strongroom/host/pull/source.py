"""Where a sealed tree can be pulled from: a way from the name of a file to a GET."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from strongroom.host.fetch import Stream
from strongroom.host.pull.attempts import Attempts
from strongroom.host.pull.client import Ask, Client


@dataclass(frozen=True, slots=True)
class Known:
    """What a store says of a file before it is asked for."""

    size: int  # bytes
    sha256: bytes | None


class Source(Protocol):
    """A store, and the place in it."""

    title: str  # how errors name it; nothing secret

    async def open(self, client: Client) -> Mapping[str, Known] | None:  # noqa: ARG002
        """Called once before anything is asked for: what lies there by name, or None where a store cannot tell."""
        return None

    def ask(self, name: str) -> Ask:
        """The request for one file of a sealed tree."""

    async def admit(self, client: Client, asked: Ask, answer: Stream, attempts: Attempts) -> bool:  # noqa: ARG002
        """After a 401: whether asking once more may be let in."""
        return False
