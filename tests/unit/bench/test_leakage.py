"""Mirrors bench/leakage.py."""

from bench import leakage


def test_sizes_are_lengths_until_they_are_padded() -> None:
    tokens = leakage.words(300)
    plain, padded = leakage.leak(tokens, 0, 0), leakage.leak(tokens, 256, 0)
    assert plain.read == 1.0
    assert padded.read < 0.5 and padded.read >= padded.blind
    assert padded.size > plain.size


def test_gathered_tokens_are_harder_to_read() -> None:
    tokens = leakage.words(300)
    assert leakage.leak(tokens, 64, 100).read < leakage.leak(tokens, 0, 0).read
