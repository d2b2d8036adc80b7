"""Mirrors strongroom/host/keysock.py: every answer is an object, or an error of ours."""

from pathlib import Path

import pytest

from strongroom.errors import (
    FormatError,
    MachineError,
    PolicyError,
    ProtocolError,
    StrongroomError,
    TransportError,
)
from strongroom.host.keysock import ask
from tests.fakes.answering import answering, reply


def asked(directory: Path, answer: bytes) -> dict[str, object]:
    path = directory / "a.sock"
    with answering(path, answer):
        return {**ask(path, "/v1/status")}


def test_an_object(socket_dir: Path) -> None:
    assert asked(socket_dir, reply(b'{"a":1}')) == {"a": 1}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("400 Bad Request", FormatError),
        ("403 Forbidden", PolicyError),
        ("404 Not Found", ProtocolError),
        ("413 Content Too Large", FormatError),
        ("500 Internal Server Error", ProtocolError),
        ("503 Service Unavailable", MachineError),
    ],
)
def test_a_refusal_keeps_its_kind_and_sentence(
    socket_dir: Path, status: str, kind: type[StrongroomError]
) -> None:
    with pytest.raises(kind, match="no rule has path") as caught:
        asked(socket_dir, reply(b'{"error":"b.service: no rule has path\\n\\u001b[2Jx"}', status))
    assert type(caught.value) is kind
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (reply(b"[]"), ProtocolError, "gave list"),
        (reply(b"null"), ProtocolError, "gave NoneType"),
        (reply(b"{"), FormatError, "key socket"),
        (reply(b"{}", "403 Forbidden"), PolicyError, "status 403 without a reason"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", ProtocolError, "http"),
        (b"garbage\r\n\r\n", ProtocolError, "http"),
        (b"", ProtocolError, "http"),
    ],
)
def test_another_answer_is_an_error(
    socket_dir: Path, answer: bytes, kind: type[StrongroomError], why: str
) -> None:
    with pytest.raises(kind, match=why):
        asked(socket_dir, answer)


def test_nobody_there(socket_dir: Path) -> None:
    with pytest.raises(TransportError, match="no such socket, want a program inside a strongroom machine"):
        ask(socket_dir / "none.sock", "/v1/status")
    (socket_dir / "file").touch()
    with pytest.raises(TransportError, match="refused"):
        ask(socket_dir / "file", "/v1/status")
    with pytest.raises(TransportError):
        ask(socket_dir / ("x" * 200), "/v1/status")
