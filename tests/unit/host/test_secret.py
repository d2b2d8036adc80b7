"""Mirrors host/secret.py."""

import copy
import pickle

import pytest

from strongroom.host.secret import Secret

pytestmark = pytest.mark.guarantee("G11")


def test_it_holds_a_copy() -> None:
    source = bytearray(b"0123456789")
    secret = Secret(source)
    source[:] = bytes(10)
    assert secret.reveal() == b"0123456789"
    assert bytes(secret.view()) == b"0123456789"
    assert len(secret) == 10


def test_it_is_shown_by_nobody() -> None:
    secret = Secret(b"topsecret")
    assert repr(secret) == str(secret) == f"{secret}" == "Secret(9 bytes)"
    secret.wipe()
    assert repr(secret) == "Secret(wiped)"


def test_leaving_wipes_the_very_bytes() -> None:
    with Secret(b"topsecret") as secret:
        view = secret.view()
    assert bytes(view) == bytes(9)
    for use in (secret.view, secret.reveal, secret.__enter__):
        with pytest.raises(ValueError, match="secret was wiped"):
            use()
    secret.wipe()


def test_the_view_cannot_be_written() -> None:
    view = Secret(b"topsecret").view()
    with pytest.raises(TypeError, match="read-only"):
        view[0] = 0


def test_it_is_neither_pickled_nor_copied_nor_hashed() -> None:
    secret = Secret(b"topsecret")
    for use in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            use(secret)
    with pytest.raises(TypeError, match="unhashable"):
        hash(secret)


def test_equality_is_of_the_bytes() -> None:
    assert Secret(b"a") == Secret(b"a")
    assert Secret(b"a") != Secret(b"b")
    assert Secret(b"a") != b"a"
