"""Mirrors strongroom/evidence/dstack_identity.py. Vectors: dstack's launch document and compose hash."""

import json
from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest

from strongroom.errors import FormatError, StrongroomError, VerifyError
from strongroom.evidence.dstack_identity import (
    KeyProvider,
    LaunchDocument,
    app_id,
    compose_hash,
    host_data,
    instance_id,
    key_provider_payload,
    mr_config_id,
    pack_compose,
    preimage_v2,
    require_launched,
)

DOCUMENT = LaunchDocument(
    app_id=bytes([0x11]) * 20,
    compose_hash=bytes([0x22]) * 32,
    gpu_policy_hash=bytes([0x55]) * 32,
    instance_id=bytes([0x44]) * 20,
    key_provider=KeyProvider.KMS,
    key_provider_id=bytes([0x33]) * 32,
)
PACKED = DOCUMENT.pack()
HASH = "90e5cffa571b22c2ca846872d6fb7b071aa1346f1a1f87f72869c47b39d94099"
COMPOSE: dict[str, Any] = {
    "allowed_envs": ["B", "A"],
    "docker_compose_file": "services: {}\n",
    "kms_enabled": True,
    "manifest_version": 2,
    "name": "t",
    "runner": "docker-compose",
}


def test_the_launch_document_of_the_vector() -> None:
    assert PACKED.startswith(b'{"app_id":"1111') and PACKED.endswith(b'"version":3}')
    assert host_data(PACKED).hex() == HASH
    assert mr_config_id(3, host_data(PACKED)).hex() == "03" + HASH + "00" * 15
    assert LaunchDocument.parse(PACKED) == DOCUMENT


def test_what_launch_bound_is_read() -> None:
    for measured in (host_data(PACKED), mr_config_id(3, host_data(PACKED))):
        assert require_launched(PACKED, measured=measured) == DOCUMENT


def test_the_same_values_in_another_spelling_are_another_document() -> None:
    pretty = json.dumps(json.loads(PACKED), indent=1).encode()
    assert LaunchDocument.parse(pretty) == DOCUMENT
    with pytest.raises(VerifyError, match="launch bound"):
        require_launched(pretty, measured=host_data(PACKED))
    for measured in (b"", bytes(32), bytes(48), host_data(PACKED) + bytes(1)):
        with pytest.raises(VerifyError):
            require_launched(PACKED, measured=measured)


def test_every_flipped_bit_is_refused() -> None:
    for at in range(8 * len(PACKED)):
        data = bytearray(PACKED)
        data[at // 8] ^= 1 << at % 8
        with pytest.raises(VerifyError):
            require_launched(bytes(data), measured=host_data(PACKED))
        with suppress(FormatError):
            LaunchDocument.parse(bytes(data))


def test_every_cut_is_refused() -> None:
    for n in range(len(PACKED)):
        with pytest.raises(StrongroomError):
            LaunchDocument.parse(PACKED[:n])


def test_a_short_document() -> None:
    least = b'{"compose_hash":"' + b"22" * 32 + b'","key_provider":"none"}'
    document = LaunchDocument.parse(least)
    assert (document.app_id, document.init_script_hashes) == (b"", None)
    assert b"app_id" not in document.pack()
    none = LaunchDocument.parse(least[:-1] + b',"app_id":null,"init_script_hashes":[]}')
    assert (none.app_id, none.init_script_hashes) == (b"", ())
    assert b'"init_script_hashes":[]' in none.pack()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": True},
        {"version": "3"},
        {"app_id": "11"},
        {"app_id": 1},
        {"compose_hash": ""},
        {"compose_hash": "zz" * 32},
        {"instance_id": "11" * 32},
        {"gpu_policy_hash": "11" * 20},
        {"key_provider": "sgx"},
        {"key_provider": ["none"]},
        {"init_script_hashes": {}},
        {"init_script_hashes": ["11"]},
        {"init_script_hashes": ["11" * 32] * 6},
        {"more": 1},
    ],
)
def test_a_wrong_member_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        LaunchDocument.parse(json.dumps(json.loads(PACKED) | change).encode())


def test_the_compose_hash_of_the_vector() -> None:
    raw = pack_compose(COMPOSE)
    assert compose_hash(raw).hex() == "445129b1ad38dc7b9932a395739352431e21d36819a4888f19f9730f93bd0177"
    assert app_id(compose_hash(raw)) == compose_hash(raw)[:20]
    assert pack_compose(COMPOSE | {"nothing": None}) == raw
    with pytest.raises(FormatError, match="at most 262144"):
        compose_hash(bytes(262145))


def test_what_the_runner_does_not_use_is_left_out() -> None:
    more = COMPOSE | {"bash_script": "x", "pre_launch_script": ""}
    assert pack_compose(more, normalized=True) == pack_compose(COMPOSE)
    assert pack_compose(more) != pack_compose(COMPOSE)
    bash = {"runner": "bash", "docker_compose_file": "x", "bash_script": "y"}
    assert json.loads(pack_compose(bash, normalized=True)) == {"runner": "bash", "bash_script": "y"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_json_has_not_is_refused(value: Any) -> None:
    with pytest.raises(FormatError):
        pack_compose({"runner": "bash", "name": value})


def test_an_instance_id_depends_on_all_it_is_made_of() -> None:
    made = instance_id(seed=bytes(20), app=bytes(20))
    assert made == sha256(bytes(40)).digest()[:20]
    assert made != instance_id(seed=bytes(20), app=bytes(20), platform=b"x")
    with pytest.raises(FormatError, match="seed: 19 bytes"):
        instance_id(seed=bytes(19), app=bytes(20))


def test_key_providers_have_two_names() -> None:
    assert key_provider_payload(KeyProvider.NONE) == b'{"name":"none","id":""}'
    assert key_provider_payload(KeyProvider.LOCAL, b"\1") == b'{"name":"local-sgx","id":"01"}'


def test_what_version_2_hashes() -> None:
    kinds = {
        provider: preimage_v2(compose=bytes(32), app=bytes(20), provider=provider, provider_id=b"id")[52]
        for provider in KeyProvider
    }
    assert kinds == {"none": 0, "local": 1, "kms": 2, "tpm": 3}
    assert mr_config_id(1, bytes([7]) * 32) == b"\1" + bytes([7]) * 32 + bytes(15)
    for version, digest in ((0, bytes(32)), (4, bytes(32)), (1, bytes(31))):
        with pytest.raises(FormatError):
            mr_config_id(version, digest)
