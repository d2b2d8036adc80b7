"""Mirrors broker/sessions.py and broker/rate.py."""

from datetime import timedelta

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
    sessions = Sessions(life=timedelta(seconds=10))
    sessions.begin("cookie", "nonce", NOW)
    assert sessions.find("cookie", NOW + timedelta(seconds=9)) is not None
    assert sessions.find("cookie", NOW + timedelta(seconds=10)) is None
    assert len(sessions) == 0


def test_the_table_is_bounded_and_nobody_is_put_out() -> None:
    sessions = Sessions(life=timedelta(seconds=10), max_sessions=2)
    assert sessions.begin("a", "n", NOW) and sessions.begin("b", "n", NOW)
    assert sessions.begin("c", "n", NOW) is None
    assert sessions.find("a", NOW) is not None
    assert sessions.begin("c", "n", NOW + timedelta(seconds=10)) is not None


def test_a_token_finds_its_session_until_that_ends() -> None:
    sessions = Sessions()
    session = sessions.begin("cookie", "nonce", NOW)
    assert session is not None
    sessions.attest(session, attested("a.b.c"))
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
