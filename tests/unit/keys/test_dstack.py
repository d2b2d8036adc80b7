"""Mirrors strongroom/keys/dstack.py. The vectors are dstack's own, of both versions of its interface."""

import json
import pickle
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from strongroom.errors import FormatError, VerifyError
from strongroom.keys.chain import issue, key_digest_v0, verify_chain
from strongroom.keys.derivation import derive, flattened, p256
from strongroom.keys.dstack import _MAX_KEPT, AppKeys, Provider
from strongroom.keys.recoverable import compressed, private_key, recover

ROOT = bytes.fromhex("1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1a2b")
KEYS = AppKeys(app_root=ROOT, disk_key=bytes(32))
SEED = sha256(b"a seed").digest()

V0 = [
    (
        "",
        "7c2ae1cd265eff5f206291fac92f030b4df17b15883c406572432f29c47eb175",
        "0262f9f01fbf3d7be0d5acac4fcf814f78cc6f25380539e39e432ab366edf0810d",
        "c2dc1e23ef9be6b7ea30cf5153ff838f3278b2a5828d685e58f6e7fc83833987",
    ),
    (
        "test",
        "52786aa123b0971e283af97f32e25767483d099d66e6c40afeb3a49046b5379e",
        "02ead9e0064aad1bb151c270c78ef82a4caf6d3fc92c311804e79751deb3476919",
        "df3598d63e442a5c51675baf6b1c30644d80a4fc7d532a1cf81400ee51acf8af",
    ),
    (
        "vms",
        "9db79b3fefe69f2a7b7efbc908c854bf845a629023361f2c9cb3db09fb99010f",
        "03ab7f25d56455d300a1c1f77f57f6d16193e89cdd9edc5c5e2994b446b1f3373d",
        "e4f6eb7b50267f586ba765766db7ca9487f1a506f6a49026ae09a1c605681bdb",
    ),
    (
        "my/key/path",
        "a83de995dbff2367e1a6019a3bf78e103f481c96cd89c1481792dcaf7e1b11a0",
        "036728a6f35bb629a261c188ed2c6a1332a9061de1a6f9b8cb5ee14ef409a043d7",
        "615a6e6594ca03f7592c41f5318b91c02bdf56657c9f7d3945cd3ec2d4686c60",
    ),
]
V1 = [
    (
        "",
        "secp256k1",
        "59f60584ce6fd2a3a31997256db9d77322463fc8a6b1520110401bcb1ee92387",
        "0377c7fb050db181d392266a3cee9adb2901c6d665f11bac68be5457f577ba4908",
    ),
    (
        "",
        "ed25519",
        "b023493030669cf22e9cafa6a464d4cf3ae4edfe5474ec796710f21ea011946d",
        "a3dc149fd5b765eab2eb7d3174fa939e39386898f10b15b7b146f6f1358ecf2a",
    ),
    (
        "storage-encryption",
        "secp256k1",
        "5510330f86902ddae38c6d89c93a8408019332c17a429e1abd01c4a28d1544a6",
        "03d962450a41748021c8b02787ac36ce642ff0ae25f4c55019eb527e1112cfd764",
    ),
    (
        "storage-encryption",
        "ed25519",
        "3c4c3ece12fa99ccb93fc0090877f80e70545fdd971e2ac93d3398c4684538d3",
        "2380c4a33a60b60613fa43866421e5b96eb8dcde211317200fd0d41e7e491288",
    ),
    (
        "a/b/c",
        "secp256k1",
        "7f0973449298085d2d36a3b4c4d3243c100ba1981ffa885fe9e9dee883e69538",
        "02e9b1a61b6d70aa9b241753828c316bf90e33e77b2e113f9ba75a8b6dc3cde5c1",
    ),
    (
        "k\0:ey",
        "ed25519",
        "42da8bf0b479ed125c370e3b91f982735bf08ff592abbd586985affa43ee96a1",
        "c833107822b003ff5675b33b90b151d4315c3ab9162b17d876e8dffde41abf9b",
    ),
]


@pytest.mark.parametrize(("path", "key", "secp256k1", "ed25519"), V0)
def test_keys_of_v0(path: str, key: str, secp256k1: str, ed25519: str) -> None:
    assert KEYS.key(path).hex() == key
    for name, public in (
        ("", secp256k1),
        ("k256", secp256k1),
        ("secp256k1", secp256k1),
        ("ed25519", ed25519),
    ):
        claim = KEYS.claim_v0(path, "signing", name)
        assert (claim.key.hex(), claim.public_key.hex()) == (key, public)


