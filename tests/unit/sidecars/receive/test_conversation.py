"""Mirrors sidecars/receive/conversation.py: how long a sender may take. tests/integration/push/ has the rest."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from sidecars.receive import conversation
from sidecars.receive.conversation import Conversation
from sidecars.receive.intake import Intake
from strongroom.host.door.identity import TLSIdentity
from strongroom.host.door.peer import Peer
from strongroom.host.door.refusal import Refusal
from strongroom.host.door.turns import Turns


class Sender:
    """Sends pieces, one after each pause, then nothing more."""

    def __init__(self, pieces: Sequence[bytes], pause: float) -> None:
        self._pieces, self._pause = list(pieces), pause

    async def receive(self) -> bytes:
        if not self._pieces:
            await asyncio.Event().wait()
        await asyncio.sleep(self._pause)
        return self._pieces.pop(0)


def body(pieces: Sequence[bytes], *, length: int, pause: float = 0.0, most: int = 1 << 20) -> bytes:
    """The body of a request of this length, as a conversation takes it from a sender."""

    async def read() -> bytes:
        sender = cast(Peer, Sender(pieces, pause))
        talk = Conversation(cast(Intake, None), cast(TLSIdentity, None), Turns(), Path("/nowhere"), sender)
        talk._http.feed(
            b"PUT /v1/push/content?from=0 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length
        )
        head = await talk._head()
        return b"".join([piece async for piece in talk._body(head, most)])

    return asyncio.run(read())


def test_a_body_comes_in_pieces() -> None:
    assert body([b"ab", b"c", b"defg"], length=7) == b"abcdefg"


def test_a_sender_that_falls_silent_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "SILENCE", 0.05)
    with pytest.raises(Refusal) as refused:
        body([b"ab"], length=7)
    assert (refused.value.status, refused.value.last) == (408, True)


def test_a_sender_that_drips_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never silent for long, and slower than anybody may be."""
    monkeypatch.setattr(conversation, "SILENCE", 0.1)
    monkeypatch.setattr(conversation, "SLOWEST", 1 << 30)
    with pytest.raises(Refusal) as refused:
        body([b"x"] * 100, length=100, pause=0.02)
    assert refused.value.status == 408


def test_a_body_beyond_the_most_is_refused_unread() -> None:
    with pytest.raises(Refusal) as refused:
        body([], length=101, most=100)
    assert (refused.value.status, refused.value.last) == (413, True)
