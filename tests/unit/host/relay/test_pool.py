"""Mirrors strongroom/host/relay/pool.py."""

import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from strongroom.errors import ProtocolError, VerifyError
from strongroom.host.relay.pool import IDLE, Connection, Pool
from strongroom.host.sealedhttp import ForgottenKeyError


@dataclass
class Line:
    """A connection that does nothing."""

    is_quiet: bool = True
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass
class House:
    lines: list[Any] = field(default_factory=list)
    now: float = 1000.0
    fails: bool = False

    def open(self) -> Connection:
        if self.fails:
            raise VerifyError("not genuine")
        self.lines.append(Line())
        return cast(Connection, self.lines[-1])

    def pool(self, **more: Any) -> Pool:
        return Pool(self.open, clock=lambda: self.now, **more)


def test_a_connection_serves_one_request_after_another() -> None:
    house = House()
    pool = house.pool()
    for _ in range(3):
        with pool.borrowed() as line:
            assert line is house.lines[0]
    with pool.borrowed() as one, pool.borrowed() as two:
        assert one is not two
    assert len(house.lines) == 2


@pytest.mark.guarantee("G8")
def test_evidence_is_relied_on_for_so_long() -> None:
    house = House()
    pool = house.pool(max_age=30.0)
    with pool.borrowed():
        house.now += 29
    with pool.borrowed():
        house.now += 1
    assert [line.closed for line in house.lines] == [True]
    with pool.borrowed() as line:
        assert line is house.lines[1]


def test_what_was_idle_too_long_is_not_used() -> None:
    house = House()
    pool = house.pool()
    with pool.borrowed():
        pass
    house.now += IDLE
    with pool.borrowed() as line:
        assert line is house.lines[1] and house.lines[0].closed


def test_what_has_ended_meanwhile_is_not_used() -> None:
    house = House()
    pool = house.pool()
    with pool.borrowed():
        pass
    house.lines[0].is_quiet = False
    with pool.borrowed() as line:
        assert line is house.lines[1] and house.lines[0].closed


def test_what_ended_badly_is_closed() -> None:
    house = House()
    pool = house.pool()
    with pytest.raises(ProtocolError), pool.borrowed():
        raise ProtocolError("broken off")
    assert house.lines[0].closed


def test_a_forgotten_key_ends_all_that_were_opened_before() -> None:
    house = House()
    pool = house.pool()
    with pool.borrowed() as first, pool.borrowed() as second, pool.borrowed():
        assert first is not second
    with pool.borrowed():
        with pytest.raises(ForgottenKeyError), pool.borrowed():
            raise ForgottenKeyError("begun anew")
        with pool.borrowed() as new:
            assert new is house.lines[3]
    assert [line.closed for line in house.lines] == [True, True, True, False], "the busy one too"
    with pytest.raises(ForgottenKeyError), pool.borrowed():
        raise ForgottenKeyError("again")
    assert all(line.closed for line in house.lines)


def test_one_that_found_out_late_ends_none_that_are_newer() -> None:
    house = House()
    pool = house.pool()
    with ExitStack() as late:
        late.enter_context(pytest.raises(ForgottenKeyError))
        late.enter_context(pool.borrowed())
        with pytest.raises(ForgottenKeyError), pool.borrowed():
            raise ForgottenKeyError("begun anew")
        with pool.borrowed() as new:
            pass
        raise ForgottenKeyError("begun anew")
    with pool.borrowed() as line:
        assert line is new and len(house.lines) == 3


def test_one_that_is_not_accepted_is_none() -> None:
    house = House(fails=True)
    with pytest.raises(VerifyError), house.pool().borrowed():
        pytest.fail("there is nothing to borrow")


def test_closing_closes_what_is_there_and_what_comes_back() -> None:
    house = House()
    pool = house.pool()
    pool.add(house.open())
    with pool.borrowed(), pool.borrowed():
        pool.close()
    assert [line.closed for line in house.lines] == [True, True]
    with pytest.raises(ProtocolError, match="closing"), pool.borrowed():
        pytest.fail("it is closed")


def test_one_verification_at_a_time() -> None:
    house, inside, most = House(), [0], [0]
    opening = house.open

    def counted() -> Connection:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        made = opening()
        inside[0] -= 1
        return made

    pool = Pool(counted)
    barrier = threading.Barrier(4)

    def use() -> None:
        with pool.borrowed():
            barrier.wait(10)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(house.lines) == 4 and most == [1]
