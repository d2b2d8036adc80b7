"""Mirrors strongroom/receipts/hashing.py."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from strongroom.receipts.hashing import BodyHash


@given(st.lists(st.binary(max_size=64)))
def test_cuts_do_not_matter(pieces: list[bytes]) -> None:
    body = BodyHash()
    for piece in pieces:
        body.update(piece)
    assert body.digest() == sha256(b"".join(pieces)).digest()
    assert body.length == sum(map(len, pieces))
