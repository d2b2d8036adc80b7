"""Mirrors host/pull/: what each kind of store is asked, and what is believed of its answers."""

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from strongroom.cli.broker_certificate import TLSCertificate
from strongroom.errors import ConfigError, FormatError, ProtocolError, VerifyError
from strongroom.host.fetch import Pin
from strongroom.host.pull.address import source_of
from strongroom.host.pull.credentials import Credentials
from strongroom.host.pull.pull import Pulled, pull
from strongroom.host.pull.registry import MANIFEST_TYPE, TITLE, Registry
from strongroom.host.pull.s3 import Bucket
from strongroom.host.pull.sigv4 import Signer, encoded
from strongroom.host.pull.source import Source
from tests.fakes.pulled import FIRST, QUICK, ROOT, TREE, credentials, here
from tests.fakes.stores import Answer, Request, Store, at, serving

KEY_ID, SECRET_KEY = (
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
)  # of Amazon's examples


@pytest.fixture
def store(served: tuple[Path, TLSCertificate]) -> Iterator[Store]:
    with serving(served[0]) as store:
        yield store


@pytest.fixture
def pin(served: tuple[Path, TLSCertificate]) -> Pin:
    return Pin(ca_pem=served[1].pem)


def bring(source: Source, dest: Path, pin: Pin) -> Pulled:
    return asyncio.run(pull(source, dest, pin=pin, root=ROOT, rules=QUICK))