@pytest.mark.parametrize(("domain", "algorithm", "key", "public"), V1)
def test_keys_of_v1(domain: str, algorithm: str, key: str, public: str) -> None:
    claim = KEYS.claim_v1(domain, algorithm)
    assert KEYS.key_v1(domain, algorithm).hex() == claim.key.hex() == key
    assert claim.public_key.hex() == public


def test_link_0_of_v0() -> None:
    link0, link1 = KEYS.chain_v0("test", "signing", "secp256k1")
    assert link0.hex() == (
        "c8a3dcf06c4e95bd78a5d7a1c8fcff171fc5848cfae804c6fc11bda4dc5d4062"
        "379995390843827444992c4c0e4bac70f0f878e01b9fc8b98cd7126fe5a3876b01"
    )
    assert link1 == b""


def test_link_0_of_v1() -> None:
    assert KEYS.claim_v1("storage-encryption", "secp256k1").chain[0].hex() == (
        "5b6193729ce7976ec67863f21692d4b98c69832698aae8e001a7d33a6f818b6e"
        "46ca950725b6e90e8ca9bcf394abd03ce264bf9b7eec1e91693247f9dd53c26901"
    )


def test_only_the_path_chooses_the_secret_of_v0() -> None:
    assert len({KEYS.claim_v0("p", purpose, name).key for purpose in "ab" for name in ("", "ed25519")}) == 1
    assert len({KEYS.chain_v0("p", purpose, name) for purpose in "ab" for name in ("", "ed25519")}) == 4


@pytest.mark.parametrize("name", ["rsa", "secp256k1_prehashed", "p256"])
def test_another_algorithm_is_refused(name: str) -> None:
    with pytest.raises(FormatError, match="unsupported algorithm"):
        KEYS.claim_v0("p", "", name)
    with pytest.raises(FormatError, match="unsupported algorithm"):
        KEYS.claim_v1("p", name)


@pytest.mark.parametrize("name", ["", "k256"])
def test_v1_has_no_default_and_no_alias(name: str) -> None:
    with pytest.raises(FormatError, match="unsupported algorithm"):
        KEYS.claim_v1("p", name)


def test_what_is_kept_is_what_would_be_made() -> None:
    fresh = AppKeys(app_root=ROOT, disk_key=bytes(32))
    first = fresh.claim_v0("a path", "p", "")
    assert fresh.claim_v0("a path", "p", "") == first
    assert fresh.claim_v0("b", "p", "") != first
    assert len(fresh._kept) == 2


def test_no_more_than_a_bound_is_kept() -> None:
    fresh = AppKeys(app_root=ROOT, disk_key=bytes(32))
    fresh._kept.update({("v0", str(n), "", "ed25519"): (b"", b"") for n in range(_MAX_KEPT)})
    fresh.claim_v0("new", "", "ed25519")
    assert len(fresh._kept) == _MAX_KEPT
    assert ("v0", "0", "", "ed25519") not in fresh._kept
    fresh.claim_v0("long" * 100, "", "ed25519")
    assert not [name for name in fresh._kept if "long" in name[1]]


def test_a_claim_of_v0_and_one_of_v1_never_meet() -> None:
    fresh = AppKeys(app_root=ROOT, disk_key=bytes(32))
    assert fresh.claim_v0("x", "", "ed25519").chain != fresh.claim_v1("x", "ed25519").chain


def test_sign_uses_one_key_and_shows_its_chain() -> None:
    for name, base in (
        ("ed25519", "ed25519"),
        ("secp256k1", "secp256k1"),
        ("k256", ""),
        ("secp256k1_prehashed", ""),
    ):
        signed = KEYS.sign(name, bytes(32))
        claim = KEYS.claim_v0("vms", "signing", base)
        assert (signed.public_key, signed.chain) == (claim.public_key, claim.chain)
        AppKeys.verify(name, bytes(32), signed.signature, signed.public_key)
        with pytest.raises(VerifyError):
            AppKeys.verify(name, bytes(31) + b"1", signed.signature, signed.public_key)
    with pytest.raises(FormatError):
        KEYS.sign("", b"data")


def test_a_service_s_chain_verifies() -> None:
    service = private_key(sha256(b"service").digest())
    link1 = issue(service, app_id=bytes(20), app_root=KEYS.app_root_public)
    keys = AppKeys(app_root=ROOT, disk_key=bytes(32), app_root_signature=link1)
    claim = keys.claim_v0("p", "purpose", "")
    digest = key_digest_v0("purpose", claim.public_key)
    public = compressed(service.public_key())
    assert verify_chain(digest, claim.chain, app_id=bytes(20), service_root=public) == keys.app_root_public
    assert recover(digest, claim.chain[0]) == keys.app_root_public


