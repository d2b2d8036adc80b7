"""Mirrors sidecars/receive/config.py."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecars.receive.config import MAX_CREDENTIAL, ReceiveConfig
from strongroom.errors import ConfigError
from strongroom.push.offer import spki_of
from strongroom.wire.canonical import JSON, b64u, pack_json

SPKI = spki_of(Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key())
GOOD: dict[str, Any] = {
    "listen_host": "127.0.0.1",
    "listen_port": 8444,
    "evidence_socket": "/run/strongroom/evidence.sock",
    "names": ["llm.example"],
    "dest": "/srv/pushed/model",
    "name": "tiny",
    "providers": [b64u(SPKI)],
    "max_bytes": 1 << 30,
}


def test_reads_every_setting() -> None:
    config = ReceiveConfig.parse(pack_json(GOOD))
    assert config.dest == Path("/srv/pushed/model")
    assert config.providers == {SPKI}
    assert (config.listen_host, config.listen_port, config.names) == ("127.0.0.1", 8444, ("llm.example",))


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("listen_host", ""), ("listen_host", 1), ("listen_port", -1), ("listen_port", 65536), ("listen_port", True),
        ("evidence_socket", "relative"), ("names", []), ("names", [1]), ("names", "x"), ("dest", "srv"),
        ("dest", "/srv/../etc"), ("name", "a b"), ("name", ""), ("providers", []), ("providers", ["!"]),
        ("providers", [b64u(SPKI[:-1])]), ("providers", [b64u(SPKI)] * 2), ("providers", [b64u(bytes(44))]),
        ("max_bytes", 0), ("max_bytes", "1"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(key: str, value: JSON) -> None:
    with pytest.raises(ConfigError, match=rf"^receive\.{key}: "):
        ReceiveConfig.parse(pack_json({**GOOD, key: value}))


@pytest.mark.guarantee("G16")
def test_keys_are_exactly_these() -> None:
    for key in GOOD:
        with pytest.raises(ConfigError, match=rf"^receive\.{key}: missing key"):
            ReceiveConfig.parse(pack_json({k: v for k, v in GOOD.items() if k != key}))
    with pytest.raises(ConfigError, match=r"^receive\.more: unknown key"):
        ReceiveConfig.parse(pack_json({**GOOD, "more": 1}))
    for raw in (b"", b"[]", b"x", bytes(MAX_CREDENTIAL + 1), pack_json(GOOD)[:-1]):
        with pytest.raises(ConfigError, match=r"^receive: "):
            ReceiveConfig.parse(raw)
