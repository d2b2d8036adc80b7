"""Mirrors guest/config.py and guest/bounds.py: what userdata may say, and one line for everything else."""

from contextlib import suppress
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from guest import bounds
from guest.config import Config, parse
from guest.keysock.rights import Method
from guest.userdata import MAX_BYTES, Userdata
from strongroom.errors import ConfigError
from strongroom.push.offer import spki_of
from strongroom.wire.canonical import b64u

DIGEST = "ab" * 32


def good() -> dict[str, Any]:
    return {
        "version": 1,
        "gpus": 0,
        "broker": {"url": "https://broker.example:8443", "spki_sha256": DIGEST, "deadline_s": 5},
        "model": {"name": "tiny", "source": "/srv/model", "key": "kbs:///default/model/tiny"},
        "engine": {"max_model_len": 256, "max_num_seqs": 4, "kv_cache_gib": 1},
        "door": {"port": 8443, "names": ["llm.example"], "tenants": [{"name": "a", "token_sha256": DIGEST}]},
    }


def text(value: object) -> bytes:
    return b"#cloud-config\n" + yaml.safe_dump({"strongroom": value}).encode()


def read(raw: bytes) -> Config:
    return parse(Userdata.of(raw))


def test_reads_every_setting() -> None:
    config = read(text(good()))
    assert config.broker is not None
    assert config.broker.url == "https://broker.example:8443"
    assert config.broker.spki_sha256 == DIGEST
    assert config.broker.ca_pem is None
    assert config.model.source == "/srv/model"
    assert config.engine.max_num_seqs == 4
    assert config.door.tenants[0].name == "a"
    assert config.door.cache == "tenant"
    assert config.userdata_sha256 == Userdata.of(text(good())).sha256


def test_defaults_are_stated_once() -> None:
    raw = good()
    del raw["engine"]
    assert read(text(raw)).engine.max_model_len == 4096


def changed(path: str, value: object) -> bytes:
    raw = good()
    place = raw
    *above, last = path.split(".")
    for part in above:
        place = place[part]
    place[last] = value
    return text(raw)


WRONG = [
    ("version", 2, "strongroom.version: got 2"),
    ("version", True, "strongroom.version: got True"),
    ("version", "1", "strongroom.version: got '1'"),
    ("gpus", 17, "strongroom.gpus: got 17"),
    ("gpus", None, "strongroom.gpus: got None"),
    ("extra", 1, "strongroom.extra: unknown key"),
    ("broker", [], "strongroom.broker: got list, want a mapping"),
    ("broker.url", "http://broker.example", "strongroom.broker.url: got 'http://broker.example'"),
    ("broker.url", "https://broker.example/x", "strongroom.broker.url"),
    ("broker.url", "https://user@broker.example", "strongroom.broker.url"),
    ("broker.url", "https://broker..example", "strongroom.broker.url"),
    ("broker.url", f"https://{'a' * 64}.example", "strongroom.broker.url"),
    ("broker.url", "https://" + "a." * 200 + "b", "strongroom.broker.url"),
    ("broker.deadline_s", 0, "strongroom.broker.deadline_s: got 0"),
    ("broker.deadline_s", 3.5, "strongroom.broker.deadline_s: got 3.5"),
    ("broker.protocol", "0.1.1", "strongroom.broker.protocol: got '0.1.1', want one of 0.4.0, 0.3.0, 0.2.0"),
    ("broker.hash", "sha256", "strongroom.broker.hash: got 'sha256', want one of sha384, sha512"),
    ("broker.hash", "md5", "strongroom.broker.hash: got 'md5', want one of sha384"),
    (
        "broker.ca",
        "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n",
        "got both, want exactly one",
    ),
    ("broker.ca", "no certificate", "strongroom.broker.ca: got 'no certificate'"),
    ("model.name", "../x", "strongroom.model.name"),
    ("model.name", "--trust-remote-code", "strongroom.model.name"),
    ("model.source", "/etc", "strongroom.model.source: got '/etc'"),
    ("model.source", "/srv/../etc", "strongroom.model.source"),
    ("model.source", "/srv/model\n", "strongroom.model.source"),
    ("model.key", "kbs:///a/b", "strongroom.model.key"),
    ("model.key", "kbs:///a/b/c/d", "strongroom.model.key"),
    ("model.key", f"kbs:///a/b/{'c' * 129}", "strongroom.model.key"),
    ("engine.extra_args", ["--trust-remote-code"], "strongroom.engine.extra_args: unknown key"),
    ("engine.dtype", "auto --middleware x", "strongroom.engine.dtype"),
    ("engine.max_model_len", "256", "strongroom.engine.max_model_len: got '256'"),
    ("engine.max_num_seqs", 1 << 40, "strongroom.engine.max_num_seqs"),
    ("door.port", 80, "strongroom.door.port: got 80"),
    ("door.names", "llm.example", "strongroom.door.names: got 'llm.example', want a list"),
    ("door.names", ["a b"], r"strongroom.door.names\[0\]: got 'a b'"),
    ("door.tenants", [{"name": "a"}], r"strongroom.door.tenants\[0\].token_sha256: missing"),
    ("door.tenants", [{"name": "a", "token": "secret"}], r"strongroom.door.tenants\[0\]"),
    ("door.cache", "global", "strongroom.door.cache: got 'global', want one of tenant, request"),
]


