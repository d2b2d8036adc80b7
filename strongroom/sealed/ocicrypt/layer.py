"""One encrypted layer: its key, what its annotations say, and the stream of its bytes.

    org.opencontainers.image.enc.keys.jwe   base64 of envelopes, commas between; any one has the layer's key
    org.opencontainers.image.enc.pubopts    base64 of {"cipher", "hmac", "cipheroptions"}
    in the envelope                         {"symkey", "digest", "cipheroptions": {"nonce"}}

The ciphertext is AES-256-CTR under symkey from nonce on, and hmac is HMAC-SHA256 of it under the same key. The format
lets a public nonce replace the sealed one; here that is refused.
"""

import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Self

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from strongroom.errors import FormatError, VerifyError
from strongroom.keys.jwk import PrivateKey
from strongroom.sealed.ocicrypt.envelope import MAX_ENVELOPE, Envelope, open_envelope
from strongroom.wire.canonical import JSON, b64, parse_json, unb64

KEYS: Final = "org.opencontainers.image.enc.keys.jwe"
PUBLIC: Final = "org.opencontainers.image.enc.pubopts"
PREFIX: Final = "org.opencontainers.image.enc."
SUFFIX: Final = "+encrypted"  # of a media type
CIPHER: Final = "AES_256_CTR_HMAC_SHA256"
KEY_SIZE: Final = 32
NONCE_SIZE: Final = 16
MAX_ENVELOPES: Final = 16
_MAX_OPTIONS: Final = 4096
_DIGEST: Final = re.compile(r"(?:sha256:([0-9a-f]{64}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKey:
    """What an envelope holds."""

    key: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    digest: (
        bytes | None
    )  # as the sealer got the layer; skopeo may have compressed it since, so it proves nothing

    def __post_init__(self) -> None:
        if (len(self.key), len(self.nonce)) != (KEY_SIZE, NONCE_SIZE):
            raise FormatError(f"layer key: want a key of {KEY_SIZE} bytes and a nonce of {NONCE_SIZE}")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the content of an envelope. FormatError, with no byte of it, for any other."""
        try:
            value = parse_json(data, "layer key", max_bytes=_MAX_OPTIONS)
            options = value.get("cipheroptions") if isinstance(value, dict) else None
            if not isinstance(value, dict) or not isinstance(options, dict) or options.keys() != {"nonce"}:
                raise FormatError("members")
            match = _DIGEST.fullmatch(_text(value.get("digest", "")))
            if not value.keys() <= {"symkey", "digest", "cipheroptions"} or match is None:
                raise FormatError("members")
            key, nonce = _octets(value.get("symkey")), _octets(options["nonce"])
        except FormatError:
            key = nonce = b""
            match = None
        if match is None:
            raise FormatError("layer key: want symkey, digest and cipheroptions with a nonce")
        return cls(key=key, nonce=nonce, digest=bytes.fromhex(match[1]) if match[1] else None)

    def pack(self) -> bytes:
        digest = "" if self.digest is None else f"sha256:{self.digest.hex()}"
        value = {"symkey": b64(self.key), "digest": digest, "cipheroptions": {"nonce": b64(self.nonce)}}
        return json.dumps(value, separators=(",", ":")).encode()


class Opening:
    """A layer on its way from ciphertext to plaintext. Nothing may be done with it before `end()` has agreed."""

    def __init__(self, key: LayerKey, want: bytes) -> None:
        self._cipher = Cipher(AES256(key.key), CTR(key.nonce)).decryptor()
        self._mac = hmac.new(key.key, digestmod=sha256)
        self._want = want

    def update(self, piece: bytes) -> bytes:
        self._mac.update(piece)
        return self._cipher.update(piece)

    def end(self) -> None:
        """Raise VerifyError unless what came was the whole layer and no other."""
        if not hmac.compare_digest(self._mac.digest(), self._want):
            raise VerifyError("layer: the hmac does not match its ciphertext")


class Sealing:
    """A layer on its way to ciphertext. A key seals one layer."""

    def __init__(self, key: LayerKey) -> None:
        self._cipher = Cipher(AES256(key.key), CTR(key.nonce)).encryptor()
        self._mac = hmac.new(key.key, digestmod=sha256)

    def update(self, piece: bytes) -> bytes:
        sealed = self._cipher.update(piece)
        self._mac.update(sealed)
        return sealed

    def end(self) -> bytes:
        """The hmac of all that was sealed."""
        return self._mac.digest()


def is_encrypted(media_type: str) -> bool:
    return media_type.endswith(SUFFIX)


def open_annotations(annotations: Mapping[str, str], key: PrivateKey) -> tuple[LayerKey, bytes]:
    """The layer's key and the hmac of its ciphertext. VerifyError when no envelope is for `key`."""
    wanted = _public(annotations.get(PUBLIC, ""))
    text = annotations.get(KEYS)
    if text is None:
        others = sorted(
            name.removeprefix(f"{PREFIX}keys.") for name in annotations if name.startswith(f"{PREFIX}keys.")
        )
        raise FormatError(f"layer: keys are wrapped by {', '.join(others)[:80] or 'nothing'}, want jwe")
    packed = text.split(",")
    if len(packed) > MAX_ENVELOPES or len(text) > 2 * MAX_ENVELOPE:
        raise FormatError(f"layer: {len(packed)} envelopes in {len(text)} characters, want less")
    failure: VerifyError | None = None
    for one in packed:
        try:
            return LayerKey.parse(open_envelope(Envelope.parse(unb64(one, "layer: envelope")), key)), wanted
        except VerifyError as error:
            failure = error
    raise failure or VerifyError("layer: no envelope")


def pack_annotations(envelope: Envelope, mac: bytes) -> dict[str, str]:
    public = json.dumps({"cipher": CIPHER, "hmac": b64(mac), "cipheroptions": {}}, separators=(",", ":"))
    return {KEYS: b64(envelope.pack()), PUBLIC: b64(public.encode())}


def _public(text: str) -> bytes:
    value = parse_json(unb64(text, "layer: public options"), "layer: public options", max_bytes=_MAX_OPTIONS)
    if not isinstance(value, dict) or value.keys() != {"cipher", "hmac", "cipheroptions"}:
        raise FormatError("layer: public options want an object of exactly cipher, hmac, cipheroptions")
    if value["cipher"] != CIPHER:
        raise FormatError(f"layer: cipher is {str(value['cipher'])[:40]!a}, want {CIPHER}")
    if value["cipheroptions"] not in ({}, None):
        raise FormatError(
            "layer: public options of the cipher are not empty: the nonce belongs into the envelope"
        )
    mac = _octets(value["hmac"])
    if len(mac) != 32:
        raise FormatError(f"layer: hmac is {len(mac)} bytes, want 32")
    return mac


def _text(value: JSON) -> str:
    if not isinstance(value, str):
        raise FormatError("layer: not text")
    return value


def _octets(value: JSON) -> bytes:
    return unb64(_text(value), "layer: option")
