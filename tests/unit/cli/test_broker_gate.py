"""Mirrors cli/broker_gate.py: who has a place, without a socket."""

import asyncio
from dataclasses import dataclass, field

import pytest

from strongroom.cli.broker_gate import SILENT, Gate, Place


class Line(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.cut = 0

    def abort(self) -> None:
        self.cut += 1


@dataclass
class Room:
    """A gate and a clock."""

    most: int = 4
    of_address: int = 2
    now: float = 100.0
    refused: list[tuple[str, str]] = field(default_factory=list)
    hung_up: list[str] = field(default_factory=list)  # in their handshake

    def __post_init__(self) -> None:
        self.gate = Gate(
            self.most, self.of_address, lambda *told: self.refused.append(told), lambda: self.now
        )

    def enter(self, address: str) -> Place | None:
        """One that begins its handshake."""
        return self.gate.enter(address, lambda: self.hung_up.append(address))

    def connect(self, address: str) -> tuple[Place, Line]:
        place, line = self.enter(address), Line()
        assert place is not None
        self.gate.connected(place, line)
        return place, line


def test_one_address_has_its_share() -> None:
    room = Room()
    first, _ = room.connect("192.0.2.1")
    room.connect("192.0.2.1")
    assert room.enter("192.0.2.1") is None
    assert room.refused == [("192.0.2.1", "too many connections from this address")]
    room.connect("192.0.2.2")
    room.gate.leave(first)
    room.gate.leave(first)
    assert len(room.gate) == 2
    room.connect("192.0.2.1")
    assert room.enter("192.0.2.1") is None


@pytest.mark.parametrize(
    ("one", "other"), [("2001:db8::1", "2001:db8::ffff"), ("192.0.2.1", "::ffff:192.0.2.1")]
)
def test_a_network_is_one_address(one: str, other: str) -> None:
    room = Room(of_address=1)
    room.connect(one)
    assert room.enter(other) is None


def test_who_is_silent_for_longest_gives_way() -> None:
    room = Room(most=3)
    lines = []
    for n in range(3):
        room.now += 1
        lines.append(room.connect(f"192.0.2.{n}"))
    room.now += 1
    room.gate.heard(lines[0][0])
    room.now += SILENT
    assert room.enter("192.0.2.9") is not None
    assert [line.cut for _, line in lines] == [0, 1, 0]
    assert len(room.gate) == 3


def test_nobody_gives_way_who_was_just_heard() -> None:
    room = Room(most=2)
    room.connect("192.0.2.1")
    room.connect("192.0.2.2")
    room.now += SILENT / 2
    assert room.enter("192.0.2.3") is None
    assert room.refused == [("192.0.2.3", "too many connections")]


def test_who_waits_for_an_answer_does_not_give_way() -> None:
    room = Room(most=1)
    _, line = room.connect("192.0.2.1")
    room.now += 10 * SILENT
    with room.gate.busy(line):
        assert room.enter("192.0.2.3") is None
    room.now += 10 * SILENT
    assert room.enter("192.0.2.3") is not None
    assert line.cut == 1


def test_who_shakes_hands_gives_way_first_and_hearing_of_it_helps_nobody() -> None:
    room = Room(most=3)
    _, line = room.connect("192.0.2.1")
    first, second = room.enter("192.0.2.2"), room.enter("192.0.2.3")
    assert first is not None and second is not None
    room.now += SILENT
    room.gate.heard(first)  # bytes of a handshake
    assert room.enter("192.0.2.4") is not None
    assert (room.hung_up, line.cut, len(room.gate)) == (["192.0.2.2"], 0, 3)


def test_of_those_in_their_handshake_the_fullest_network_gives_way_at_once() -> None:
    room = Room(most=5, of_address=3)
    for address in ("192.0.2.9", "192.0.2.2", "192.0.2.2", "2001:db8::1", "192.0.2.2"):
        assert room.enter(address) is not None
    assert room.enter("192.0.2.1") is not None
    assert room.enter("192.0.2.1") is None  # both would have two: nobody is better off
    assert room.hung_up == ["192.0.2.2"]
    room.now += SILENT
    assert room.enter("192.0.2.1") is not None
    assert room.hung_up == ["192.0.2.2"] * 2


def test_an_address_that_is_heard_all_the_time_keeps_nobody_out() -> None:
    room = Room(most=3, of_address=3)
    lines = [room.connect("192.0.2.1") for _ in range(3)]
    with room.gate.busy(lines[0][1]):
        assert room.enter("192.0.2.2") is not None
    assert [line.cut for _, line in lines] == [0, 1, 0]


def test_who_was_cut_off_in_its_handshake_ends_with_it() -> None:
    room = Room(most=1)
    place, line = room.enter("192.0.2.1"), Line()
    room.now += SILENT
    assert place is not None and room.enter("192.0.2.2") is not None
    room.gate.connected(place, line)
    room.gate.leave(place)
    assert (line.cut, len(room.gate), len(room.gate._by_transport)) == (1, 1, 0)


def test_a_request_of_a_connection_that_is_gone_is_no_trouble() -> None:
    room = Room()
    place, line = room.connect("192.0.2.1")
    room.gate.leave(place)
    for transport in (line, None):
        with room.gate.busy(transport):
            assert len(room.gate) == 0
    room.gate.heard(place)
    assert len(room.gate) == 0


def test_what_is_forgotten_leaves_nothing() -> None:
    room = Room(most=1000, of_address=1000)
    places = [room.connect(f"192.0.2.{n % 250}")[0] for n in range(1000)]
    for place in places:
        room.gate.leave(place)
    assert (len(room.gate), len(room.gate._of_network), len(room.gate._by_transport)) == (0, 0, 0)
