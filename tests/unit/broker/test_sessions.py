"""Mirrors broker/sessions.py and broker/rate.py."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.broker.proof import Proof
from strongroom.broker.rate import Buckets, Rate
from strongroom.broker.sessions import Attested, Sessions
from strongroom.evidence.kbs import CompositeEvidence, Digests
from tests.fakes.broker import NOW
from tests.fakes.kbs import Machine


def attested(token: str) -> Attested:
    evidence = CompositeEvidence(primary=Machine().primary(bytes(48)))
    proof = Proof(evidence=evidence, digests=Digests(primary=bytes(48), device=bytes(48)))
    return Attested(proof, ec.derive_private_key(5, ec.SECP256R1()).public_key(), "genuine", token)


def test_a_session_is_found_by_its_cookie_alone() -> None:
    sessions = Sessions()
    session = sessions.begin("cookie", "nonce", NOW)
    assert sessions.find("cookie", NOW) is session
    assert sessions.find("other", NOW) is None
    assert sessions.find(None, NOW) is None
    assert sessions.find("\udcff", NOW) is None


def test_a_session_ends_with_its_life() -> None:
    sessions = Sessions(waiting=timedelta(seconds=10))
    sessions.begin("cookie", "nonce", NOW)
    assert sessions.find("cookie", NOW + timedelta(seconds=9)) is not None
    assert sessions.find("cookie", NOW + timedelta(seconds=10)) is None
    assert len(sessions) == 0


def test_the_table_is_bounded_and_nobody_attested_is_put_out() -> None:
    sessions = Sessions(life=timedelta(seconds=10), max_sessions=2)
    for name in "ab":
        assert sessions.begin(name, "n", NOW) and sessions.attest(name, attested(name), NOW)
    assert sessions.begin("c", "n", NOW) is None
    assert sessions.find("a", NOW) is not None
    assert sessions.begin("c", "n", NOW + timedelta(seconds=10)) is not None


def test_the_fullest_network_gives_way() -> None:
    sessions = Sessions(max_sessions=4)
    for name, peer in (("a", "192.0.2.1"), ("b", "2001:db8::1"), ("c", "2001:db8::2"), ("d", "2001:db8::3")):
        assert sessions.begin(name, "n", NOW, peer=peer)
    sessions.attempt("b", NOW)  # is being verified: it stays
    assert sessions.begin("e", "n", NOW, peer="198.51.100.1")
    assert [name for name in "abcde" if sessions.find(name, NOW)] == ["a", "b", "d", "e"]


@pytest.mark.parametrize("peers", [["192.0.2.1"] * 3, ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:9::"]])
def test_one_network_has_its_share(peers: list[str]) -> None:
    sessions = Sessions(max_of_peer=2)
    began = [sessions.begin(str(n), "n", NOW, peer=peer) is not None for n, peer in enumerate(peers)]
    assert began == [True, True, False]
    assert sessions.begin("x", "n", NOW, peer="2001:db8:0:1::1")


def test_who_brings_no_evidence_soon_is_forgotten() -> None:
    sessions = Sessions()
    for name in "ab":
        assert sessions.begin(name, "n", NOW)
    assert sessions.attest("a", attested("a"), NOW)
    assert sessions.find("a", NOW + timedelta(seconds=31)) is not None
    assert sessions.find("b", NOW + timedelta(seconds=31)) is None


def evidence_of(token: str, size: int) -> Attested:
    return replace(attested(token), body=bytes(size))


def admit(sessions: Sessions, name: str, peer: str, size: int = 0) -> bool:
    assert sessions.begin(name, "n", NOW, peer=peer)
    return sessions.attest(name, evidence_of(name, size), NOW)


def alive(sessions: Sessions, names: str) -> str:
    found = [name for name in names if sessions.find(name, NOW)]
    assert found == [name for name in names if sessions.find_by_token(name, NOW)]
    return "".join(found)


def test_what_is_kept_of_evidence_is_bounded() -> None:
    sessions = Sessions(max_kept=10)
    assert admit(sessions, "a", "192.0.2.1", 8)
    assert admit(sessions, "b", "192.0.2.2", 8)
    assert alive(sessions, "ab") == "b"
    assert not admit(sessions, "c", "192.0.2.3", 11)  # that nobody's going could make room for
    assert alive(sessions, "ab") == "b"
    assert not sessions.attest("gone", attested("c"), NOW)


@pytest.mark.parametrize("size", [0, 4])
def test_one_genuine_network_keeps_nobody_out(size: int) -> None:
    """It has its share, and where all are given out it gives way: in number, or in bytes of evidence."""
    sessions = Sessions(max_attested=6, max_attested_of_peer=4, max_kept=24, max_kept_of_peer=16)
    for n, name in enumerate("abcdef"):
        assert admit(sessions, name, f"2001:db8::{n + 1}", size)  # of one /64
    assert alive(sessions, "abcdef") == "cdef"
    for n, name in enumerate("ghij"):
        assert admit(sessions, name, f"192.0.2.{n}", size)
    assert alive(sessions, "abcdefghij") == "efghij"
    assert admit(sessions, "k", "2001:db8::9", size)  # it has most, with this one
    assert alive(sessions, "abcdefghijk") == "fghijk"
    assert len(sessions) == 6


def test_large_evidence_of_one_network_gives_way_and_not_the_small_of_another() -> None:
    sessions = Sessions(max_kept=10, max_kept_of_peer=10)
    assert all(admit(sessions, name, "192.0.2.1", 1) for name in "abc")
    assert admit(sessions, "d", "192.0.2.2", 6)
    assert admit(sessions, "e", "192.0.2.3", 4)
    assert alive(sessions, "abcde") == "abce"
    for name in "abce":
        sessions.end(name)
    assert admit(sessions, "f", "192.0.2.1", 10)


def test_who_only_waits_puts_out_nobody_attested_and_always_has_places() -> None:
    sessions = Sessions(max_sessions=4, max_attested=3)
    for n, name in enumerate("abcd"):
        assert admit(sessions, name, f"192.0.2.{n}")
    assert alive(sessions, "abcd") == "bcd"
    for n in range(9):
        assert sessions.begin(f"waits {n}", "n", NOW, peer=f"198.51.100.{n}")
    assert alive(sessions, "bcd") == "bcd" and len(sessions) == 4


def test_sessions_of_an_earlier_process_are_of_no_network() -> None:
    earlier = Sessions()
    for name in "abc":
        assert admit(earlier, name, "192.0.2.1", 3)
    assert earlier.begin("d", "n", NOW, peer="192.0.2.1")
    sessions = Sessions(max_attested=3, max_attested_of_peer=1, max_kept=9, max_kept_of_peer=3)
    for key, session in earlier.ongoing(NOW):
        assert sessions.resume(key, replace(session, peer=""), NOW)
    assert alive(sessions, "abc") == "abc" and sessions.find("d", NOW)
    assert admit(sessions, "e", "192.0.2.1", 3)
    assert admit(sessions, "f", "192.0.2.1", 3)
    assert alive(sessions, "abcef") == "bcf"  # the oldest of those who have as much as anybody; its own


def test_of_an_earlier_process_no_more_goes_on_than_may_be() -> None:
    earlier = Sessions()
    assert admit(earlier, "a", "192.0.2.1", 3) and admit(earlier, "b", "192.0.2.1", 3)
    for sessions in (Sessions(max_attested=1), Sessions(max_kept=5), Sessions(max_sessions=1)):
        kept = [sessions.resume(key, replace(one, peer=""), NOW) for key, one in earlier.ongoing(NOW)]
        assert kept == [True, False] and alive(sessions, "ab") == "a"


def test_a_token_finds_its_session_until_that_ends() -> None:
    sessions = Sessions()
    session = sessions.begin("cookie", "nonce", NOW)
    assert session is not None
    assert sessions.attest("cookie", attested("a.b.c"), NOW)
    assert sessions.find_by_token("a.b.c", NOW) is session
    assert sessions.find_by_token("a.b.d", NOW) is None
    assert sessions.find_by_token(None, NOW) is None
    sessions.end("cookie")
    assert sessions.find_by_token("a.b.c", NOW) is None
    sessions.end("cookie")


def test_no_secret_is_shown() -> None:
    session = Sessions().begin("cookie", "nonce-text", NOW)
    assert "nonce-text" not in repr(session)
    assert "a.b.c" not in repr(attested("a.b.c"))


def test_an_address_gets_its_burst_and_then_its_rate() -> None:
    buckets = Buckets(Rate(per_second=2, burst=3))
    assert [buckets.take("a", NOW) for _ in range(4)] == [True, True, True, False]
    assert buckets.take("b", NOW)
    assert not buckets.take("a", NOW + timedelta(seconds=0.4))
    assert buckets.take("a", NOW + timedelta(seconds=0.5))
    assert [buckets.take("a", NOW + timedelta(hours=1)) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    buckets = Buckets(Rate(per_second=2, burst=1))
    assert buckets.take("a", NOW)
    assert not buckets.take("a", NOW - timedelta(hours=1))


def test_the_table_of_addresses_is_bounded() -> None:
    buckets = Buckets(Rate(per_second=1, burst=1), max_addresses=2)
    assert buckets.take("a", NOW) and buckets.take("b", NOW) and buckets.take("c", NOW)
    assert not buckets.take("c", NOW)
    assert buckets.take("a", NOW)  # forgotten, so new
