"""Mirrors guest/keysock/server.py: strangers who send too much, too slowly, too often, or nonsense."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import pytest

from guest.keysock import server
from guest.keysock.rights import Caller, Rights, Rule
from guest.keysock.server import Connection, House
from tests.fakes.keysock import Keysock, call, served

INFO = b"POST /Version HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def connected(keysock: Keysock, door: str = "dstack") -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(keysock.path(door)))  # without a timeout, which would not wait to be accepted
        client.settimeout(10)
        yield client


def read(client: socket.socket, answers: int = 1) -> bytes:
    """So many answers, or what came before the end."""
    data = b""
    while data.count(b"HTTP/1.1 ") < answers or not data.endswith((b"}", b"null")):
        if not (piece := client.recv(65536)):
            break
        data += piece
    return data


def ended(client: socket.socket) -> bool:
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_one_connection_carries_many_requests(keysock: Keysock) -> None:
    with connected(keysock) as client:
        for _ in range(3):
            client.sendall(INFO)
            assert read(client).startswith(b"HTTP/1.1 200 OK")
        client.sendall(INFO * 5)
        assert read(client, 5).count(b"HTTP/1.1 200 OK") == 5


def test_a_half_closed_client_still_gets_its_answer(keysock: Keysock) -> None:
    with connected(keysock) as client:
        client.sendall(b"POST /Info HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert b'"app_id"' in read(client)
        assert ended(client)


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01 hello",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_nonsense_is_answered_in_json_and_ends_the_connection(keysock: Keysock, raw: bytes) -> None:
    with connected(keysock) as client:
        client.sendall(raw)
        head, _, body = read(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 4") and b"Connection: close" in head
        assert set(json.loads(body)) == {"error"}
        assert ended(client)


def test_a_large_body_is_refused_by_its_length_and_the_answer_is_not_lost(keysock: Keysock) -> None:
    """A client that sends all of 30 MB before it looks still reads why."""
    with connected(keysock) as client:
        client.sendall(b"POST /GetKey HTTP/1.1\r\nContent-Length: 31457280\r\n\r\n")
        for _ in range(30):
            client.sendall(bytes(1 << 20))
        assert read(client).startswith(b"HTTP/1.1 413 ")


def test_a_body_within_the_limit_is_read(keysock: Keysock) -> None:
    for target, size in (("/Version", 60 << 10), ("/v0/Verify", 1 << 20), ("/prpc/Tappd.Sign", 1 << 20)):
        door = "tappd" if "Tappd" in target else "dstack"
        assert call(keysock.path(door), target, {"ignored": "x" * size})[0] != 413


@pytest.mark.guarantee("G16")
def test_only_what_is_hashed_is_large(keysock: Keysock) -> None:
    for target in ("/Version", "/GetKey", "/Sign/x", "/Version?/Sign"):
        with connected(keysock) as client:
            client.sendall(f"POST {target} HTTP/1.1\r\nContent-Length: 65537\r\n\r\n".encode())
            assert b"413 " in read(client) and ended(client)


@pytest.mark.guarantee("G16")
def test_a_body_of_a_great_many_values_is_not_read(keysock: Keysock) -> None:
    values: list[object] = [[] for _ in range(100_000)]
    status, answer = call(keysock.path("dstack"), "/Verify", {"ignored": values})
    assert (status, answer) == (400, {"error": "request: more than 1024 values"})


def test_bytes_that_are_under_way_are_bounded(keysock: Keysock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_HELD_OF_ONE", 3 << 20)
    head = b"POST /Sign HTTP/1.1\r\nContent-Length: 2097152\r\n\r\n"
    with connected(keysock) as first, connected(keysock) as second:
        first.sendall(head)
        time.sleep(0.1)
        second.sendall(head)
        assert b"too much under way" in read(second)
    deadline = time.monotonic() + 5
    while keysock.house.held and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not keysock.house.held  # what was announced is free again once its connection has ended


@pytest.fixture
def quick(socket_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keysock]:
    """The same with little patience."""
    for name, seconds in (
        ("ARRIVAL", 0.3),
        ("IDLE", 0.5),
        ("DEPARTURE", 0.4),
        ("BUDGET", 0.2),
        ("LINGER", 0.2),
    ):
        monkeypatch.setattr(server, name, seconds)
    with served(socket_dir) as keysock:
        yield keysock


def test_a_slow_request_is_cut_however_steadily_it_drips(quick: Keysock) -> None:
    with connected(quick) as client:
        client.sendall(b"POST /GetKey HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
        try:
            for _ in range(100):
                client.sendall(b"x")
                time.sleep(0.02)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert b"408 Request Timeout" in read(client)


def test_a_slow_head_is_cut_too(quick: Keysock) -> None:
    with connected(quick) as client:
        client.sendall(b"POST /GetKey HT")
        assert b"408 Request Timeout" in read(client)
        assert ended(client)


def test_an_idle_connection_is_closed(quick: Keysock) -> None:
    with connected(quick) as client:
        assert client.recv(1) == b""


def test_who_does_not_take_his_answers_is_cut(quick: Keysock) -> None:
    with connected(quick) as client:
        client.setblocking(False)
        question = b"POST /Info HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
        try:
            while True:
                client.send(question * 100)
        except BlockingIOError:
            pass
        time.sleep(1.0)
        assert quick.house.count == 0
    assert call(quick.path("dstack"), "/Version", {})[0] == 200


def test_a_machine_that_does_not_answer_is_told_within_the_budget(
    quick: Keysock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep = time.sleep

    def slow(report_data: bytes, *, privlevel: int | None = None) -> object:
        asleep(1.0)
        raise AssertionError

    monkeypatch.setattr(quick.attester._tsm, "report", slow)
    status, answer = call(quick.path("dstack"), "/GetQuote", {"report_data": "00"})
    assert status == 503 and "no answer within 0.2 s" in answer["error"]
    # ... and others were never behind it
    assert call(quick.path("dstack"), "/GetKey", {"path": "x"})[0] == 200


def test_connections_of_one_caller_are_bounded_and_idle_ones_make_room(socket_dir: Path) -> None:
    with served(socket_dir, house=House(most_of_one=8)) as keysock, ExitStack() as stack:
        busy = stack.enter_context(connected(keysock))
        busy.sendall(b"POST /GetKey HTTP/1.1\r\nContent-Length: 10\r\n\r\n")
        time.sleep(0.1)
        clients = [stack.enter_context(connected(keysock)) for _ in range(50)]
        clients[-1].sendall(INFO)
        assert read(clients[-1]).startswith(b"HTTP/1.1 200")
        assert keysock.house.count <= 8
        assert clients[0].recv(1) == b""  # the oldest idle one made room
        busy.sendall(b'{"path":1}')
        assert read(busy).startswith(b"HTTP/1.1 415")


def test_a_caller_whose_connections_are_all_busy_is_turned_away(socket_dir: Path) -> None:
    with served(socket_dir, house=House(most_of_one=4)) as keysock, ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connected(keysock)).sendall(b"POST /x HTTP/1.1\r\n")
        time.sleep(0.1)
        with connected(keysock) as client:
            answer = read(client)
        assert b"503" in answer and f"uid-{os.getuid()} has too many".encode() in answer


class Held:
    """A connection of which the house knows whether it is idle."""

    def __init__(self, house: House, caller: Caller, *, is_idle: bool) -> None:
        self.house, self.caller, self.is_idle = house, caller, is_idle

    def abort(self) -> None:
        self.house.forget(self, self.caller.name)  # type: ignore[arg-type]


def held(house: House, uid: int, count: int, *, is_idle: bool) -> int:
    """How many more connections of that uid there are."""
    caller = Caller(uid=uid)
    return sum(
        house.admit(cast(Connection, Held(house, caller, is_idle=is_idle)), caller) for _ in range(count)
    )


def test_a_full_house_takes_from_the_fullest() -> None:
    house = House(most=16, most_of_one=6)
    assert held(house, 1, 6, is_idle=True) == 6 and held(house, 2, 6, is_idle=True) == 6
    assert held(house, 3, 2, is_idle=False) == 2
    assert {name: len(theirs) for name, theirs in house.connections.items()} == {
        "uid-1": 5,
        "uid-2": 5,
        "uid-3": 2,
    }
    assert house.count == 12


@pytest.mark.guarantee("G20")
def test_whom_a_rule_names_has_room_where_all_others_are_busy() -> None:
    house = House(most=16, most_of_one=4, known=Rights(uids={7: Rule()}).names)
    assert sum(held(house, uid, 4, is_idle=False) for uid in range(100, 116)) == 12
    assert house.refused and "uid-115" not in house.connections
    assert held(house, 7, 5, is_idle=False) == 4


def test_a_storm_of_connections_leaves_nothing_behind(keysock: Keysock) -> None:
    for _ in range(900):  # fewer than may wait to be accepted
        with connected(keysock) as client:
            client.send(b"POST /Vers")
    deadline = time.monotonic() + 10
    while call(keysock.path("dstack"), "/Version", {})[0] != 200 and time.monotonic() < deadline:
        time.sleep(0.01)  # the last of the storm still have their places
    while keysock.house.count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert keysock.house.count == 0 and not keysock.house.connections


def test_a_defect_tells_nothing(keysock: Keysock, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the key is 0102")

    monkeypatch.setattr("strongroom.keys.dstack.AppKeys.claim_v0", broken)
    status, answer = call(keysock.path("dstack"), "/GetKey", {"path": "x"})
    assert status == 500 and "0102" not in json.dumps(answer)
