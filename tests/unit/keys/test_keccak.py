"""Mirrors strongroom/keys/keccak.py. Second opinion: eth-hash (pycryptodome)."""

import random

import pytest

from strongroom.keys.keccak import keccak256, keccak384, keccak512


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
        (b"abc", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
    ],
)
def test_256(data: bytes, digest: str) -> None:
    assert keccak256(data).hex() == digest


def test_the_longer_ones() -> None:
    assert keccak384(b"").hex().startswith("2c23146a63a29acf99e73b88f8c24eaa7dc60aa771780ccc")
    assert keccak512(b"").hex().startswith("0eab42de4c3ceb9235fc91acffe746b29c29a8c366b7c60e")
    assert (len(keccak384(b"")), len(keccak512(b""))) == (48, 64)


def test_every_length_around_the_block() -> None:
    theirs = pytest.importorskip("eth_hash.auto").keccak
    source = random.Random(1)
    for length in (*range(140), 271, 272, 273, 1000):
        data = source.randbytes(length)
        assert keccak256(data) == theirs(data)
