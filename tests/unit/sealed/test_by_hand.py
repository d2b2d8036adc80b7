"""A second reader, written from docs/formats/sealed.md alone: it imports nothing of ours."""

import hmac
import json
from base64 import urlsafe_b64decode
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.fakes.sealed import MODEL_KEY, make_sealed


def read_tree(path: Path, model_key: bytes) -> dict[str, bytes]:
    data = (path / "MANIFEST").read_bytes()
    header, body = data[:104], data[104:]
    chunk, salt, commitment = 1 << header[11], header[40:72], header[72:104]
    prk = hmac.digest(salt, model_key, "sha256")

    def derive(info: bytes) -> bytes:
        return hmac.digest(prk, b"strongroom/sealed/v2/" + info + b"\x01", "sha256")

    assert header[:12] == b"SRSEALED" + b"\0\2" + b"\1" + header[11:12]
    assert derive(b"commitment") == commitment
    manifest = json.loads(AESGCM(derive(b"manifest")).decrypt(bytes(12), body, header))
    tags = (path / "tags" / manifest["tags_sha256"]).read_bytes()
    assert sha256(tags).hexdigest() == manifest["tags_sha256"]
    files = {}
    for entry in manifest["entries"]:
        if entry["type"] == "inline":
            files[entry["path"]] = urlsafe_b64decode(entry["content"] + "==")
        if entry["type"] == "object":
            sealed = (path / "objects" / entry["object_id"]).read_bytes()
            object_id, key = bytes.fromhex(entry["object_id"]), bytes.fromhex(entry["key"])
            plain, count = b"", -(-entry["size"] // chunk)
            for index in range(count):
                place = index.to_bytes(8, "big")
                nonce = (b"\0\0\0\1" if index == count - 1 else bytes(4)) + place
                ciphertext = sealed[index * chunk : (index + 1) * chunk] + tags[:16]
                plain += AESGCM(key).decrypt(nonce, ciphertext, object_id + place)
                tags = tags[16:]
            assert len(sealed) == entry["size"]
            assert sha256(plain).hexdigest() == entry.get("sha256", sha256(plain).hexdigest())
            files[entry["path"]] = plain
    assert tags == b""
    return files


@pytest.mark.parametrize("chunk_log2", [16, 17, 20])
def test_a_stranger_can_read_what_we_seal(tmp_path: Path, chunk_log2: int) -> None:
    sealed = make_sealed(tmp_path, chunk_log2=chunk_log2)
    assert read_tree(sealed.path, MODEL_KEY) == sealed.contents
