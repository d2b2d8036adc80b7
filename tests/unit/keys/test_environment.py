"""Mirrors strongroom/keys/environment.py. Vectors: dstack's encrypted environment, and its signed public key."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.keys.environment import (
    MAX_ITEMS,
    MAX_VALUE,
    Variable,
    key_digest,
    open_sealed,
    parse,
    public_key,
    require_signed,
    seal,
    sign_key,
)
from strongroom.keys.recoverable import compressed, private_key, recover

PRIVATE = bytes.fromhex("7c282bf94b35dc47801dc953bfa0896fc2bd313381d3e8eca4e42f6536d2a96f")
BLOB = bytes.fromhex(
    "0bd18749612f4c8b9dd583c7d6a646b90abd34e3c731a7708d0caf9039095641e1f0948e775f0b7351788db7"
    "f246d51806954626dcccb6a60d64665ca3715c6bef75616cab476d27bba04080361200d6a58cec"
)
SIGNED_KEY = bytes.fromhex("e33a1832c6562067ff8f844a61e51ad051f1180b66ec2551fb0251735f3ee90a")
SIGNATURE = bytes.fromhex(
    "8542c49081fbf4e03f62034f13fbf70630bdf256a53032e38465a27c36fd6bed"
    "7a5e7111652004aef37f7fd92fbfc1285212c4ae6a6154203a48f5e16cad2cef00"
)
SIGNER = bytes.fromhex("0217610d74cbd39b6143842c6d8bc310d79da1d82cc9d17f8876376221eda0c38f")
SERVICE = private_key(bytes(31) + b"\7")


def text(*pairs: tuple[str, str]) -> bytes:
    return json.dumps({"env": [{"key": key, "value": value} for key, value in pairs]}).encode()


def test_the_vector_opens() -> None:
    assert open_sealed(BLOB, PRIVATE) == b'[{"key":"","value":""}]'


def test_what_is_sealed_opens() -> None:
    ephemeral = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    blob = seal(text(("A", "1")), public_key(PRIVATE), ephemeral=ephemeral, iv=bytes(12))
    assert parse(open_sealed(blob, bytearray(PRIVATE)), allowed={"A"}) == [Variable("A", "1")]


def test_every_cut_is_refused() -> None:
    for n in range(len(BLOB)):
        with pytest.raises(StrongroomError):
            open_sealed(BLOB[:n], PRIVATE)


def test_every_flipped_bit_is_refused() -> None:
    for at in range(8 * len(BLOB)):
        if at == 255:
            continue  # the top bit of an X25519 key, which RFC 7748 says to ignore
        data = bytearray(BLOB)
        data[at // 8] ^= 1 << at % 8
        with pytest.raises(StrongroomError):
            open_sealed(bytes(data), PRIVATE)


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)])
def test_a_point_of_small_order_is_refused(point: bytes) -> None:
    with pytest.raises(FormatError, match="not a public key"):
        open_sealed(point + BLOB[32:], PRIVATE)


def test_an_application_without_a_key_opens_nothing() -> None:
    with pytest.raises(FormatError, match="key is 0 bytes"):
        open_sealed(BLOB, b"")


def test_names_that_are_not_allowed_are_left_out() -> None:
    said = text(("A", "1"), ("LD_PRELOAD", "evil"), ("B", "2"), ("not a name", "x"))
    assert [variable.name for variable in parse(said, allowed=["B", "A"])] == ["A", "B"]
    assert parse(said, allowed=[]) == []


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"{}",
        b'{"env":{}}',
        b'{"env":[],"more":1}',
        b'{"env":[{}]}',
        b'{"env":[{"key":"A","value":1}]}',
        b'{"env":[{"key":"A","value":"1","more":1}]}',
        text(("A", "1"), ("A", "2")),
        text(("A", "a\0b")),
        text(("1A", "")),
        text(("", "")),
        text(("A", "x" * (MAX_VALUE + 1))),
        text(*((f"A{n}", "") for n in range(MAX_ITEMS + 1))),
        text(*((f"A{n}", "x" * MAX_VALUE) for n in range(9))),
    ],
)
def test_a_wrong_text_is_refused(said: bytes) -> None:
    with pytest.raises(FormatError):
        parse(said, allowed={"A", "1A", "", *(f"A{n}" for n in range(9))})


@pytest.mark.guarantee("G11")
def test_a_value_is_not_shown() -> None:
    assert "hunter2" not in repr(parse(text(("A", "hunter2")), allowed={"A"}))
    with pytest.raises(FormatError) as caught:
        parse(text(("A", "hunter2\0")), allowed={"A"})
    assert "hunter2" not in str(caught.value)


def test_the_signed_key_of_the_vector() -> None:
    assert recover(key_digest(SIGNED_KEY, app_id=bytes(20), signed_at=None), SIGNATURE) == SIGNER


def test_a_key_signed_lately_is_taken() -> None:
    signature = sign_key(SERVICE, SIGNED_KEY, app_id=bytes(20), signed_at=1000)
    signer = compressed(SERVICE.public_key())
    for now in (940, 1000, 1300):
        require_signed(SIGNED_KEY, signature, app_id=bytes(20), signed_at=1000, now=now, signer=signer)
    for now in (939, 1301):
        with pytest.raises(VerifyError, match="signed at 1000"):
            require_signed(SIGNED_KEY, signature, app_id=bytes(20), signed_at=1000, now=now, signer=signer)


def test_another_key_application_or_time_is_refused() -> None:
    signature = sign_key(SERVICE, SIGNED_KEY, app_id=bytes(20), signed_at=1000)
    signer = compressed(SERVICE.public_key())
    for key, app, moment in (
        (bytes(32), bytes(20), 1000),
        (SIGNED_KEY, bytes(19) + b"1", 1000),
        (SIGNED_KEY, bytes(20), 1001),
    ):
        with pytest.raises(VerifyError):
            require_signed(key, signature, app_id=app, signed_at=moment, now=1000, signer=signer)
