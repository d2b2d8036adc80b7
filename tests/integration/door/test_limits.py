"""What strangers and the hasty are refused: broken requests, slow ones, and too many."""

import socket

import pytest

from strongroom.errors import (
    TransportError,
)
from tests.fakes.opened import POST, Client, House, chat, places_of, wait_for


@pytest.mark.parametrize("tenant", [None, "eve"])
def test_strangers_get_401_before_their_body_is_read(house: House, tenant: str | None) -> None:
    with house.dial() as stream:
        client = Client(stream, tenant)
        client.begin("POST", "/v1/chat/completions", chat("x" * 300_000))
        status, headers = client.head()
        assert (status, headers["www-authenticate"], headers["connection"]) == (401, "Bearer", "close")
    assert house.engine.asked == []


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 400),
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /healthz HTTP/1.0\r\nHost: a\r\n\r\n", 505),
        (b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (POST + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415),
        (POST + b"Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n", 413),
    ],
)  # fmt: skip
def test_broken_requests_get_one_answer_and_nothing_reaches_the_engine(
    house: House, sent: bytes, status: int
) -> None:
    with house.dial() as stream:
        stream.send(sent)
        assert stream.recv().startswith(b"HTTP/1.1 %d " % status)
    assert house.engine.asked == []


def test_a_slow_head_is_ended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecars.proxy.serving.HEAD", 0.05)
    with house.dial() as stream:
        stream.send(b"GET /healthz HTTP/1.1\r\n")
        assert b"408" in stream.recv()


def test_a_slow_body_is_ended(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecars.proxy.serving.BODY", 0.05)
    client.stream.send(POST + b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{")
    assert b"408" in client.stream.recv()


def test_silence_is_ended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecars.proxy.serving.IDLE", 0.05)
    with house.dial() as stream:
        assert stream.recv() == b""


def test_a_handshake_that_never_ends_is_ended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.host.door.peer.HANDSHAKE", 0.05)
    with socket.create_connection(("127.0.0.1", house.door.port or 0), timeout=10) as sock:
        assert sock.recv(1) == b""


def test_connections_are_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecars.proxy.door.MAX_CONNECTIONS", 1)
    with house.dial(), pytest.raises(TransportError):
        house.dial()


def test_one_origin_cannot_take_every_connection(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecars.proxy.door.MAX_EACH", 1)
    with house.dial(), pytest.raises(TransportError):
        house.dial()


def test_one_origin_cannot_take_every_turn_for_evidence(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.host.door.turns.MAX_WAITING_EACH", 0)
    with house.dial() as stream:
        target = f"/.well-known/strongroom/evidence?nonce={bytes(32).hex()}"
        status, headers, _ = Client(stream).ask("GET", target)
    assert (status, headers["retry-after"]) == (429, "2")


def test_too_many_in_flight_is_429(house: House) -> None:
    house.engine.stall_after = 0
    most = places_of("ann", house)
    held = [house.dial() for _ in range(most)]
    try:
        for stream in held:
            Client(stream).begin("POST", "/v1/chat/completions", chat())
        wait_for(lambda: len(house.engine.asked) == most)
        with house.dial() as stream:
            status, headers, _ = Client(stream).ask("POST", "/v1/chat/completions", chat())
            assert (status, headers["retry-after"]) == (429, "1")
    finally:
        for stream in held:
            stream.close()
