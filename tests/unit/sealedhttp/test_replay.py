"""Mirrors strongroom/sealedhttp/replay.py."""

import pytest

from strongroom.sealedhttp.replay import WINDOW, Replays

NOW = 1_700_000_000


def secret(n: int) -> bytes:
    return n.to_bytes(32, "big")


@pytest.mark.guarantee("G7")
def test_a_request_is_taken_once() -> None:
    replays = Replays()
    assert replays.take(secret(1), NOW) and replays.take(secret(2), NOW)
    assert not replays.take(secret(1), NOW) and not replays.take(secret(1), NOW + 1)


@pytest.mark.parametrize(
    ("time", "timely"),
    [(NOW, True), (NOW - WINDOW, True), (NOW + WINDOW, True), (NOW - WINDOW - 1, False), (NOW + WINDOW + 1, False),
     (0, False)],
)  # fmt: skip
def test_only_the_present_is_timely(time: int, timely: bool) -> None:
    assert Replays().is_timely(time, now=NOW) is timely


@pytest.mark.guarantee("G7")
def test_what_is_forgotten_is_too_old_for_ever() -> None:
    replays = Replays(most=2)
    assert not replays.is_full(now=NOW)
    replays.take(secret(1), NOW)
    replays.take(secret(2), NOW + WINDOW)
    assert replays.is_full(now=NOW)
    assert replays.is_full(now=NOW + WINDOW)
    assert not replays.is_full(now=NOW + WINDOW + 1) and len(replays) == 1
    assert not replays.take(secret(2), NOW + WINDOW)
    assert not replays.is_timely(NOW, now=NOW), "the clock was set back"


def test_full_it_takes_no_more() -> None:
    replays = Replays(most=3)
    for n in range(3):
        assert not replays.is_full(now=NOW)
        replays.take(secret(n), NOW)
    assert replays.is_full(now=NOW) and len(replays) == 3
