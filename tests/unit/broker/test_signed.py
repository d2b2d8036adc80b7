"""Mirrors broker/signed.py."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.broker.signed import SignedRequest, parse_key
from strongroom.errors import FormatError, VerifyError
from strongroom.wire.canonical import b64u

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def request(**change: Any) -> SignedRequest:
    value: dict[str, Any] = {
        "method": "POST",
        "path": "/strongroom/v1/admin/list",
        "body": b"{}",
        "broker": b"\x11" * 32,
        "key": PUBLIC,
        "time": int(NOW.timestamp()),
        "nonce": bytes(16),
    }
    return SignedRequest(**value | change)


def received(sent: SignedRequest, **change: Any) -> SignedRequest:
    where = {"method": sent.method, "path": sent.path, "body": sent.body, "broker": sent.broker}
    return SignedRequest.from_headers(sent.signed(KEY), **where | change)


def test_what_was_signed_verifies() -> None:
    received(request()).verify(NOW)


def test_the_message_is_what_the_format_says() -> None:
    assert request().message() == (
        b'strongroom/admin/v1\0{"body_sha256":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",'
        b'"broker":"1111111111111111111111111111111111111111111111111111111111111111","method":"POST",'
        b'"nonce":"AAAAAAAAAAAAAAAAAAAAAA","path":"/strongroom/v1/admin/list","time":1795176000}'
    )


@pytest.mark.parametrize(
    "change",
    [
        {"method": "GET"},
        {"path": "/strongroom/v1/admin/put"},
        {"body": b"{ }"},
        {"broker": b"\x12" * 32},
    ],
)
def test_it_is_good_for_nothing_else(change: dict[str, Any]) -> None:
    with pytest.raises(VerifyError, match="the signature is not of this key"):
        received(request(), **change).verify(NOW)


@pytest.mark.parametrize(
    "change", [{"time": 1}, {"nonce": b"\1" * 16}, {"key": bytes(32)}, {"signature": bytes(64)}]
)
def test_its_headers_cannot_be_changed(change: dict[str, Any]) -> None:
    with pytest.raises(VerifyError):
        replace(received(request()), **change).verify(NOW)


@pytest.mark.parametrize("seconds", [-61, 61, 100_000])
def test_it_holds_for_a_minute(seconds: int) -> None:
    received(request()).verify(NOW + timedelta(seconds=seconds // abs(seconds) * 60))
    with pytest.raises(VerifyError, match="from the broker's, want at most 60"):
        received(request()).verify(NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("x-strongroom-key", None, "no header x-strongroom-key"),
        ("x-strongroom-key", "AAAA", "3 bytes, want 32"),
        ("x-strongroom-key", "!", "base64url|alphabet|x-strongroom-key"),
        ("x-strongroom-nonce", b64u(bytes(15)), "15 bytes, want 16"),
        ("x-strongroom-signature", b64u(bytes(63)), "63 bytes, want 64"),
        ("x-strongroom-time", "", "whole unix seconds"),
        ("x-strongroom-time", "1.5", "whole unix seconds"),
        ("x-strongroom-time", "-1", "whole unix seconds"),
        ("x-strongroom-time", "1" * 40, "whole unix seconds"),
    ],
)
def test_headers_are_read_strictly(name: str, value: str | None, why: str) -> None:
    headers = request().signed(KEY) | {name: value}
    kept = {key: text for key, text in headers.items() if text is not None}
    with pytest.raises(FormatError, match=why):
        SignedRequest.from_headers(kept, method="POST", path="/", body=b"", broker=bytes(32))


def test_a_key_is_32_bytes() -> None:
    assert parse_key(b64u(PUBLIC), "key") == PUBLIC
    with pytest.raises(FormatError, match="key: 31 bytes, want the 32"):
        parse_key(b64u(bytes(31)), "key")
