"""docs/formats/agent-api.yaml against the server, both ways; mirrors guest/keysock/ours.py."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from guest.keysock.ours import _PROOF, Ours
from guest.keysock.plan import app_keys
from guest.keysock.rights import Method, Rights, Rule
from strongroom.evidence.binding import Purpose, application_challenge
from strongroom.evidence.bundle import Bundle
from strongroom.keys.epochs import Kind, Use, derive_epoch
from strongroom.verify.bundle import verify_bundle
from strongroom.wire.canonical import b64u, unb64u
from strongroom.wire.framing import enc
from tests import ROOT as REPOSITORY
from tests.fakes import silicon
from tests.fakes.keysock import ROOT, Keysock, call, served

API: Any = yaml.safe_load((REPOSITORY / "docs/formats/agent-api.yaml").read_text())
CHALLENGE = bytes(range(20))
OPERATIONS = [
    (method.upper(), path, operation)
    for path, item in API["paths"].items()
    for method, operation in item.items()
]
TYPES: dict[str, type] = {
    "object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None),
}  # fmt: skip


def listed(kinds: str | list[str]) -> list[str]:
    return [kinds] if isinstance(kinds, str) else kinds


CHECKS: dict[str, Callable[[Any, Any], bool]] = {
    "type": lambda value, kinds: isinstance(value, tuple(map(TYPES.__getitem__, listed(kinds)))),
    "enum": lambda value, words: value in words,
    "pattern": lambda value, pattern: re.search(pattern, value) is not None,
    "required": lambda value, names: value is None or value.keys() >= {*names},
    "minimum": lambda value, low: value >= low,
    "maximum": lambda value, high: value <= high,
    "minLength": lambda value, low: len(value) >= low,
    "maxLength": lambda value, high: len(value) <= high,
    "maxItems": lambda value, high: len(value) <= high,
    "additionalProperties": lambda _, allowed: allowed is False,  # judged with the properties
    "description": lambda *_: True,
    "default": lambda *_: True,
}


def fits(value: Any, schema: dict[str, Any], at: str = "answer") -> None:
    """Assert that a value is as a schema says: as much of JSON Schema as the description uses."""
    for key, wanted in schema.items():
        if key == "$ref":
            fits(value, API["components"]["schemas"][wanted.rpartition("/")[2]], at)
        elif key == "properties":
            assert not (value or {}).keys() - wanted.keys(), at
            for name in wanted.keys() & (value or {}).keys():
                fits(value[name], wanted[name], f"{at}.{name}")
        elif key == "items":
            for n, item in enumerate(value):
                fits(item, wanted, f"{at}[{n}]")
        else:
            assert CHECKS[key](value, wanted), f"{at}: {key} {wanted}"


@pytest.fixture
def lenient(socket_dir: Path) -> Iterator[Keysock]:
    """Where programs may add events too."""
    with served(socket_dir, strict=False) as keysock:
        yield keysock


def body_schema(operation: Any) -> Any:
    return operation["requestBody"]["content"]["application/json"]


@pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_every_operation_answers_as_described(
    lenient: Keysock, method: str, path: str, operation: Any
) -> None:
    example = None
    if "requestBody" in operation:
        example = body_schema(operation)["example"]
        fits(example, body_schema(operation)["schema"], "example")
    status, answer = call(lenient.path("agent"), path, example, method=method)
    assert status == 200, answer
    fits(answer, operation["responses"]["200"]["content"]["application/json"]["schema"])


@pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_every_member_is_known_and_no_other(lenient: Keysock, method: str, path: str, operation: Any) -> None:
    if "requestBody" not in operation:
        return
    schema = body_schema(operation)["schema"]["$ref"].rpartition("/")[2]
    properties = API["components"]["schemas"][schema]["properties"]
    status, answer = call(lenient.path("agent"), path, {"unheard_of": 1}, method=method)
    assert status == 400
    listed = answer["error"].partition("want ")[2].split(", ")
    assert sorted(listed) == sorted(properties)


def test_nothing_is_served_that_is_not_described(keysock: Keysock) -> None:
    described = {f"{method} {path.removeprefix('/v1/')}" for method, path, _ in OPERATIONS}
    assert Ours(None).table().keys() == described  # type: ignore[arg-type]
    for name in {name.partition(" ")[2] for name in described}:
        for method in ("GET", "POST", "PUT", "DELETE"):
            status, _ = call(keysock.path("agent"), f"/v1/{name}", {}, method=method)
            assert (status == 405) == (f"{method} {name}" not in described)


def ask(keysock: Keysock, target: str, /, **fields: Any) -> Any:
    status, answer = call(keysock.path("agent"), target, fields)
    assert status == 200, answer
    return answer


def refused(keysock: Keysock, target: str, status: int, /, **fields: Any) -> str:
    found, answer = call(keysock.path("agent"), target, fields)
    assert found == status, answer
    return str(answer["error"])


def test_keys_have_epochs(keysock: Keysock) -> None:
    root = app_keys(ROOT).app_root
    seen = set()
    for kind in Kind:
        for epoch in (1, 2, 3):
            answer = ask(keysock, "/v1/keys", path="db/x", kind=str(kind), epoch=epoch)
            wanted = derive_epoch(root, use=Use.EXPORT, kind=kind, path="db/x", epoch=epoch)
            assert unb64u(answer["key"], "key") == wanted
            seen.add(wanted)
    assert len(seen) == 12
    assert ask(keysock, "/v1/keys", path="db/x")["epoch"] == 3
    for epoch in (0, 4, 1 << 33):
        assert "epoch" in refused(keysock, "/v1/keys", 400, path="db/x", epoch=epoch)
    assert "kind" in refused(keysock, "/v1/keys", 400, kind="rsa")


@pytest.mark.parametrize("kind", ["ed25519", "p256", "secp256k1"])
def test_keys_that_sign_are_never_given_out(keysock: Keysock, kind: str) -> None:
    made = ask(keysock, "/v1/signatures", path="wallet/1", kind=kind, data=b64u(b"hello"))
    key, signature = (
        load_der_public_key(unb64u(made["public_key"], "key")),
        unb64u(made["signature"], "signature"),
    )
    assert ask(keysock, "/v1/public-keys", path="wallet/1", kind=kind)["public_key"] == made["public_key"]
    if isinstance(key, Ed25519PublicKey):
        key.verify(signature, b"hello")
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        key.verify(encode_dss_signature(r, s), b"hello", ec.ECDSA(SHA256()))
    secrets = [
        ask(keysock, "/v1/keys", path="wallet/1", kind=kind)["key"],
        b64u(bytes.fromhex(call(keysock.path("dstack"), "/GetKey", {"path": "wallet/1"})[1]["key"])),
    ]
    inside = derive_epoch(app_keys(ROOT).app_root, use=Use.SIGN, kind=Kind(kind), path="wallet/1", epoch=3)
    assert b64u(inside) not in secrets
    assert "no kind of key pair" in refused(keysock, "/v1/signatures", 400, kind="secret", data="")


@pytest.mark.guarantee("G20")
def test_rights_hold_here_too(socket_dir: Path) -> None:
    rule = Rule(methods=frozenset({Method.GET_KEY, Method.SIGN}), paths=("db/",), sign=("wallet/",))
    with served(socket_dir, rights=Rights(uids={0: rule})) as keysock:
        own = ask(keysock, "/v1/keys")["path"]
        assert own == "uid-0/"
        ask(keysock, "/v1/keys", path="db/x")
        ask(keysock, "/v1/signatures", path="wallet/x", data="")
        assert "paths: ['wallet/x']" in refused(keysock, "/v1/keys", 403, path="wallet/x")
        assert "sign: ['db/x']" in refused(keysock, "/v1/signatures", 403, path="db/x", data="")
        assert "methods: [Attest]" in refused(keysock, "/v1/evidence", 403, challenge=b64u(CHALLENGE))
        assert "methods: [GetTlsKey]" in refused(keysock, "/v1/certificates", 403)
        status, rights = call(keysock.path("agent"), "/v1/rights", method="GET")
        assert (
            status == 200 and rights["paths"] == ["uid-0/", "db/"] and rights["sign"] == ["uid-0/", "wallet/"]
        )


def verified(keysock: Keysock, answer: Any, key: bytes, caller: str = "uid-0") -> None:
    chip = silicon.silicon()
    claims = verify_bundle(
        Bundle.from_json(answer["bundle"]),
        purpose=Purpose.APPLICATION,
        challenge=application_challenge(caller, CHALLENGE),
        key=key,
        roots=silicon.roots(chip),
        now=datetime.now(UTC),
    )
    assert claims.events == keysock.log


@pytest.mark.guarantee("G8")
def test_evidence_speaks_for_a_key_that_the_caller_holds(keysock: Keysock) -> None:
    challenge = b64u(CHALLENGE)
    verified(keysock, ask(keysock, "/v1/evidence", challenge=challenge), b"")
    inside = ask(keysock, "/v1/evidence", challenge=challenge, path="wallet/1", kind="p256")
    public = ask(keysock, "/v1/public-keys", path="wallet/1", kind="p256")["public_key"]
    verified(keysock, inside, unb64u(public, "key"))
    for key in (Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())):
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        text = _PROOF + enc(b"uid-0") + enc(CHALLENGE) + enc(spki)
        proof = key.sign(text) if isinstance(key, Ed25519PrivateKey) else key.sign(text, ec.ECDSA(SHA256()))
        verified(
            keysock,
            ask(keysock, "/v1/evidence", challenge=challenge, key=b64u(spki), proof=b64u(proof)),
            spki,
        )
        for wrong in (b"", proof[:-1], bytes(len(proof))):
            error = refused(
                keysock, "/v1/evidence", 400, challenge=challenge, key=b64u(spki), proof=b64u(wrong)
            )
            assert "want who asks to hold the key" in error
        other = b64u(CHALLENGE[::-1])
        refused(keysock, "/v1/evidence", 400, challenge=other, key=b64u(spki), proof=b64u(proof))
    refused(keysock, "/v1/evidence", 400, challenge=challenge, key=b64u(b"no key"), proof="")
    for length in (15, 65):
        refused(keysock, "/v1/evidence", 400, challenge=b64u(bytes(length)))


def test_a_certificate_lasts_as_long_as_asked(keysock: Keysock) -> None:
    answer = ask(keysock, "/v1/certificates", subject="db", lifetime_s=3600)
    leaf = x509.load_pem_x509_certificate(answer["chain"][0].encode())
    assert int(leaf.not_valid_after_utc.timestamp()) == answer["not_after"]
    assert abs(answer["not_after"] - datetime.now(UTC).timestamp() - 3600) < 60
    for seconds in (0, 398 * 86400, 1 << 60):
        assert "lifetime_s" in refused(keysock, "/v1/certificates", 400, lifetime_s=seconds)


def test_the_status_tells_the_measured_root(keysock: Keysock) -> None:
    _, status = call(keysock.path("agent"), "/v1/status", method="GET")
    assert status["keys"]["app_root_public"] == app_keys(ROOT).app_root_public.hex()
    assert status["log_head"] == keysock.log.head.hex()
    assert status["userdata_sha256"] == sha256(keysock.plan.userdata.encode()).hexdigest()
