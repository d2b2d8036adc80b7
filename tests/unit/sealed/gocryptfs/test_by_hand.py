"""A second reader of pinned volumes, written from docs/formats/gocryptfs.md alone: it imports nothing of ours."""

import hmac
import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

from strongroom.host.gocryptfs.pinning import pin_volume
from tests.fakes.gocryptfs import CONTENTS, LINKS, MASTER_KEY, write_volume


def read_pinned(path: Path, side: bytes, master_key: bytes) -> dict[str, bytes]:
    clear, body = side[:104], side[104:]
    prk = hmac.digest(clear[40:72], master_key, "sha256")
    assert clear[:16] == b"SRGCSIDE" + b"\0\1\1" + bytes(5)
    assert hmac.digest(prk, b"strongroom/gocryptfs/v1/commitment\1", "sha256") == clear[72:]
    key = hmac.digest(prk, b"strongroom/gocryptfs/v1/side\1", "sha256")
    body = AESGCM(key).decrypt(bytes(12), body, clear)
    length = int.from_bytes(body[:4], "big")
    table, digests = json.loads(body[4 : 4 + length]), body[4 + length :]
    siv = "AESSIV" in table["flags"]
    label = b"AES-SIV" if siv else b"AES-GCM"
    root, content_key, block = hmac.digest(bytes(32), master_key, "sha256"), b"", b""
    for count in range(2 if siv else 1):
        block = hmac.digest(root, block + label + b" file content encryption" + bytes([count + 1]), "sha256")
        content_key += block
    places: dict[str, Path] = {"": path}
    found: dict[str, bytes] = {}
    for entry in table["entries"]:
        place = places[entry["path"]] = places[entry["path"].rpartition("/")[0]] / entry["stored"]
        if entry["type"] == "hard link":
            found[entry["path"]] = found[entry["same"]]
        elif entry["type"] == "symlink":
            found[entry["path"]] = entry["target"].encode()
        elif entry["type"] == "file":
            data, size, holes = place.read_bytes(), entry["size"], set()
            for first, count in entry.get("holes", []):
                holes |= set(range(first, first + count))
            blocks = -(-size // 4096)
            assert len(data) == (18 + size + 32 * blocks if size else 0)
            assert data[2:18].hex() == entry.get("file_id", "")
            pins, plain = b"", b""
            for number in range(blocks):
                sealed = data[18 + number * 4128 :][:4128]
                nonce, rest = sealed[:16], sealed[16:]
                pin = sealed[:32] if siv else nonce + rest[-16:]
                pins += pin
                assert (pin == bytes(32)) == (number in holes)
                if number in holes:
                    assert sealed == bytes(4128)
                    plain += bytes(4096)
                    continue
                aad = number.to_bytes(8, "big") + data[2:18]
                if siv:
                    plain += AESSIV(content_key).decrypt(rest, [aad, nonce])
                else:
                    plain += AESGCM(content_key).decrypt(nonce, rest, aad)
            for at in range(0, len(pins), 8192):
                assert sha256(pins[at : at + 8192]).digest() == digests[:32]
                digests = digests[32:]
            found[entry["path"]] = plain
    assert digests == b""
    return found


@pytest.mark.parametrize("kind", ["aes-gcm", "aes-siv", "plaintext-names", "long-name-max"])
def test_a_stranger_can_read_what_we_pin(tmp_path: Path, kind: str) -> None:
    written = write_volume(tmp_path / "cipher", kind)
    holed = written.stored["d/e/more"]
    data = bytearray(holed.read_bytes())
    data[18 + 300 * 4128 : 18 + 302 * 4128] = bytes(2 * 4128)
    holed.write_bytes(data)
    os.link(holed, written.path / written.ciphers.names.store(b"zz", _diriv(written.path)).on_disk.decode())
    side = pin_volume(written.path, master_key=MASTER_KEY, epoch=1, name="m", holes=True)
    sealed = side.seal(master_key=MASTER_KEY, salt=b"s" * 32, volume_id=b"v" * 16)
    more = CONTENTS["d/e/more"]
    more = more[: 300 * 4096] + bytes(8192) + more[302 * 4096 :]
    wanted = CONTENTS | {"d/e/more": more, "zz": more}
    wanted |= {name: target.encode() for name, target in LINKS.items()}
    assert read_pinned(written.path, sealed, MASTER_KEY) == wanted


def _diriv(path: Path) -> bytes:
    at = path / "gocryptfs.diriv"
    return at.read_bytes() if at.exists() else bytes(16)