# Amazon S3 API reference, "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk"
EXAMPLES = [
    (
        "/test.txt",
        "",
        {"range": "bytes=0-9"},
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    ("/", "lifecycle=", {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
    ("/", "max-keys=2&prefix=J", {}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
]


@pytest.mark.parametrize(("path", "query", "headers", "want"), EXAMPLES)
def test_signatures_are_amazon_s(path: str, query: str, headers: dict[str, str], want: str) -> None:
    signer = Signer(key_id=KEY_ID, secret_key=SECRET_KEY, region="us-east-1")
    now = datetime(2013, 5, 24, tzinfo=UTC)
    host = {"Host": "examplebucket.s3.amazonaws.com"}
    signed = signer.sign(path=path, query=query, headers=host | headers, now=now)
    assert signed["Authorization"].endswith(f"Signature={want}")
    assert SECRET_KEY not in repr(signer)


def test_a_signature_of_the_general_suite() -> None:
    """get-vanilla of Amazon's test suite for Signature Version 4."""
    signer = Signer(
        key_id="AKIDEXAMPLE",
        secret_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        region="us-east-1",
        service="service",
    )
    now = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
    signed = signer.sign(path="/", headers={"Host": "example.amazonaws.com"}, now=now)
    assert signed["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, "
        "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    ).replace(", ", ",")


def test_paths_are_encoded_once() -> None:
    assert encoded("a b/é+~._-/%") == "a%20b/%C3%A9%2B~._-/%25"


def test_a_bucket_is_asked_with_a_signature_for_it(store: Store, pin: Pin, tmp_path: Path) -> None:
    now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    store.files = {f"/models/llama/v%202/{name}": content for name, content in TREE.items()}
    keys = credentials(AWS_ACCESS_KEY_ID=KEY_ID, AWS_SECRET_ACCESS_KEY=SECRET_KEY, AWS_SESSION_TOKEN="t0ken")

    def check(request: Request) -> Answer | None:
        signer = Signer(key_id=KEY_ID, secret_key=SECRET_KEY, session_token="t0ken", region="eu-test-1")
        want = signer.sign(path=request.path, headers={"host": request.headers["host"]}, now=now)
        got = {name: request.headers.get(name.lower()) for name in want}
        return None if got == want else Answer(403, b"<Code>SignatureDoesNotMatch</Code>")

    store.rules = [check]
    with pytest.raises(ConfigError):
        Bucket("models/llama/v 2", keys)
    place = "models/llama/v%202"
    store.files = {f"/models/llama/v%25202/{name}": content for name, content in TREE.items()}
    bucket = Bucket(place, keys, endpoint=store.url, region="eu-test-1", now=lambda: now)
    bring(bucket, tmp_path / "dest", pin)
    assert here(tmp_path / "dest") == TREE
    assert SECRET_KEY not in str(store.heard)
    with pytest.raises(ProtocolError, match=r"s3://models.*403 \(SignatureDoesNotMatch\)"):
        bring(Bucket(place, keys, endpoint=store.url, now=lambda: now), tmp_path / "other", pin)


def test_a_public_bucket_is_asked_without(store: Store, pin: Pin, tmp_path: Path) -> None:
    store.files = {f"/bucket/{name}": content for name, content in TREE.items()}
    bring(Bucket("bucket", Credentials(), endpoint=store.url), tmp_path / "dest", pin)
    assert all("authorization" not in request.headers for request in store.heard)
    store.rules = [at("MANIFEST", Answer(301, b"<Code>PermanentRedirect</Code>", {"Location": store.url}))]
    with pytest.raises(ProtocolError, match=r"answer is 301 \(PermanentRedirect\), want 200"):
        bring(Bucket("bucket", Credentials(), endpoint=store.url), tmp_path / "dest", pin)


def test_hugging_face_sends_large_files_from_elsewhere(
    store: Store, pin: Pin, tmp_path: Path, served: tuple[Path, TLSCertificate]
) -> None:
    with serving(served[0]) as cdn:
        cdn.files = {f"/lfs/{name}": content for name, content in TREE.items()}

        def resolve(request: Request) -> Answer:
            match = re.fullmatch(r"/acme/llama/resolve/refs%2Fpr%2F1/(.+)", request.path)
            if match is None or request.headers.get("authorization") != "Bearer hf_x":
                return Answer(401)
            if match[1] in ("MANIFEST", "INDEX"):
                return Answer(200, TREE[match[1]])
            where = {"Location": f"{cdn.url}/lfs/{match[1]}", "X-Linked-Size": "1"}
            return Answer(302, b"Found", where)

        store.rules = [resolve]
        source = source_of("hf://acme/llama@refs/pr/1", credentials(HF_TOKEN="hf_x"), endpoint=store.url)
        bring(source, tmp_path / "dest", pin)
        assert here(tmp_path / "dest") == TREE
        assert all("authorization" not in request.headers for request in cdn.heard)


def artifact(store: Store, tree: dict[str, bytes], *, tag: str = "v1") -> str:
    """Publish a tree at acme/llama, as `oras push` would. The result is the manifest's digest."""
    layers = []
    for name, content in {"README.md": b"not ours", **tree}.items():
        digest = f"sha256:{sha256(content).hexdigest()}"
        store.files[f"/v2/acme/llama/blobs/{digest}"] = content
        layers.append({"digest": digest, "size": len(content), "annotations": {TITLE: name}})
    data = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "layers": layers}, indent=1).encode()
    digest = f"sha256:{sha256(data).hexdigest()}"
    for reference in (tag, digest):
        store.files[f"/v2/acme/llama/manifests/{reference}"] = data
    return digest


def test_a_registry_has_the_files_as_blobs(store: Store, pin: Pin, tmp_path: Path) -> None:
    digest = artifact(store, TREE)
    host = store.url.removeprefix("https://")
    for number, reference in enumerate((":v1", f"@{digest}", f":other@{digest}")):
        bring(Registry(f"{host}/acme/llama{reference}", Credentials()), tmp_path / str(number), pin)
        assert here(tmp_path / str(number)) == TREE
    assert store.heard[0].headers["accept"] == MANIFEST_TYPE


@pytest.mark.guarantee("G4")
def test_a_registry_is_held_to_its_digests(store: Store, pin: Pin, tmp_path: Path) -> None:
    digest = artifact(store, TREE)
    host = store.url.removeprefix("https://")
    path = f"/v2/acme/llama/blobs/sha256:{sha256(TREE[FIRST]).hexdigest()}"
    store.files[path] = bytes(len(TREE[FIRST]))
    with pytest.raises(VerifyError, match=f"{FIRST}: sha256 is"):
        bring(Registry(f"{host}/acme/llama:v1", Credentials()), tmp_path / "dest", pin)
    assert not (tmp_path / "dest" / FIRST).exists() and not (tmp_path / "dest" / f"{FIRST}.partial").exists()
    store.files[f"/v2/acme/llama/manifests/{digest}"] += b" "
    with pytest.raises(VerifyError, match="digest of the manifest is"):
        bring(Registry(f"{host}/acme/llama@{digest}", Credentials()), tmp_path / "dest", pin)


def test_what_a_registry_lacks_is_named(store: Store, pin: Pin, tmp_path: Path) -> None:
    source = Registry(f"{store.url.removeprefix('https://')}/acme/llama:v1", Credentials())
    artifact(store, {name: content for name, content in TREE.items() if name != FIRST})
    with pytest.raises(ProtocolError, match=f"has no {FIRST}, which its index names"):
        bring(source, tmp_path / "dest", pin)
    artifact(store, {**TREE, FIRST: b"short"})
    with pytest.raises(ProtocolError, match=f"{FIRST} is 5 bytes, want 70001"):
        bring(source, tmp_path / "dest", pin)
    artifact(store, {})
    with pytest.raises(ProtocolError, match="no layer is titled MANIFEST"):
        bring(source, tmp_path / "dest", pin)


MANIFESTS = [
    (b"", "not JSON"),
    (b"[]", "has no layers"),
    (b'{"manifests": []}', "has no layers"),
    (b'{"layers": [1]}', "a layer is no object"),
    (b'{"layers": [{"size": 1}]}', "no size or no sha256 digest"),
    (b'{"layers": [{"size": -1, "digest": "sha256:%s"}]}' % (b"0" * 64), "no size or no sha256 digest"),
    (b'{"layers": [{"size": 1, "digest": "sha512:%s"}]}' % (b"0" * 64), "no size or no sha256 digest"),
    (
        b'{"layers": [%s]}'
        % b",".join(
            [b'{"size":1,"digest":"sha256:%s","annotations":{"%s":"INDEX"}}' % (b"0" * 64, TITLE.encode())]
            * 2
        ),
        "two layers are titled INDEX",
    ),
]


@pytest.mark.parametrize(("manifest", "why"), MANIFESTS)
def test_a_bad_artifact(store: Store, pin: Pin, tmp_path: Path, manifest: bytes, why: str) -> None:
    store.files["/v2/acme/llama/manifests/v1"] = manifest
    with pytest.raises(FormatError, match=why):
        bring(
            Registry(f"{store.url.removeprefix('https://')}/acme/llama:v1", Credentials()),
            tmp_path / "d",
            pin,
        )


def doorkeeper(store: Store, realm: str, *, lifetime: int = 1000) -> None:
    """Let nobody read without a token of `realm`, each good for so many requests."""
    left = {"token-0": 0}

    def keep(request: Request) -> Answer | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if left.get(token, 0) > 0:
            left[token] -= 1
            return None
        left[f"token-{len(left)}"] = lifetime
        challenge = f'Bearer realm="{realm}",service="registry.example",scope="repository:other:push"'
        return Answer(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', {"WWW-Authenticate": challenge})

    def give(request: Request) -> Answer | None:
        if request.path != "/token":
            return None
        return Answer(200, json.dumps({"token": f"token-{len(left) - 1}", "expires_in": 1.5}).encode())

    store.rules = [give, keep]


@pytest.mark.parametrize("lifetime", [1000, 3])
def test_a_registry_wants_a_token(store: Store, pin: Pin, tmp_path: Path, lifetime: int) -> None:
    artifact(store, TREE)
    doorkeeper(store, f"{store.url}/token", lifetime=lifetime)
    login = credentials(REGISTRY_USER="me", REGISTRY_PASSWORD="pa55")
    source = Registry(f"{store.url.removeprefix('https://')}/acme/llama:v1", login)
    asyncio.run(
        pull(source, tmp_path / "dest", pin=pin, root=ROOT, rules=type(QUICK)(parallel=1, first_pause_s=0.01))
    )
    assert here(tmp_path / "dest") == TREE
    asked = store.asked("/token")
    assert (
        asked[0].query == "service=registry.example&scope=repository%3Aacme%2Fllama%3Apull"
    )  # our scope, not its
    basic = f"Basic {b64encode(b'me:pa55').decode()}"
    assert {request.headers["authorization"] for request in asked} == {basic}
    assert not [
        r for r in store.heard if r.path != "/token" and "Basic" in r.headers.get("authorization", "")
    ]


@pytest.mark.guarantee("G11")
def test_a_registry_cannot_send_the_password_elsewhere(
    store: Store, pin: Pin, tmp_path: Path, served: tuple[Path, TLSCertificate]
) -> None:
    artifact(store, TREE)
    host = store.url.removeprefix("https://")
    with serving(served[0]) as thief:
        doorkeeper(store, f"{thief.url}/token")
        thief.rules = [at("/token", Answer(401, b""))]
        login = {"REGISTRY_USER": "me", "REGISTRY_PASSWORD": "pa55"}
        with pytest.raises(ProtocolError, match="credentials were kept from it, REGISTRY_TOKEN_HOST=127"):
            bring(Registry(f"{host}/acme/llama:v1", credentials(**login)), tmp_path / "d", pin)
        assert all("authorization" not in request.headers for request in thief.heard)
        thief.rules = [at("/token", Answer(200, b'{"token": "token-1"}'))]
        named = credentials(**login, REGISTRY_TOKEN_HOST=thief.url.removeprefix("https://"))
        doorkeeper(store, f"{thief.url}/token")
        bring(Registry(f"{host}/acme/llama:v1", named), tmp_path / "d", pin)
        assert "authorization" in thief.heard[-1].headers
    doorkeeper(store, "http://127.0.0.1/token")
    with pytest.raises(
        ProtocolError, match=r"tokens are given at 'http://127\.0\.0\.1/token', want an https url"
    ):
        bring(Registry(f"{host}/acme/llama:v1", named), tmp_path / "d", pin)


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": "a b"}', b'{"token": "a\\r\\nX: y"}', b"\xff"]
)
def test_a_token_that_is_none(store: Store, pin: Pin, tmp_path: Path, answer: bytes) -> None:
    doorkeeper(store, f"{store.url}/token")
    store.rules.insert(0, at("/token", Answer(200, answer)))
    with pytest.raises(ProtocolError, match="the answer with the token holds none"):
        bring(
            Registry(f"{store.url.removeprefix('https://')}/acme/llama:v1", Credentials()),
            tmp_path / "d",
            pin,
        )


def test_a_registry_that_wants_a_password(store: Store, pin: Pin, tmp_path: Path) -> None:
    artifact(store, TREE)
    basic = f"Basic {b64encode(b'me:pa55').decode()}"

    def keep(request: Request) -> Answer | None:
        if request.headers.get("authorization") == basic:
            return None
        return Answer(401, b"", {"WWW-Authenticate": 'Basic realm="all of it"'})

    store.rules = [keep]
    host = store.url.removeprefix("https://")
    login = credentials(REGISTRY_USER="me", REGISTRY_PASSWORD="pa55")
    bring(Registry(f"{host}/acme/llama:v1", login), tmp_path / "dest", pin)
    assert here(tmp_path / "dest") == TREE
    for bad in (Credentials(), credentials(REGISTRY_USER="me", REGISTRY_PASSWORD="wrong")):
        with pytest.raises(ProtocolError, match="answer is 401"):
            bring(Registry(f"{host}/acme/llama:v1", bad), tmp_path / "other", pin)
