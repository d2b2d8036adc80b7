"""Mirrors sidecars/proxy/plan.py."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sidecars.proxy.plan import Cache, Plan
from strongroom.errors import ConfigError
from tests.fakes.exchange import ENGINE, MODEL

GOOD: dict[str, Any] = {
    "listen_host": "0.0.0.0",
    "listen_port": 443,
    "engine_socket": "/run/strongroom/engine/engine.sock",
    "evidence_socket": "/run/strongroom/evidence.sock",
    "names": ["door.example"],
    "model": MODEL.to_json(),
    "engine": ENGINE.to_json(),
    "tenants": [{"name": "ann", "token_sha256": sha256(b"a").hexdigest()}],
    "cache": "tenant",
}


def parse(**change: Any) -> Plan:
    return Plan.parse(json.dumps({**GOOD, **change}).encode())


def test_a_good_credential() -> None:
    plan = parse()
    assert plan.engine_socket == Path(GOOD["engine_socket"])
    assert (plan.model, plan.engine, plan.cache) == (MODEL, ENGINE, Cache.TENANT)
    assert plan.tenants[0].token_sha256 == sha256(b"a").digest()
    assert parse(tenants=[]).tenants == ()


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"extra": 1}, r"door\.extra: unknown key"),
        ({"listen_host": ""}, r"door\.listen_host"),
        ({"listen_port": 65536}, r"door\.listen_port"),
        ({"listen_port": True}, r"door\.listen_port"),
        ({"engine_socket": "engine.sock"}, "want an absolute path"),
        ({"names": []}, r"door\.names"),
        ({"names": [1]}, r"door\.names"),
        ({"model": {"name": "x"}}, r"door\.model: 'epoch' is missing"),
        ({"engine": []}, r"door\.engine: got list"),
        ({"tenants": {}}, r"door\.tenants"),
        ({"tenants": [{"name": "a"}]}, r"door\.tenants\[0\]"),
        ({"tenants": [{"name": "a", "token_sha256": "AA"}]}, r"door\.tenants\[0\]\.token_sha256"),
        ({"tenants": GOOD["tenants"] * 2}, "a name appears twice"),
        (
            {"tenants": [*GOOD["tenants"], {**GOOD["tenants"][0], "name": "bob"}]},
            "two tenants have one token",
        ),
        ({"cache": "shared"}, r"door\.cache"),
    ],
)
def test_anything_else_is_refused_with_its_key(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse(**change)


@pytest.mark.parametrize("key", sorted(GOOD))
def test_every_key_is_needed(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Plan.parse(json.dumps({k: v for k, v in GOOD.items() if k != key}).encode())
    assert str(caught.value) == f"door.{key}: missing key"


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"names":[],"names":[]}'])
def test_what_is_not_one_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^door: "):
        Plan.parse(raw)
