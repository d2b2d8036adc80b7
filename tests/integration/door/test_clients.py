"""Clients that leave, do not read, read slowly or send slowly: what they cost the engine and the others."""

import json
import socket
import time
import tracemalloc
from datetime import UTC, datetime

import pytest

from sidecars.proxy.intake import LEAST
from strongroom.host.tls import TLSStream
from strongroom.receipts.envelope import verify_envelope
from tests.fakes.opened import (
    ROOTS,
    TOKENS,
    Client,
    House,
    chat,
    places_of,
    wait_for,
)


def test_a_client_that_leaves_frees_the_engine(house: House) -> None:
    house.engine.stall_after = 2
    receipt_id = ""
    for stream_it in (True, False):
        before = house.engine.aborted
        with house.dial() as stream:
            client = Client(stream)
            client.begin("POST", "/v1/chat/completions", chat(stream=stream_it))
            if stream_it:
                receipt_id = client.head()[1]["x-strongroom-receipt"]
                next(client.body())
            else:
                wait_for(lambda: len(house.engine.asked) == 2)
        wait_for(lambda: house.engine.aborted == before + 1)  # noqa: B023 - called at once
    with house.dial() as stream:
        _, _, raw = Client(stream).ask("GET", f"/v1/receipts/{receipt_id}")
    assert not verify_envelope(raw, roots=ROOTS, now=datetime.now(UTC))[0].complete


def test_a_client_that_does_not_read_is_cut_and_frees_the_engine(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.host.door.peer.STALL", 0.2)
    house.engine.repeat = 40_000  # some 30 MB, more than all buffers on the way hold
    with house.dial() as stream:
        Client(stream).begin("POST", "/v1/chat/completions", chat(stream=True))
        wait_for(lambda: house.engine.aborted == 1)
    with house.dial() as stream:
        assert Client(stream).ask("GET", "/healthz")[0] == 200


def test_a_client_that_reads_slowly_is_served(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.host.door.peer.STALL", 0.2)
    house.engine.says, house.engine.repeat = ("x" * 60_000,), 200
    assert house.door.port is not None
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", house.door.port))
    with TLSStream(sock, "127.0.0.1") as stream:
        client = Client(stream)
        client.begin("POST", "/v1/chat/completions", chat(stream=True))
        assert client.head()[0] == 200
        body = bytearray()
        for number, piece in enumerate(client.body()):
            body += piece
            if number < 30:
                time.sleep(0.05)  # all buffers on the way are full, and move in strides
    assert body.endswith(b"data: [DONE]\n\n") and house.engine.aborted == 0


def test_a_question_takes_as_many_places_as_it_asks_answers(client: Client, house: House) -> None:
    most = places_of("ann", house)
    several = {"model": "tiny", "prompt": ["a"] * (most // 16 + 1), "n": 16}
    status, _, body = client.ask("POST", "/v1/completions", json.dumps(several).encode())
    assert status == 400 and b"error" in body and not house.engine.asked
    few = several | {"n": 2}
    assert client.ask("POST", "/v1/completions", json.dumps(few).encode())[0] == 200


def test_slow_bodies_take_no_place(house: House) -> None:
    slow = [house.dial() for _ in range(places_of("ann", house) + 1)]
    try:
        for stream in slow:
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKENS['ann']}\r\n"
            )
            stream.send(head.encode() + b"content-type: application/json\r\ncontent-length: 5000000\r\n\r\n{")
        service = house.door._service
        assert service is not None
        wait_for(lambda: service.intake.open_each.total() == len(slow))
        assert service.intake.total == len(slow) * LEAST
        with house.dial() as stream:
            assert Client(stream).ask("POST", "/v1/chat/completions", chat())[0] == 200
    finally:
        for stream in slow:
            stream.close()
    wait_for(lambda: service.intake.total == 0)


def test_a_question_that_the_engine_has_is_kept_no_longer(house: House) -> None:
    house.engine.hangs = True
    service = house.door._service
    assert service is not None
    ours = [tracemalloc.Filter(True, f"*/{folder}/*") for folder in ("sidecars/proxy", "strongroom/host")]
    with house.dial() as stream:
        tracemalloc.start()
        try:
            Client(stream).begin("POST", "/v1/chat/completions", chat("x" * (4 << 20)))
            wait_for(lambda: len(house.engine.asked) == 1)
            wait_for(lambda: service.intake.total == 0)
            held = tracemalloc.take_snapshot().filter_traces(ours)
        finally:
            tracemalloc.stop()
        assert service.gateway.running == 1
    assert sum(trace.size for trace in held.traces) < 1 << 20


def test_a_whole_answer_that_is_cut_is_charged_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecars.proxy.completions.UNSEEN", 1_000_000)
    house.engine.hangs = True
    with house.dial() as stream:
        Client(stream).begin("POST", "/v1/chat/completions", chat("x" * 4000))
        wait_for(lambda: len(house.engine.asked) == 1)
    wait_for(lambda: house.engine.aborted == 1)
    with house.dial() as stream:
        usage = json.loads(Client(stream).ask("GET", "/v1/usage")[2])
    assert usage["prompt_tokens"] >= 1000 and usage["completion_tokens"] >= 1


@pytest.mark.guarantee("G12")
def test_a_finished_answer_is_read_to_its_end_while_the_door_closes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.host.door.peer.HIGH_WATER", 64 << 20)  # all of it waits in the door
    house.engine.says = ("x" * (12 << 20),)
    service = house.door._service
    assert service is not None
    with house.dial() as stream:
        client = Client(stream)
        client.begin("POST", "/v1/chat/completions", chat())
        wait_for(lambda: len(house.engine.asked) == 1)
        wait_for(lambda: service.gateway.running == 0)
        house.do(house.door.drain())
        house._life.cancel()
        wait_for(lambda: house.door.state == "closed")
        assert client.head()[0] == 200 and len(b"".join(client.body())) > 12 << 20
