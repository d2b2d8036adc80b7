"""Mirrors sidecars/receive/session.py: whose turn it is, as a table of what may happen next."""

import random

import pytest

from sidecars.receive.session import HOLD, Claim, Session, State
from strongroom.errors import ProtocolError
from strongroom.host.door.refusal import Refusal
from strongroom.push.answers import Accepted

FIRST = Claim(b"provider 1", b"manifest 1")
CHANGED = Claim(b"provider 1", b"manifest 2")
SECOND = Claim(b"provider 2", b"manifest 1")
ACCEPTED = Accepted(
    name="tiny", epoch=1, root=bytes(32), manifest_sha256=bytes(32), provider_sha256=bytes(32)
)


def receiving() -> Session[str]:
    session = Session[str]()
    assert session.claim("a", FIRST, now=0) is None
    assert session.state is State.RECEIVING
    return session


def code(refused: pytest.ExceptionInfo[Refusal]) -> tuple[int, str]:
    return refused.value.status, refused.value.code


def test_the_straight_way() -> None:
    session = receiving()
    assert session.require("a", now=1) == FIRST
    assert session.seal("a", now=2) == FIRST
    session.accept(ACCEPTED)
    assert (session.state, session.accepted) == (State.ACCEPTED, ACCEPTED)


def test_nothing_goes_without_a_turn() -> None:
    session = Session[str]()
    for step in (session.require, session.seal):
        with pytest.raises(Refusal) as refused:
            step("a", now=0)
        assert code(refused) == (409, "no_turn")
    session = receiving()
    with pytest.raises(Refusal):
        session.require("b", now=0)
    with pytest.raises(ProtocolError):
        session.accept(ACCEPTED)


def test_the_same_provider_comes_back_on_another_connection() -> None:
    session = receiving()
    assert session.claim("b", FIRST, now=1) == "a"  # to be cut
    with pytest.raises(Refusal):
        session.require("a", now=1)
    session.left("a", now=2)  # as it does when it was cut: without effect
    assert session.require("b", now=2) == FIRST
    session.left("b", now=3)
    assert session.claim("c", FIRST, now=4) is None
    assert session.claim("c", FIRST, now=5) is None  # on its own connection nothing is cut


def test_the_same_provider_may_offer_another_manifest() -> None:
    session = receiving()
    assert session.claim("b", CHANGED, now=1) == "a"
    assert session.require("b", now=1) == CHANGED
    session.refuse(FIRST)  # of work that was still under way: without effect
    assert session.require("b", now=1) == CHANGED


def test_a_second_provider_waits_until_the_first_is_gone_for_long() -> None:
    session = receiving()
    with pytest.raises(Refusal) as refused:
        session.claim("b", SECOND, now=1e9)  # still connected
    assert code(refused) == (409, "taken")
    session.left("a", now=100)
    with pytest.raises(Refusal):
        session.claim("b", SECOND, now=100 + HOLD - 1)
    assert session.require("a", now=1) if session.claim("a", FIRST, now=101) else True
    session.left("a", now=200)
    assert session.claim("b", SECOND, now=200 + HOLD) is None
    assert session.require("b", now=300) == SECOND


def test_a_refused_claim_frees_the_turn() -> None:
    session = receiving()
    session.refuse(FIRST)
    assert (session.state, session.claimed) == (State.WAITING, None)
    assert session.claim("b", SECOND, now=0) is None


def test_nobody_comes_in_between_while_it_is_sealed() -> None:
    session = receiving()
    session.seal("a", now=0)
    with pytest.raises(Refusal) as refused:
        session.claim("b", FIRST, now=1)
    assert code(refused) == (503, "sealing")
    for claim in (CHANGED, SECOND):
        with pytest.raises(Refusal) as refused:
            session.claim("b", claim, now=1e9)
        assert code(refused) == (409, "accepted")
    with pytest.raises(Refusal):
        session.seal("a", now=1)


def test_what_was_accepted_is_told_to_its_provider_alone() -> None:
    session = receiving()
    session.seal("a", now=0)
    session.accept(ACCEPTED)
    session.refuse(FIRST)  # too late
    session.left("a", now=1)
    assert session.claim("b", FIRST, now=1e9) is None
    assert session.accepted is ACCEPTED
    for claim in (CHANGED, SECOND):
        with pytest.raises(Refusal):
            session.claim("c", claim, now=1e9)


def test_whatever_happens_one_connection_has_the_turn_and_only_one_model_is_accepted() -> None:
    chance = random.Random(3)
    for _ in range(300):
        session, now, accepted = Session[str](), 0.0, 0
        for _ in range(60):
            now += chance.choice([0, 1, HOLD + 1])
            sender = chance.choice("abc")
            try:
                match chance.randrange(6):
                    case 0 | 1:
                        session.claim(sender, chance.choice([FIRST, CHANGED, SECOND]), now=now)
                    case 2:
                        session.left(sender, now=now)
                    case 3:
                        session.seal(sender, now=now)
                    case 4:
                        session.accept(ACCEPTED)
                        accepted += 1
                    case _:
                        session.refuse(chance.choice([FIRST, CHANGED, SECOND]))
            except (Refusal, ProtocolError):
                continue
            finally:
                assert sum(_has_turn(session, one) for one in "abc") <= 1
        assert accepted <= 1


def _has_turn(session: Session[str], sender: str) -> bool:
    try:
        session.require(sender, now=0)
    except Refusal:
        return False
    return True
