"""Writes sealed_body.json: one sealed request and its answer, for second implementations.

The key, the response's key and its frames are computed here by hand, from docs/formats/sealed-body.md; HPKE itself is
the library's, which draws its own randomness, so each run makes another request.
Run: python -m tests.vectors.make_sealed_body
"""

import hashlib
import hmac
import json
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey, Suite

HEADERS = [["content-type", "text/event-stream; charset=utf-8"], ["x-strongroom-receipt", "a" * 32]]
PIECES = ['data: {"choices":[{"delta":{"content":"blue"}}]}\n\n', "data: [DONE]\n\n"]
BODY = '{"model":"m","messages":[{"role":"user","content":"a prompt that nobody on the way may read"}]}'
LABEL = b"strongroom/sealed-body/v1\0"


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    extracted, out, block = hmac.digest(salt, secret, "sha256"), b"", b""
    while len(out) < length:
        block = hmac.digest(extracted, block + info + bytes([len(out) // 32 + 1]), "sha256")
        out += block
    return out[:length]


def main() -> None:
    seed, fresh, secret, nonce = (bytes([n]) * 32 for n in (1, 2, 3, 4))
    derived = hkdf(seed, fresh, b"strongroom/sealed-key/v1\0", 96)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(derived[:64]).public_key()
    x25519 = X25519PrivateKey.from_private_bytes(derived[64:]).public_key()
    suite = bytes.fromhex("647a00010002")
    key = b"strongroom/sealed-key/v1\0" + suite + mlkem.public_bytes_raw() + x25519.public_bytes_raw()
    key_id = hashlib.sha256(key).digest()
    target, token, at = "/v1/chat/completions", "a-token", int(time.time())
    plain = at.to_bytes(8, "big") + secret + b"\2"
    plain += b"".join(len(text).to_bytes(2, "big") + text.encode() for text in (target, token))
    plain += len(BODY).to_bytes(4, "big") + BODY.encode()
    plain += bytes(-len(plain) % 1024)
    hpke = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    info = LABEL + b"request\0\1" + key_id
    sealed = b"\1" + key_id + hpke.encrypt(plain, MLKEM768X25519PublicKey(mlkem, x25519), info)
    salt = hashlib.sha256(sealed).digest() + nonce
    aead = AESGCM(hkdf(secret, salt, LABEL + b"response\0\1" + key_id, 32))
    head = json.dumps({"headers": HEADERS, "status": 200}, separators=(",", ":")).encode()
    contents = [b"\1" + head, *(b"\2" + piece.encode() for piece in PIECES), b"\3"]
    frames = [aead.encrypt(n.to_bytes(12, "big"), content, None) for n, content in enumerate(contents)]
    answer = b"\1" + nonce + b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
    value = {
        "seed": seed.hex(),
        "fresh": fresh.hex(),
        "key": key.hex(),
        "key_id": key_id.hex(),
        "request": {
            "time": at, "secret": secret.hex(), "target": target, "token": token, "body": BODY,
            "plain": plain.hex(), "sealed": sealed.hex(), "sha256": hashlib.sha256(sealed).hexdigest(),
        },
        "response": {"nonce": nonce.hex(), "pieces": PIECES, "sealed": answer.hex()},
    }  # fmt: skip
    path = Path(__file__).parent / "sealed_body.json"
    path.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