def test_a_seed_gives_every_key() -> None:
    keys = AppKeys.from_seed(bytearray(SEED))
    assert keys.key("p") == AppKeys.from_seed(SEED).key("p")
    assert keys.app_root == derive(SEED, b"app-k256-key")
    assert keys.disk_key == flattened(p256(derive(SEED, b"app-disk-key")))
    assert keys.env_key == keys.app_root_signature == b""
    with pytest.raises(FormatError, match="31 bytes, want 32"):
        AppKeys.from_seed(SEED[:31])


def test_tappd_s_key_is_the_same_secret_on_another_curve() -> None:
    scalar = int.from_bytes(KEYS.key("a"), "big")
    assert KEYS.tappd_key("a").private_numbers().private_value == scalar
    fresh = KEYS.tappd_key("a", seed=SEED).private_numbers().private_value
    assert fresh == int.from_bytes(derive(SEED, b"a"), "big")


@pytest.mark.guarantee("G11")
def test_nothing_secret_is_shown() -> None:
    keys = AppKeys.from_seed(SEED)
    claim = keys.claim_v0("p", "", "")
    shown = f"{keys!r}{claim!r}{Provider(kind='None', members={'key': 'KEY'})!r}"
    for secret in (keys.app_root, keys.disk_key, claim.key):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
    assert "KEY" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(keys)  # a private key inside cannot be


def appkeys(provider: dict[str, Any] | None = None) -> dict[str, Any]:
    pem = p256(derive(SEED, b"app-key")).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "disk_crypt_key": bytes(32).hex(),
        "env_crypt_key": "",
        "k256_key": ROOT.hex(),
        "k256_signature": "",
        "gateway_app_id": "",
        "ca_cert": "",
        "key_provider": {"None": {"key": pem.decode()}} if provider is None else provider,
    }


UNKNOWN_KIND = (  # PKCS#8 of an algorithm that nobody has
    "-----BEGIN PRIVATE KEY-----\nMA8CAQAwBgYEKgMEBQQCBAA=\n-----END PRIVATE KEY-----\n"
)


def test_the_file_makes_a_round_trip() -> None:
    keys = AppKeys.from_appkeys_json(json.dumps(appkeys()).encode())
    assert keys.key("test") == KEYS.key("test")
    assert json.loads(keys.to_appkeys_json()) == appkeys()
    seeded = AppKeys.from_seed(SEED)
    again = AppKeys.from_appkeys_json(seeded.to_appkeys_json())
    assert (again.app_root, again.disk_key) == (seeded.app_root, seeded.disk_key)
    assert again.ca_key is not None
    assert seeded.ca_key is not None
    assert again.ca_key.private_numbers() == seeded.ca_key.private_numbers()


def test_a_service_s_file_has_no_ca_key() -> None:
    provider = {"Kms": {"url": "https://kms", "pubkey": "00", "tmp_ca_key": "", "tmp_ca_cert": ""}}
    keys = AppKeys.from_appkeys_json(json.dumps(appkeys(provider)).encode())
    assert keys.ca_key is None
    assert json.loads(keys.to_appkeys_json())["key_provider"] == provider


@pytest.mark.parametrize(
    "change",
    [
        {"k256_key": "00"},
        {"k256_key": "zz" * 32},
        {"k256_key": 1},
        {"k256_key": "00" * 32},
        {"k256_signature": "00"},
        {"env_crypt_key": "00"},
        {"disk_crypt_key": ""},
        {"ca_cert": None},
        {"more": ""},
        {"key_provider": {}},
        {"key_provider": {"Other": {}}},
        {"key_provider": {"None": {}}},
        {"key_provider": {"None": {"key": "not pem"}}},
        {"key_provider": {"None": {"key": 1}}},
        {"key_provider": {"None": {"key": UNKNOWN_KIND}}},
        {"key_provider": {"Local": {"key": ""}}},
    ],
)
def test_a_wrong_file_is_refused_and_not_quoted(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError) as caught:
        AppKeys.from_appkeys_json(json.dumps(appkeys() | change).encode())
    assert ROOT.hex()[:16] not in str(caught.value)
    assert "zz" not in str(caught.value)


def test_every_cut_of_the_file_is_refused() -> None:
    data = json.dumps(appkeys()).encode()
    for n in range(len(data)):
        with pytest.raises(FormatError):
            AppKeys.from_appkeys_json(data[:n])
