"""Mirrors sidecars/proxy/tenants/bucket.py."""

import pytest

from sidecars.proxy.tenants.bucket import Bucket


def test_a_full_one_gives_a_minutes_worth_at_once_and_then_as_it_fills() -> None:
    bucket = Bucket(60, now=100.0)
    for _ in range(60):
        assert bucket.wait(1, 100.0) == 0
        bucket.spend(1, 100.0)
    assert bucket.wait(1, 100.0) == pytest.approx(1.0)
    assert bucket.wait(1, 100.5) == pytest.approx(0.5)
    assert bucket.wait(1, 101.0) == 0


def test_it_never_holds_more_than_a_minutes_worth() -> None:
    bucket = Bucket(6, now=0.0)
    assert bucket.level(1e9) == 6


def test_what_was_spent_beyond_it_is_made_up_first() -> None:
    bucket = Bucket(60, now=0.0)
    bucket.spend(180, 0.0)
    assert bucket.level(0.0) == -120
    assert bucket.wait(1, 0.0) == pytest.approx(121.0)
    assert bucket.wait(1, 121.5) == 0


def test_a_clock_that_stands_still_or_goes_back_fills_nothing() -> None:
    bucket = Bucket(60, now=50.0)
    bucket.spend(60, 50.0)
    assert bucket.level(50.0) == bucket.level(10.0) == 0
    assert bucket.level(51.0) == pytest.approx(1.0)


def test_the_average_holds_over_many_minutes() -> None:
    bucket, taken = Bucket(30, now=0.0), 0
    for tenth in range(6000):  # ten minutes of asking ten times a second
        if not bucket.wait(1, tenth / 10):
            bucket.spend(1, tenth / 10)
            taken += 1
    assert taken in {329, 330}  # a full bucket, and ten minutes of filling
