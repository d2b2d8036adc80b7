"""Mirrors broker/suspended.py, and the desk that ends and begins again around it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.broker.desk import Desk
from strongroom.broker.exchange import Admission, Reply
from strongroom.broker.messages import Request
from strongroom.broker.sessions import Sessions
from strongroom.broker.suspended import Suspended
from strongroom.errors import FormatError, ProtocolError
from tests.fakes.broker import NOW, VOLUME, Guest, ToldKeeper, carry, desk
from tests.fakes.broker import URI as RESOURCE
from tests.fakes.silicon import silicon


def asked(at: Desk, admission: Admission) -> bytes:
    """The secret that an admission gets from this desk."""
    send = admission.ask(RESOURCE)
    answer = carry(at, send)
    return admission.open(send, Reply(answer.status, answer.body, send.cookie))


def test_an_attested_guest_goes_on_at_the_next_desk() -> None:
    first, second = desk(ToldKeeper()), desk(ToldKeeper())
    admission = Guest.on(silicon()).admitted(first)
    kept = first.suspend(NOW)
    assert second.resume(kept, NOW) == 1
    assert asked(second, admission) == VOLUME.pack()
    with pytest.raises(ProtocolError, match="TokenNotFound"):
        asked(desk(ToldKeeper()), admission)


def test_a_guest_in_the_middle_goes_on_too_and_has_one_attempt() -> None:
    first, second = desk(ToldKeeper()), desk(ToldKeeper())
    begun = first.auth(Request("snp").pack(), peer="192.0.2.1", now=NOW)
    assert second.resume(first.suspend(NOW), NOW) == 1
    for _ in range(2):
        answer = second.attest(b"{}", peer="192.0.2.1", cookie=begun.cookie, now=NOW)
        assert answer.status == 401
    assert second.suspend(NOW) == []


def test_a_session_ends_when_it_would_have_ended() -> None:
    first, second = desk(ToldKeeper()), desk(ToldKeeper())
    Guest.on(silicon()).admitted(first)
    kept = first.suspend(NOW + timedelta(minutes=4))
    assert second.resume(kept, NOW + timedelta(minutes=4)) == 1
    assert second.suspend(NOW + timedelta(minutes=5)) == []
    assert desk(ToldKeeper()).resume(kept, NOW + timedelta(minutes=5)) == 0


def test_a_full_desk_resumes_no_more() -> None:
    first, second = desk(ToldKeeper()), desk(ToldKeeper(), sessions=Sessions(max_sessions=1))
    for n in range(3):
        first.auth(Request("snp").pack(), peer=f"192.0.2.{n}", now=NOW)
    assert second.resume(first.suspend(NOW), NOW) == 1


@pytest.fixture
def packed() -> bytes:
    at = desk(ToldKeeper())
    Guest.on(silicon()).admitted(at)
    return at.suspend(NOW)[0]


@pytest.mark.guarantee("G11")
def test_it_is_read_as_it_was_written(packed: bytes) -> None:
    kept = Suspended.parse(packed)
    assert kept.pack() == packed and kept.outcome is not None
    assert kept.outcome.token not in repr(kept) and kept.nonce not in repr(kept)


def test_every_cut_is_refused(packed: bytes) -> None:
    for length in range(0, len(packed), 7):
        with pytest.raises(FormatError):
            Suspended.parse(packed[:length])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"nonce":', b'"monce":'),
        (b'"tee":"snp"', b'"tee":"xyz"'),
        (b'"tee":"snp"', b'"tee":1'),
        (b'+00:00"', b'"'),
        (b'"expires":"2', b'"expires":"x'),
        (b'"cookie_sha256":"', b'"cookie_sha256":"00'),
        (b'"cookie_sha256":"', b'"cookie_sha256":"z'),
        (b'"rule":', b'"role":'),
    ],
)
def test_what_is_not_ours_is_refused(packed: bytes, old: bytes, new: bytes) -> None:
    assert old in packed
    with pytest.raises(FormatError, match="suspended session"):
        Suspended.parse(packed.replace(old, new, 1))


def test_an_open_session_has_no_outcome(packed: bytes) -> None:
    kept = replace(Suspended.parse(packed), outcome=None)
    assert Suspended.parse(kept.pack()) == kept
