"""Mirrors strongroom/keys/derivation.py. The vector is dstack's own."""

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from strongroom.errors import FormatError
from strongroom.keys.derivation import derive, derive_p256, derive_v1, flattened, lp, p256

ROOT = p256(bytes.fromhex("f57527cea4ab7ffb49af99b158cdc0e3ec06398f528349ea236b7d2afe19cec1"))
SECRET = bytes(range(32))


def test_the_flattened_child_of_a_root() -> None:
    child = derive_p256(ROOT, b"context one", b"context two")
    assert flattened(child).hex() == "663afd58820be8ad645f9c035e93199d114ab16f738db62393bc1d7d623e8813"
    assert len(child.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())) == 138


def test_v0_does_not_part_its_context() -> None:
    assert derive(SECRET, b"a", b"bc") == derive(SECRET, b"ab", b"c") == derive(SECRET, b"abc")


def test_v1_parts_algorithm_and_domain() -> None:
    made = [derive_v1(SECRET, *names) for names in (("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", ""))]
    assert len(set(made)) == 4


def test_any_buffer_is_a_secret() -> None:
    assert derive(bytearray(SECRET), b"x") == derive(memoryview(SECRET), b"x") == derive(SECRET, b"x")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_secret_is_32_bytes(size: int) -> None:
    for function in (
        lambda: derive(bytes(size), b"x"),
        lambda: derive_v1(bytes(size), "a", "b"),
        lambda: p256(bytes(size)),
    ):
        with pytest.raises(FormatError, match="32"):
            function()


def test_no_scalar_is_refused() -> None:
    for secret in (bytes(32), bytes([255]) * 32):
        with pytest.raises(FormatError, match="scalar"):
            p256(secret)


def test_text_without_unicode_is_refused() -> None:
    with pytest.raises(FormatError, match="surrogate"):
        derive_v1(SECRET, "ed25519", "\ud800")


def test_a_length_in_front() -> None:
    assert lp(b"abc") == b"\0\0\0\3abc"
