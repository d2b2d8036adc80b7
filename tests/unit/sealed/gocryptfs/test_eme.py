"""Mirrors strongroom/sealed/gocryptfs/eme.py. Names that gocryptfs made are in tests/integration/test_gocryptfs.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import FormatError
from strongroom.sealed.gocryptfs.eme import BLOCK, EME, MAX_BLOCKS

KEY, TWEAK = bytes(range(32)), bytes(range(16))


@given(st.integers(1, MAX_BLOCKS), st.binary(min_size=16, max_size=16), st.randoms(use_true_random=False))
def test_what_is_enciphered_comes_back(blocks: int, tweak: bytes, random) -> None:  # type: ignore[no-untyped-def]
    data = random.randbytes(blocks * BLOCK)
    sealed = EME(KEY).encrypt(tweak, data)
    assert len(sealed) == len(data)
    assert EME(KEY).decrypt(tweak, sealed) == data


def test_one_bit_changes_every_block() -> None:
    eme, data = EME(KEY), bytes(8 * BLOCK)
    before = eme.encrypt(TWEAK, data)
    for after in (
        eme.encrypt(TWEAK, data[:-1] + b"\1"),
        eme.encrypt(TWEAK[:-1] + b"\0", data),
        EME(KEY[:-1] + b"\0").encrypt(TWEAK, data),
    ):
        assert all(before[at : at + BLOCK] != after[at : at + BLOCK] for at in range(0, len(data), BLOCK))


@pytest.mark.parametrize("length", [0, 1, 15, 17, MAX_BLOCKS * BLOCK + BLOCK])
def test_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(FormatError, match=f"^name: {length} bytes to decipher"):
        EME(KEY).decrypt(TWEAK, bytes(length))


def test_another_tweak_is_refused() -> None:
    with pytest.raises(FormatError, match="tweak is 15 bytes, want 16"):
        EME(KEY).encrypt(TWEAK[:15], bytes(BLOCK))
