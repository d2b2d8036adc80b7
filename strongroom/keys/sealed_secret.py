"""A sealed secret: a signed text that says which secret of a key broker a program is to have, or carries one.

    sealed.<header>.<payload>.<signature>      base64url without padding; from the header on, a compact JWS

    header     {"alg": "ES256", "kid": text}
    vault      {"version": "0.1.0", "type": "vault", "provider", "name", "provider_settings": {}, "annotations": {}}
    envelope   {"version": "0.1.0", "type": "envelope", "provider", "key_id", "encrypted_key", "encrypted_data",
                "wrap_type": "A256GCM", "iv", "provider_settings": {}, "annotations": {}}      bytes in standard base64

The signature says who may point a guest at a secret; it hides nothing. The key that it is checked with comes from
whoever calls here, and `kid` only chooses among those: a text that brought its own key would be signed by anybody.
How a provider wraps `encrypted_key` is its own affair. Where the provider is a key broker, "kbs", `key_id` names a
resource of 32 bytes and the content key is wrapped under it as RFC 3394 says.

Source: Confidential Containers guest-components, confidential-data-hub/docs/SEALED_SECRET.md.
"""

from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from strongroom.errors import FormatError, VerifyError
from strongroom.wire.canonical import JSON, b64, b64u, pack_json, parse_json, unb64, unb64u

PREFIX: Final = "sealed."
VERSION: Final = "0.1.0"
ALG: Final = "ES256"
WRAP_TYPE: Final = "A256GCM"
BROKER: Final = "kbs"
MAX_TEXT: Final = 256 << 10  # characters
KEY_BYTES: Final = 32
IV_BYTES: Final = 12
_NUMBER: Final = 32  # bytes of r, and of s
_MAX_KID: Final = 512  # characters
_SUBJECT: Final = "sealed secret"
_SETTINGS: Final = frozenset({"provider_settings", "annotations"})
_COMMON: Final = {"version", "type", "provider"} | _SETTINGS
_VAULT: Final = _COMMON | {"name"}
_ENVELOPE: Final = _COMMON | {"key_id", "encrypted_key", "encrypted_data", "wrap_type", "iv"}
_ADDED: Final = frozenset({"annotations"})  # may be left out


