"""A broker's house in a temporary directory, and what goes into it."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.broker.audit import Audit, Outcome
from strongroom.broker.reference import ReferenceValues, sign
from strongroom.broker.resource import VolumeKey
from strongroom.host.brokerage.actors import Actor
from strongroom.host.brokerage.administration import perform
from strongroom.host.brokerage.house import House
from strongroom.wire.canonical import b64, b64u

NOW: Final = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ACTOR: Final = Actor(name="local tester", now=NOW)
URI: Final = "kbs:///default/model/llama"
OTHER: Final = "kbs:///default/model/strict"
SECRET: Final = b"a secret that is nowhere in the clear"
SIGNER: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER_KEY: Final = b64u(SIGNER.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
ALLOW: Final = "package policy\nimport rego.v1\ndefault allow := false\nallow if input.submods.cpu0\n"


def policy(**change: Any) -> str:
    """A policy in the JSON that is YAML too. None leaves a key out."""
    value = {"version": 1, "measurements": [{"name": "m", "value": "00" * 48}], "host_data": "any"} | change
    return json.dumps({key: member for key, member in value.items() if member is not None})


def house(directory: Path, **options: Any) -> House:
    return House.create(directory, NOW, **options)


def do(at: House, action: str, **arguments: Any) -> Mapping[str, Any]:
    return perform(at, action, arguments, ACTOR).result


def put(at: House, payload: bytes = SECRET, uri: str = URI, **rules: Any) -> Mapping[str, Any]:
    rules = rules or {"policy": policy()}
    return do(at, "put", uri=uri, payload=b64(payload), **rules)


def volume(epoch: int, key: bytes = bytes(32)) -> bytes:
    return VolumeKey(key=key, root=bytes(range(32)), epoch=epoch).pack()


def references(**change: Any) -> str:
    """A signed file."""
    value: dict[str, Any] = {
        "version": "strongroom/reference-values/v1",
        "name": "my-image",
        "serial": 1,
        "measurements": [{"kind": "snp", "name": "m", "value": "11" * 48}],
    }
    return sign(ReferenceValues.from_json(value | change), SIGNER).pack().decode()


def decision(rule: str = "policy 00") -> Audit:
    return Audit(time=NOW, peer="192.0.2.1", outcome=Outcome.RELEASED, rule=rule)