@pytest.mark.guarantee("G3")
@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(("path", "value", "sentence"), WRONG, ids=[f"{p}={v!r:.30}" for p, v, _ in WRONG])
def test_refuses_and_names_the_key(path: str, value: object, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        read(changed(path, value))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("path", ["version", "gpus", "broker", "model", "door", "broker.url", "model.key"])
def test_missing_keys_are_named(path: str) -> None:
    raw = good()
    place = raw
    *above, last = path.split(".")
    for part in above:
        place = place[part]
    del place[last]
    with pytest.raises(ConfigError, match=f"strongroom.{path}: missing"):
        read(text(raw))


PROVIDER = b64u(spki_of(Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()))


def pushed(**changes: Any) -> dict[str, Any]:
    """Userdata of a guest into which a model is pushed, under a key that is made there."""
    raw = good()
    del raw["broker"]
    raw["model"] = {"name": "tiny", "push": {"provider_keys": [PROVIDER], **changes}}
    return raw


def test_a_model_that_is_pushed_needs_no_source_and_no_broker() -> None:
    config = read(text(pushed()))
    assert config.broker is None
    assert (config.model.source, config.model.key) == (bounds.PUSHED, None)
    assert config.model.push is not None
    assert config.model.push.provider_keys == (PROVIDER,)
    assert (config.model.push.port, config.model.push.max_gib, config.model.push.wait_s) == (8444, 512, 86400)


def test_a_key_from_a_broker_needs_the_broker() -> None:
    raw = pushed(key="kbs:///default/model/sealing")
    with pytest.raises(ConfigError, match=r"strongroom\.broker: missing"):
        read(text(raw))
    raw["broker"] = good()["broker"]
    config = read(text(raw))
    assert config.broker is not None
    assert config.model.key == "kbs:///default/model/sealing"
    raw["model"]["push"]["key"] = "ephemeral"
    with pytest.raises(ConfigError, match=r"strongroom\.broker: got one, want none"):
        read(text(raw))


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"provider_keys": []}, "provider_keys: empty, want at least one key"),
        ({"provider_keys": PROVIDER}, "provider_keys: got 'MCow.*', want a list of at most 16"),
        ({"provider_keys": [PROVIDER] * 2}, "provider_keys MCow.* appears twice"),
        ({"provider_keys": [PROVIDER[:-1]]}, r"provider_keys\[0\]: got"),
        (
            {"provider_keys": [PROVIDER[:-1] + "B"]},
            r"provider_keys\[0\]: got",
        ),  # another spelling of the same bytes
        ({"provider_keys": ["B" + PROVIDER[1:]]}, r"provider_keys\[0\]: got"),
        ({"port": 443}, "push.port: got 443"),
        ({"key": "kbs:///a/b"}, "push.key: got 'kbs:///a/b', want ephemeral, or kbs:///"),
        ({"key": "none"}, "push.key: got 'none'"),
        ({"max_gib": 0}, "push.max_gib: got 0"),
        ({"wait_s": 8 * 86400}, "push.wait_s: got"),
        ({"dest": "/etc"}, "push.dest: unknown key"),
    ],
)
def test_a_push_has_bounds(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read(text(pushed(**changes)))


def test_a_push_has_no_source_beside_it_and_a_name_to_connect_to() -> None:
    raw = pushed()
    raw["model"]["source"] = "/srv/model"
    with pytest.raises(ConfigError, match=r"strongroom\.model\.source: unknown key"):
        read(text(raw))
    raw = pushed()
    raw["door"]["names"] = []
    with pytest.raises(ConfigError, match=r"strongroom\.door\.names: empty"):
        read(text(raw))


def test_no_pin_at_all_is_refused() -> None:
    raw = good()
    del raw["broker"]["spki_sha256"]
    with pytest.raises(ConfigError, match="got neither, want exactly one of ca and spki_sha256"):
        read(text(raw))


def test_two_tenants_with_one_token_are_refused() -> None:
    tenants = [{"name": n, "token_sha256": DIGEST} for n in ("a", "b")]
    with pytest.raises(ConfigError, match=r"token_sha256 .* appears twice"):
        read(changed("door.tenants", tenants))


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [*%c,*%c,*%c]\n" % (b, b, b - 1, b - 1, b - 1) for b in b"bcdefgh"
)
DOCUMENTS = {
    "empty": (b"", "empty"),
    "blank": (b" \n\n", "empty"),
    "not utf-8": (b"#cloud-config\nstrongroom: \xff\n", "not UTF-8"),
    "utf-16": ("#cloud-config\n".encode("utf-16"), "not UTF-8"),
    "gzip": (b"\x1f\x8b\x08\x00", "gzip is never unpacked here"),
    "script": (b"#!/bin/sh\nid\n", "'#!/bin/sh' is never run here"),
    "include": (b"#include\nhttps://evil.example/\n", "never run here"),
    "jinja": (b"## template: jinja\n#cloud-config\n", "never run here"),
    "multipart": (b"Content-Type: multipart/mixed; boundary=x\n", "never run here"),
    "no first line": (b"strongroom: {}\n", "first line is"),
    "not a mapping": (b"#cloud-config\n- a\n", "userdata"),
    "two documents": (b"#cloud-config\nstrongroom: {}\n---\nstrongroom: {}\n", "userdata"),
    "other product": (b"#cloud-config\nruncmd: [id]\n", "strongroom: missing"),
    "beside ours": (text(good()) + b"runcmd: [id]\n", "runcmd: unknown key"),
    "wrong product key": (b"#cloud-config\nStrongroom: {version: 1}\n", "strongroom: missing"),
    "duplicate key": (b"#cloud-config\nstrongroom: {version: 1, version: 1}\n", "version"),
    "alias": (b"#cloud-config\nstrongroom: &x {version: 1}\nb: *x\n", "alias|anchor"),
    "bomb": (b"#cloud-config\n" + BOMB, "alias|anchor"),
    "tag": (b"#cloud-config\nstrongroom: !!python/object/apply:os.system [id]\n", "tag"),
    "deep": (b"#cloud-config\nstrongroom: " + b"[" * 2000 + b"]" * 2000 + b"\n", "deep|depth|levels"),
    "non-string key": (b"#cloud-config\n1: 2\n", "userdata|key"),
    "broken yaml": (b"#cloud-config\nstrongroom: {\n", "userdata"),
    "escape": (b'#cloud-config\nstrongroom: "\\UFFFFFFFF"\n', "userdata: an escape"),
    "nul": (b"#cloud-config\nstrongroom: a\0b\n", "userdata"),
}


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(("raw", "sentence"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_refuses_documents(raw: bytes, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        read(raw)
    assert "\n" not in str(caught.value)


@pytest.mark.guarantee("G16")
def test_ten_megabytes_are_refused_before_parsing() -> None:
    with pytest.raises(ConfigError, match=f"bytes, want at most {MAX_BYTES}"):
        read(b"#cloud-config\n" + b"a" * 10_000_000)


def test_every_cut_is_refused_or_complete() -> None:
    whole = text(good())
    for length in range(len(whole) - 1):
        with suppress(ConfigError):  # what still parses was cut at the end of a value that is in bounds
            assert read(whole[:length]).model.name == "tiny"


KEYS: dict[str, Any] = {
    "root": "broker",
    "resource": "kbs:///default/keys/root",
    "epoch": 2,
    "rules": [
        {"unit": "api.service", "methods": ["GetKey", "Sign"], "paths": ["db/", "*"], "sign": ["wallet/"]},
        {"uid": 1000, "raw_quote": True},
    ],
}


def test_reads_the_rules_of_the_key_socket() -> None:
    keys = read(text(good() | {"keys": KEYS})).keys
    assert keys is not None
    assert (keys.root, keys.resource, keys.epoch, keys.strict) == ("broker", KEYS["resource"], 2, True)
    rule = keys.rights.units["api.service"]
    assert (
        rule.methods == {Method.GET_KEY, Method.SIGN}
        and rule.paths == ("db/", "*")
        and rule.sign == ("wallet/",)
    )
    assert keys.rights.uids[1000].raw_quote and keys.rights.uids[1000].methods == {Method.GET_KEY}
    assert keys.rights.others
    assert read(text(good())).keys is None
    bare = read(text(good() | {"keys": {"root": "ephemeral", "others": False}})).keys
    assert bare is not None and not bare.rights.others and not bare.rights.units


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"root": "disk"}, r"strongroom\.keys\.root: got 'disk', want one of broker, vtpm, ephemeral"),
        ({"resource": None}, r"strongroom\.keys\.resource: got None"),
        ({"root": "vtpm"}, r"strongroom\.keys\.resource: got one, want it with root: broker alone"),
        ({"epoch": 0}, r"strongroom\.keys\.epoch: got 0"),
        ({"strict": "no"}, r"strongroom\.keys\.strict: got 'no', want true or false"),
        ({"app_id": "ab"}, r"strongroom\.keys\.app_id: got 'ab', want 40 lowercase hex digits"),
        ({"more": 1}, r"strongroom\.keys\.more: unknown key"),
        ({"rules": {}}, r"strongroom\.keys\.rules: got dict, want a list"),
        ({"rules": [{}]}, r"strongroom\.keys\.rules\[0\]\.unit: want exactly one of unit and uid"),
        ({"rules": [{"unit": "a.service", "uid": 0}]}, r"rules\[0\]\.unit: want exactly one"),
        ({"rules": [{"unit": "a"}]}, r"rules\[0\]\.unit: got 'a', want the full name of a service unit"),
        ({"rules": [{"unit": "a/b.service"}]}, r"rules\[0\]\.unit: got 'a/b\.service'"),
        ({"rules": [{"uid": -1}]}, r"rules\[0\]\.uid: got -1"),
        ({"rules": [{"uid": True}]}, r"rules\[0\]\.uid: got True"),
        ({"rules": [{"uid": 0}, {"uid": 0}]}, r"strongroom\.keys\.rules: uid 0 appears twice"),
        ({"rules": [{"unit": "a.service"} for _ in range(2)]}, r"rules: unit a\.service appears twice"),
        (
            {"rules": [{"uid": 0, "methods": ["Getkey"]}]},
            r"rules\[0\]\.methods\[0\]: got 'Getkey', want one of Info",
        ),
        ({"rules": [{"uid": 0, "paths": [""]}]}, r"rules\[0\]\.paths\[0\]: got ''"),
        ({"rules": [{"uid": 0, "paths": ["a*"]}]}, r"rules\[0\]\.paths\[0\]: got 'a\*'"),
        (
            {"rules": [{"uid": 0, "paths": ["x"] * 33}]},
            r"rules\[0\]\.paths: got list, want a list of at most 32",
        ),
        ({"rules": [{"uid": 0, "raw_quote": 1}]}, r"rules\[0\]\.raw_quote: got 1, want true or false"),
        ({"rules": [{"uid": 0, "keys": 1}]}, r"rules\[0\]\.keys: unknown key"),
        ({"rules": [{"uid": 0} for _ in range(65)]}, r"rules: got list, want a list of at most 64"),
    ],
)
def test_a_rule_outside_the_bounds_is_refused_by_its_path(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read(text(good() | {"keys": KEYS | change}))


def test_a_root_of_the_broker_needs_its_resource() -> None:
    with pytest.raises(ConfigError, match=r"strongroom\.keys\.resource: missing, want it with root: broker"):
        read(text(good() | {"keys": {"root": "broker"}}))
