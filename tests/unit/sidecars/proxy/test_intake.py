"""Mirrors sidecars/proxy/intake.py: what strangers announce takes nothing, what they send is bounded."""

import pytest

from sidecars.proxy import intake
from sidecars.proxy.intake import LEAST, Intake, Reading
from strongroom.host.door.refusal import Refusal


def begun(house: Intake, origin: bytes, came: int = 0, *, known: bool = False) -> Reading:
    reading = house.reading(origin, known=known)
    reading.await_more(came)
    return reading


def refused(house: Intake, origin: bytes, came: int = 0, *, known: bool = False) -> None:
    with pytest.raises(Refusal, match="429"), house.reading(origin, known=known) as reading:
        reading.await_more(came)


def require_empty(house: Intake) -> None:
    assert (house.total, house.unknown) == (0, 0)
    assert not house.each and not house.unknown_each and not house.open_each


def test_a_body_counts_for_what_came() -> None:
    house = Intake()
    with house.reading(b"a", known=True) as reading:
        assert house.total == 0  # as long as nobody has to wait for it
        reading.await_more(0)
        assert (house.total, house.unknown, house.open_each[b"a"]) == (LEAST, 0, 1)
        reading.await_more(LEAST - 1)
        assert house.total == LEAST
        reading.await_more(LEAST + 5)
        assert house.total == LEAST + 5
        reading.fill(b"x" * 7)
        assert (house.total, house.open_each[b"a"]) == (7, 0)
        assert (reading.take(), reading.take()) == (b"x" * 7, b"") and house.total == 7
        reading.release()
        require_empty(house)
    require_empty(house)


def test_whose_it_is_may_be_learnt_later() -> None:
    house = Intake()
    with begun(house, b"a", 100) as reading:
        reading.fill(b"x" * LEAST * 2)
        assert house.unknown == house.total == 2 * LEAST
        reading.fill(b"y")  # what was inside
        reading.admit()
        assert (house.unknown, house.total) == (0, 1)
    require_empty(house)


def test_strangers_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, units in (("MOST", 8), ("MOST_UNKNOWN", 4), ("MOST_EACH", 5), ("MOST_UNKNOWN_EACH", 2)):
        monkeypatch.setattr(intake, name, units * LEAST)
    house = Intake()
    held = [begun(house, b"a", 2 * LEAST)]
    refused(house, b"a")
    held.append(begun(house, b"b", 2 * LEAST))
    refused(house, b"c")
    held.append(begun(house, b"a", 3 * LEAST, known=True))
    refused(house, b"a", known=True)  # of all that one origin may have
    held.append(begun(house, b"c", known=True))
    refused(house, b"c", known=True)  # of all
    for reading in held:
        reading.release()
    require_empty(house)


def test_a_body_that_grows_beyond_what_is_left_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_UNKNOWN_EACH", 2 * LEAST)
    house = Intake()
    with begun(house, b"a") as first, begun(house, b"a") as second:
        with pytest.raises(Refusal, match="429"):
            first.await_more(LEAST + 1)
        with pytest.raises(Refusal, match="429"):
            second.fill(b"x" * (LEAST + 1))
    require_empty(house)


def test_one_origin_sends_only_so_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "OPEN_EACH", 2)
    house = Intake()
    with begun(house, b"a") as first, begun(house, b"a", known=True):
        refused(house, b"a", known=True)
        begun(house, b"b").release()
        with house.reading(b"a", known=True) as whole:
            whole.fill(b"{}")  # it came with its head
        first.fill(b"{}")
        begun(house, b"a").release()
    require_empty(house)
