"""Mirrors strongroom/evidence/initdata.py."""

import base64
import gzip
import hashlib
from typing import Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.initdata import (
    MAX_BYTES,
    BrokerAddress,
    InitData,
    delivered_text,
    fitted,
    register,
)

TEXT: Final = """algorithm = "sha384"
version = "0.1.0"

[data]
"aa.toml" = '''
[token_configs]
[token_configs.kbs]
url = "https://kbs.example:8080"
cert = \"\"\"
-----BEGIN CERTIFICATE-----
MIIB
-----END CERTIFICATE-----
\"\"\"
'''
"cdh.toml" = '''
socket = 'unix:///run/confidential-containers/cdh.sock'
[image]
max_concurrent_layer_downloads_per_image = 3
'''
"policy.rego" = '''package agent_policy
default AllowRequestsFailingPolicy := true'''
"""


def changed(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new)


def test_the_digest_is_over_the_exact_bytes() -> None:
    init_data = InitData.of(TEXT.encode())
    assert init_data.digest == hashlib.sha384(TEXT.encode()).digest()
    for other in (
        TEXT + "\n",
        TEXT.replace("\n", "\r\n"),
        "# c\n" + TEXT,
        changed('"0.1.0"\n', '"0.1.0" \n'),
    ):
        assert InitData.parse(other).data.keys() == init_data.data.keys()
        assert InitData.parse(other).digest != init_data.digest


@pytest.mark.parametrize(("name", "size"), [("sha256", 32), ("sha384", 48), ("sha512", 64)])
def test_the_digest_is_cut_or_filled_to_where_it_is_bound(name: str, size: int) -> None:
    digest = InitData.parse(changed('"sha384"', f'"{name}"')).digest
    assert len(digest) == size
    assert fitted(digest, 32) == digest[:32]
    assert fitted(digest, 48) == (digest + bytes(16))[:48]
    assert register(digest) == hashlib.sha256(bytes(32) + digest[:32]).digest()


def test_the_register_is_one_extend_from_zero() -> None:
    # printf '%064d' 0 | xxd -r -p; printf '11%.0s' {1..32} | xxd -r -p; both into sha256sum
    assert register(b"\x11" * 48).hex() == (
        "8878b15a7d6a3a4f464e8f9f42591dbc0cf4bedea0ec309003d2b2ee53655ef8"
    )


def test_the_broker_is_read_and_nothing_else() -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    assert InitData.parse(TEXT).broker() == BrokerAddress("https://kbs.example:8080", pem)
    assert InitData.parse(changed('"aa.toml"', '"other.toml"')).broker() is None
    assert InitData.parse(changed("[token_configs.kbs]", "[token_configs.coco_as]")).broker() is None
    without = changed("cert =", "other =")
    assert InitData.parse(without).broker() == BrokerAddress("https://kbs.example:8080", None)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('url = "https://kbs.example:8080"', "url = 1", r"aa\.toml\.token_configs\.kbs: url and cert"),
        ("[token_configs]\n[token_configs.kbs]", "token_configs = 1\n[x]", "token_configs: not a table"),
        ("[token_configs.kbs]", "kbs = 1\n[x]", r"token_configs\.kbs: not a table"),
        ("[token_configs]\n", "[token_configs\n", r"aa\.toml: not TOML"),
    ],
)
def test_agent_settings_of_another_shape_are_refused(old: str, new: str, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        InitData.parse(changed(old, new)).broker()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"sha384"', '"sha1"', "algorithm: got 'sha1', want one of sha256, sha384, sha512"),
        ('"sha384"', "1", "algorithm: got 1"),
        ('"sha384"', '["sha384"]', "algorithm"),
        ('"0.1.0"', '"0.2.0"', "version: got '0.2.0', want 0.1.0"),
        ("[data]", "[other]", "want exactly algorithm, version and data"),
        ("[data]", "more = 1\n[data]", "want exactly algorithm, version and data"),
        ("[data]", "data = 1\n[more]", "want exactly|not TOML"),
        ('"policy.rego" = ', "[data.x]\ny = ", "data: want file names and their texts"),
    ],
)
def test_another_document_is_refused(old: str, new: str, why: str) -> None:
    with pytest.raises(FormatError, match=f"init-data.*{why}|{why}"):
        InitData.parse(changed(old, new))


def test_what_is_delivered_comes_back() -> None:
    init_data = InitData.parse(TEXT)
    packed = init_data.pack()
    assert packed == InitData.parse(TEXT).pack()
    assert gzip.decompress(base64.b64decode(packed)) == TEXT.encode()
    assert delivered_text(packed) == delivered_text(TEXT.encode()) == TEXT.encode()
    lines = b"\n".join(packed[at : at + 76] for at in range(0, len(packed), 76)) + b"\n"
    assert InitData.of(delivered_text(lines)) == init_data


def test_what_others_pack_is_read() -> None:
    for level in (1, 9):
        packed = base64.b64encode(gzip.compress(TEXT.encode(), level))
        assert delivered_text(packed) == TEXT.encode()


def test_a_delivery_cut_anywhere_is_refused() -> None:
    packed = InitData.parse(TEXT).pack()
    for n in range(4, len(packed)):
        with pytest.raises(FormatError, match="init-data: "):
            delivered_text(packed[:n])


def test_a_changed_bit_gives_no_other_text() -> None:
    packed = base64.b64decode(InitData.parse(TEXT).pack())
    idle = 0
    for bit in range(80, 8 * len(packed)):  # past the header, which says when and where it was packed
        flipped = bytearray(packed)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            assert delivered_text(base64.b64encode(bytes(flipped))) == TEXT.encode()
            idle += 1
        except FormatError as error:
            assert str(error).startswith("init-data: ")  # noqa: PT017
    assert idle < 8  # those that fill up the last byte of the compressed stream


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (gzip.compress(bytes(MAX_BYTES + 1)), f"more than {MAX_BYTES} bytes"),
        (gzip.compress(bytes(100 * MAX_BYTES)), f"more than {MAX_BYTES} bytes"),
        (gzip.compress(b"a") + gzip.compress(b"b"), "one whole member"),
        (gzip.compress(b"a") + b"b", "one whole member"),
    ],
    ids=range(4),
)
def test_a_bomb_or_a_second_member_is_refused(packed: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        delivered_text(base64.b64encode(packed))


def test_a_delivery_is_bounded_before_it_is_looked_at() -> None:
    with pytest.raises(FormatError, match="bytes delivered, want at most"):
        delivered_text(b"H4sI" * MAX_BYTES)
    with pytest.raises(FormatError, match="not base64"):
        delivered_text(b"H4sI!")
    with pytest.raises(FormatError, match="byte 1 is not UTF-8"):
        InitData.of(b"a\xff")


def test_claims_are_objects_where_the_text_is_toml() -> None:
    claims = InitData.parse(TEXT).claims()
    assert claims["agent_policy_claims"] == InitData.parse(TEXT).data["policy.rego"]
    assert claims["cdh.toml"] == {
        "socket": "unix:///run/confidential-containers/cdh.sock",
        "image": {"max_concurrent_layer_downloads_per_image": 3},
    }
    dated = InitData.parse(changed("max_concurrent_layer_downloads_per_image = 3", "at = 2026-01-01"))
    assert isinstance(dated.claims()["cdh.toml"], str)
    deep = InitData.parse(changed("max_concurrent_layer_downloads_per_image = 3", "a = " + "[" * 500))
    assert isinstance(deep.claims()["cdh.toml"], str)
