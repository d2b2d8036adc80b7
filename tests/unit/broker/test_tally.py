"""Mirrors broker/tally.py."""

from datetime import timedelta

import pytest

from strongroom.broker.audit import START, Audit, Outcome, turned_away
from strongroom.broker.rate import Rate
from strongroom.broker.tally import ALLOWANCES, MAX_NETWORKS, MAX_TOLD, Allowance, Tally
from tests.fakes.broker import NOW

FEW = Allowance(network=Rate(per_second=0.1, burst=2), everybody=Rate(per_second=0.1, burst=5))


def refusal(peer: str = "192.0.2.1", why: str = "garbage", *, seconds: float = 0.0) -> Audit:
    return turned_away(peer, NOW + timedelta(seconds=seconds), why)


def small() -> Tally:
    return Tally(dict.fromkeys(ALLOWANCES, FEW))


def test_the_first_few_have_lines_and_the_others_one_together() -> None:
    tally = small()
    apart = [tally.told_apart(refusal(why=f"garbage {n}", seconds=n / 10)) for n in range(10)]
    assert apart == [True, True] + [False] * 8
    (line,) = tally.summary(NOW + timedelta(seconds=60))
    assert (line.peer, line.outcome) == ("192.0.2.1", Outcome.TURNED_AWAY)
    assert line.rule == "8 more refusals in 60 s: 8 turned-away; last: garbage 9"
    assert tally.summary(NOW) == []


def test_a_network_gets_another_line_after_a_while() -> None:
    tally = small()
    assert [tally.told_apart(refusal(seconds=n)) for n in (0, 0, 0, 10, 10)] == [
        True,
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("outcome", [Outcome.RELEASED, Outcome.ATTESTED, Outcome.ADMINISTERED])
def test_what_was_given_always_has_its_line(outcome: Outcome) -> None:
    tally = small()
    audit = Audit(time=NOW, peer="192.0.2.1", outcome=outcome, rule="policy 00")
    assert all(tally.told_apart(audit) for _ in range(1000))
    assert tally.summary(NOW) == []


def test_every_outcome_is_either_given_or_bounded() -> None:
    given = {Outcome.RELEASED, Outcome.ATTESTED, Outcome.ADMINISTERED}
    assert set(Outcome) - given == ALLOWANCES.keys()


def test_strangers_do_not_use_up_the_lines_of_guests() -> None:
    tally = Tally()
    for n in range(5000):
        tally.told_apart(refusal(f"10.{n >> 8}.{n & 255}.1"))
    denied = Audit(time=NOW, peer="10.0.0.1", outcome=Outcome.DENIED, rule="policy 00: debug is on")
    assert tally.told_apart(denied)
    assert not tally.told_apart(refusal("203.0.113.7"))


def test_a_flood_from_everywhere_is_few_lines_and_little_memory() -> None:
    tally = small()
    lines = sum(tally.told_apart(refusal(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")) for n in range(20_000))
    assert lines == 5
    assert len(tally._counted) == MAX_NETWORKS + 1
    summary = tally.summary(NOW + timedelta(seconds=300))
    assert len(summary) == MAX_TOLD + 1
    told = sum(int(line.rule.split()[0]) for line in summary)
    assert told == 20_000 - 5
    assert summary[-1].peer == "others" and "of 1017 networks in 300 s" in summary[-1].rule


def test_one_ipv6_network_is_one() -> None:
    tally = small()
    peers = [f"2001:db8::{n:x}" for n in range(1, 10)]
    assert sum(tally.told_apart(refusal(peer)) for peer in peers) == 2
    assert tally.summary(NOW)[0].peer == "2001:db8::/64"


def test_words_of_others_stay_words() -> None:
    tally = small()
    for _ in range(3):
        tally.told_apart(refusal(why='\x1b[2J\n{"verdict":"released"}' + "x" * 5000))
    (line,) = tally.summary(NOW)
    packed = line.line(START)
    assert b"\n" not in packed and b"\\u001b" not in packed and len(packed) < 1000
    assert b'"verdict":"turned-away"' in packed
