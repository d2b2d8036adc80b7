"""Mirrors broker/resource.py."""

import json
from typing import Any

import pytest

from strongroom.broker.resource import ResourceURI, VolumeKey
from strongroom.errors import FormatError
from strongroom.wire.canonical import b64u

KEY = VolumeKey(key=bytes(range(32)), root=bytes(range(32, 64)), epoch=7)
PACKED = (
    b'{"epoch":7,"key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",'
    b'"root":"202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f","version":"strongroom/volume-key/v1"}'
)


def test_a_uri_reads_and_writes() -> None:
    uri = ResourceURI.parse("kbs:///default/model_key/llama-3.1")
    assert (uri.repository, uri.type, uri.tag) == ("default", "model_key", "llama-3.1")
    assert str(uri) == "kbs:///default/model_key/llama-3.1"
    assert uri.path == "/kbs/v0/resource/default/model_key/llama-3.1"
    assert ResourceURI.from_segments("default/model_key/llama-3.1") == uri


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kbs:///",
        "kbs:///a/b",
        "kbs:///a/b/c/d",
        "kbs:///a//c",
        "kbs:///a/b/",
        "kbs:///a/b/.c",
        "kbs:///a/../c",
        "kbs:///a/b/c?d=e",
        "kbs:///a/b/c%2f",
        "kbs:///a/b/c\n",
        "kbs:///a/b/\u00e9",
        "kbs://host/a/b/c",
        "kbs+plugin:///a/b/c",
        "KBS:///a/b/c",
        "/a/b/c",
        f"kbs:///a/b/{'c' * 129}",
    ],
)
def test_another_uri_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="resource"):
        ResourceURI.parse(text)


def test_a_volume_key_has_one_encoding() -> None:
    assert KEY.pack() == PACKED
    assert VolumeKey.parse(PACKED) == KEY


@pytest.mark.parametrize("n", range(len(PACKED)))
def test_only_the_whole_parses(n: int) -> None:
    with pytest.raises(FormatError, match="volume key"):
        VolumeKey.parse(PACKED[:n])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": "strongroom/volume-key/v2"}, "version is not"),
        ({"key": b64u(bytes(31))}, "key is 31 bytes, want 32"),
        ({"key": b64u(bytes(32)) + "="}, "key is not base64url"),
        ({"key": 5}, "key is not base64url"),
        ({"root": "AB" * 32}, "root is not 64 lowercase hex"),
        ({"root": "ab" * 31}, "root is not 64"),
        ({"root": None}, "root is not 64"),
        ({"epoch": -1}, "epoch is -1, want a whole number"),
        ({"epoch": 1 << 53}, "epoch is 9007199254740992"),
        ({"epoch": True}, "epoch is not a whole number"),
        ({"epoch": "7"}, "epoch is not a whole number"),
        ({"more": 1}, "exactly epoch, key, root, version"),
    ],
)
def test_another_volume_key_is_refused(change: dict[str, Any], why: str) -> None:
    value = json.dumps(json.loads(PACKED) | change, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(FormatError, match=why):
        VolumeKey.parse(value)


@pytest.mark.parametrize(
    "data",
    [PACKED + b"\n", PACKED.replace(b":", b": "), b"[]", b"{}", b"\xff", PACKED + PACKED, b" " * 2000],
    ids=range(7),
)
def test_another_spelling_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="volume key"):
        VolumeKey.parse(data)


@pytest.mark.guarantee("G11")
def test_the_key_is_never_shown() -> None:
    text = b64u(KEY.key)
    assert text not in repr(KEY) and repr(KEY.key) not in repr(KEY)
    for broken in (
        f'{{"{text}":1,"{text}":1}}',
        f'{{"key":"{text}!"}}',
        PACKED.decode().replace(text, text + "=="),
    ):
        with pytest.raises(FormatError) as caught:
            VolumeKey.parse(broken.encode())
        assert text not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