@dataclass(frozen=True, slots=True)
class Vault:
    """Points at a secret that a provider keeps."""

    name: str
    provider: str = BROKER

    def to_json(self) -> dict[str, JSON]:
        return {"type": "vault", "name": self.name, **_common(self.provider)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Carries a secret under a content key, and that one under a key that a provider keeps."""

    key_id: str
    encrypted_key: bytes
    encrypted_data: bytes  # its last 16 bytes are the tag
    iv: bytes
    provider: str = BROKER

    def to_json(self) -> dict[str, JSON]:
        return {
            "type": "envelope",
            "key_id": self.key_id,
            "encrypted_key": b64(self.encrypted_key),
            "encrypted_data": b64(self.encrypted_data),
            "wrap_type": WRAP_TYPE,
            "iv": b64(self.iv),
            **_common(self.provider),
        }

    def open(self, key: bytes) -> bytes:
        """The secret, with the 32 bytes that `key_id` names at a key broker; VerifyError where it does not open."""
        if len(key) != KEY_BYTES:
            raise FormatError(f"{_SUBJECT}: its key is {len(key)} bytes, want {KEY_BYTES}")
        try:
            content_key = aes_key_unwrap(key, self.encrypted_key)
        except (InvalidUnwrap, ValueError):
            raise VerifyError(f"{_SUBJECT}: the content key does not unwrap under the one named") from None
        if len(content_key) != KEY_BYTES:
            raise VerifyError(f"{_SUBJECT}: content key is {len(content_key)} bytes, want {KEY_BYTES}")
        try:
            return AESGCM(content_key).decrypt(self.iv, self.encrypted_data, None)
        except InvalidTag:
            raise VerifyError(f"{_SUBJECT}: the tag does not match the data") from None


Content = Vault | Envelope


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A sealed secret whose signature nobody has checked: all one may know of it is which key claims to have signed."""

    kid: str
    _signed: bytes = field(repr=False)  # header.payload, the very characters
    _signature: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text; FormatError for another shape, another algorithm or any other header member."""
        if len(text) > MAX_TEXT:
            raise FormatError(f"{_SUBJECT}: {len(text)} characters, want at most {MAX_TEXT}")
        parts = text.removeprefix(PREFIX).split(".") if text.startswith(PREFIX) else []
        if len(parts) != 3:
            raise FormatError(f"{_SUBJECT}: want {PREFIX}HEADER.PAYLOAD.SIGNATURE")
        at = f"{_SUBJECT}.header"
        header = parse_json(unb64u(parts[0], at), at)
        if not isinstance(header, dict) or header.keys() != {"alg", "kid"}:
            raise FormatError(f"{at}: want exactly alg and kid")
        if header["alg"] != ALG:
            raise FormatError(f"{at}.alg: got {ascii(header['alg'])[:40]}, want {ALG}")
        if not isinstance(kid := header["kid"], str) or not 0 < len(kid) <= _MAX_KID:
            raise FormatError(f"{at}.kid: want 1..{_MAX_KID} characters")
        unb64u(parts[1], f"{_SUBJECT}.payload")  # each part has one spelling, also of what is signed
        signature = unb64u(parts[2], f"{_SUBJECT}.signature")
        if len(signature) != 2 * _NUMBER:
            raise FormatError(f"{_SUBJECT}.signature: {len(signature)} bytes, want {2 * _NUMBER}")
        return cls(kid, f"{parts[0]}.{parts[1]}".encode("ascii"), signature)

    def verify(self, key: ec.EllipticCurvePublicKey) -> Content:
        """What it says, signed by `key` (P-256); VerifyError where it is not, FormatError for what it does not say."""
        if not isinstance(key.curve, ec.SECP256R1):
            raise FormatError(f"{_SUBJECT}: key is on {key.curve.name}, want secp256r1")
        r, s = (int.from_bytes(number, "big") for number in (self._signature[:32], self._signature[32:]))
        try:
            key.verify(encode_dss_signature(r, s), self._signed, ec.ECDSA(SHA256()))
        except InvalidSignature:
            raise VerifyError(f"{_SUBJECT}: not signed by the key of {ascii(self.kid)[:80]}") from None
        payload = self._signed.decode().partition(".")[2]
        return _content(parse_json(unb64u(payload, _SUBJECT), f"{_SUBJECT}.payload", floats=True))


def sign(content: Content, key: ec.EllipticCurvePrivateKey, *, kid: str) -> str:
    """The sealed secret that says `content`, signed by a P-256 key that its readers know as `kid`."""
    header = pack_json({"alg": ALG, "kid": kid})
    payload = pack_json({"version": VERSION, **content.to_json()})
    signed = f"{b64u(header)}.{b64u(payload)}"
    numbers = decode_dss_signature(key.sign(signed.encode("ascii"), ec.ECDSA(SHA256())))
    signature = b"".join(number.to_bytes(_NUMBER, "big") for number in numbers)
    return f"{PREFIX}{signed}.{b64u(signature)}"


def envelope(secret: bytes, *, key: bytes, key_id: str, content_key: bytes, iv: bytes) -> Envelope:
    """An envelope for the broker's `key` (32 bytes), named `key_id`; content key (32) and iv (12 bytes) are fresh."""
    for name, value, size in (("key", key, 32), ("content key", content_key, 32), ("iv", iv, IV_BYTES)):
        if len(value) != size:
            raise ValueError(f"{name} is {len(value)} bytes, want {size}")
    return Envelope(
        key_id=key_id,
        encrypted_key=aes_key_wrap(key, content_key),
        encrypted_data=AESGCM(content_key).encrypt(iv, secret, None),
        iv=iv,
    )


def _common(provider: str) -> dict[str, JSON]:
    return {"provider": provider, "provider_settings": {}, "annotations": {}}


def _content(value: JSON) -> Content:
    at = f"{_SUBJECT}.payload"
    if not isinstance(value, dict):
        raise FormatError(f"{at}: not an object")
    kinds = {"vault": _VAULT, "envelope": _ENVELOPE}
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in kinds:
        raise FormatError(f"{at}.type: got {ascii(kind)[:40]}, want vault or envelope")
    if unknown := value.keys() - kinds[kind]:
        raise FormatError(f"{at}: unknown member {ascii(min(unknown))[:40]}")
    if missing := kinds[kind] - value.keys() - _ADDED:
        raise FormatError(f"{at}.{min(missing)}: missing")
    if any(not isinstance(value.get(name, {}), dict) for name in _SETTINGS):
        raise FormatError(f"{at}: provider_settings and annotations must be objects")
    rest = value.keys() - _SETTINGS
    texts = {name: text for name in rest if isinstance(text := value[name], str)}
    if others := rest - texts.keys():
        raise FormatError(f"{at}.{min(others)}: not text")
    if texts["version"] != VERSION:
        raise FormatError(f"{at}.version: got {ascii(texts['version'])[:40]}, want {VERSION}")
    if kind == "vault":
        return Vault(texts["name"], texts["provider"])
    return _envelope(texts, at)


def _envelope(texts: dict[str, str], at: str) -> Envelope:
    if texts["wrap_type"] != WRAP_TYPE:
        raise FormatError(f"{at}.wrap_type: got {ascii(texts['wrap_type'])[:40]}, want {WRAP_TYPE}")
    names = ("encrypted_key", "encrypted_data", "iv")
    encrypted_key, encrypted_data, iv = (unb64(texts[name], f"{at}.{name}") for name in names)
    if len(iv) != IV_BYTES:
        raise FormatError(f"{at}.iv: {len(iv)} bytes, want {IV_BYTES}")
    return Envelope(
        key_id=texts["key_id"],
        encrypted_key=encrypted_key,
        encrypted_data=encrypted_data,
        iv=iv,
        provider=texts["provider"],
    )
