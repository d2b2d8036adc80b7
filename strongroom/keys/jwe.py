"""A sealed envelope for one public key: flattened JWE, A256GCM content (RFC 7516, 7518; CoCo KBS resource answers).

    alg              header members             how the content key travels
    ECDH-ES+A256KW   alg, enc, epk{crv,kty,x,y}  ephemeral ECDH, Concat KDF, AES-256 key wrap: 40 bytes
    RSA-OAEP-256     alg, enc                    OAEP with SHA-256 and MGF1-SHA-256

The header is written in exactly that member order as compact JSON, because the reference client rebuilds the
associated data from its parsed header. When opening, the associated data is the `protected` text as received.
Randomness is an argument: a fresh content key, a fresh iv and a fresh ephemeral key for every envelope.
"""

import json
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from strongroom.errors import FormatError, VerifyError
from strongroom.keys.jwk import ECDH, RSA_OAEP, PrivateKey, PublicKey, curve_of, pack_point, parse_point
from strongroom.wire.canonical import JSON, b64u, parse_json, unb64u
from strongroom.wire.line import sentence

ENC: Final = "A256GCM"
CEK_BYTES: Final = 32
IV_BYTES: Final = 12
TAG_BYTES: Final = 16
MAX_HEADER: Final = 4096  # characters of `protected`
_MEMBERS: Final = frozenset({"protected", "encrypted_key", "iv", "ciphertext", "tag"})
_OAEP: Final = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class JWE:
    """The five parts of an envelope. Nothing in it is secret."""

    protected: str  # base64url of the header; these very characters are authenticated
    encrypted_key: bytes
    iv: bytes
    ciphertext: bytes
    tag: bytes

    def __post_init__(self) -> None:
        for name, got, want in (("iv", self.iv, IV_BYTES), ("tag", self.tag, TAG_BYTES)):
            if len(got) != want:
                raise FormatError(f"jwe.{name}: got {len(got)} bytes, want {want}")
        if len(self.protected) > MAX_HEADER:
            raise FormatError(
                f"jwe.protected: got {len(self.protected)} characters, want at most {MAX_HEADER}"
            )

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        """Read exactly the five members, or raise FormatError. An unprotected `header` or an `aad` is refused."""
        if not isinstance(value, dict) or value.keys() != _MEMBERS:
            raise FormatError(f"jwe: want an object of exactly {', '.join(sorted(_MEMBERS))}")
        texts = {name: member for name, member in value.items() if isinstance(member, str)}
        if texts.keys() != _MEMBERS:
            raise FormatError(f"jwe.{min(_MEMBERS - texts.keys())}: not text")
        parts = {
            name: unb64u(texts[name], f"jwe.{name}") for name in ("encrypted_key", "iv", "ciphertext", "tag")
        }
        return cls(protected=texts["protected"], **parts)

    def to_json(self) -> dict[str, JSON]:
        return {
            "protected": self.protected,
            "encrypted_key": b64u(self.encrypted_key),
            "iv": b64u(self.iv),
            "ciphertext": b64u(self.ciphertext),
            "tag": b64u(self.tag),
        }


def seal(
    plaintext: bytes,
    recipient: PublicKey,
    *,
    ephemeral: ec.EllipticCurvePrivateKey | None,
    cek: bytes,
    iv: bytes,
) -> JWE:
    """The envelope only `recipient` opens.

    `ephemeral` is a fresh key on the recipient's curve, None for an RSA recipient; `cek` is 32 and `iv` 12 fresh bytes.
    """
    if len(cek) != CEK_BYTES:
        raise ValueError(f"cek is {len(cek)} bytes, want {CEK_BYTES}")
    header, encrypted_key = _wrap(recipient, ephemeral, cek)
    protected = b64u(json.dumps(header, separators=(",", ":")).encode())
    sealed = AESGCM(cek).encrypt(iv, plaintext, protected.encode("ascii"))
    return JWE(
        protected=protected,
        encrypted_key=encrypted_key,
        iv=iv,
        ciphertext=sealed[:-TAG_BYTES],
        tag=sealed[-TAG_BYTES:],
    )


def open_sealed(jwe: JWE, key: PrivateKey) -> bytes:
    """The plaintext. FormatError for a header that is not for this kind of key, VerifyError if it does not open."""
    header = parse_json(unb64u(jwe.protected, "jwe.protected"), "jwe.protected", max_bytes=MAX_HEADER)
    if not isinstance(header, dict):
        raise FormatError("jwe.protected: want an object")
    want = ECDH if isinstance(key, ec.EllipticCurvePrivateKey) else RSA_OAEP
    if header.get("alg") != want or header.get("enc") != ENC:
        got = repr((header.get("alg"), header.get("enc")))[:80]
        raise FormatError(f"jwe.protected: alg and enc are {got}, want {(want, ENC)!r}")
    cek = _unwrap(jwe, header, key)
    if len(cek) != CEK_BYTES:
        raise VerifyError(f"jwe: the content key is {len(cek)} bytes, want {CEK_BYTES}")
    try:
        return AESGCM(cek).decrypt(jwe.iv, jwe.ciphertext + jwe.tag, jwe.protected.encode("ascii"))
    except InvalidTag:
        raise VerifyError("jwe: the tag does not match header and ciphertext") from None


def key_encryption_key(private: ec.EllipticCurvePrivateKey, public: ec.EllipticCurvePublicKey) -> bytes:
    """The 32-byte key both ends of an ECDH agree on (RFC 7518 4.6.2, empty apu and apv)."""
    shared = private.exchange(ec.ECDH(), public)
    name = ECDH.encode()
    other = len(name).to_bytes(4, "big") + name + bytes(4) + bytes(4) + (256).to_bytes(4, "big")
    return ConcatKDFHash(SHA256(), 32, other).derive(shared)


def _wrap(
    recipient: PublicKey, ephemeral: ec.EllipticCurvePrivateKey | None, cek: bytes
) -> tuple[dict[str, object], bytes]:
    if isinstance(recipient, rsa.RSAPublicKey):
        return {"alg": RSA_OAEP, "enc": ENC}, recipient.encrypt(cek, _OAEP)
    if ephemeral is None or curve_of(ephemeral) is not curve_of(recipient):
        raise ValueError("ephemeral key is not on the recipient's curve")
    kek = key_encryption_key(ephemeral, recipient)
    return {"alg": ECDH, "enc": ENC, "epk": pack_point(ephemeral.public_key())}, aes_key_wrap(kek, cek)


def _unwrap(jwe: JWE, header: dict[str, JSON], key: PrivateKey) -> bytes:
    members = {"alg", "enc", "epk"} if isinstance(key, ec.EllipticCurvePrivateKey) else {"alg", "enc"}
    if header.keys() != members:
        got = sentence(", ".join(sorted(header)), most=80)
        raise FormatError(f"jwe.protected: members are {got}, want exactly {', '.join(sorted(members))}")
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            return key.decrypt(jwe.encrypted_key, _OAEP)
        epk = parse_point(header["epk"], "jwe.epk")
        if curve_of(epk) is not curve_of(key):
            raise FormatError(f"jwe.epk.crv: got {curve_of(epk).name}, want {curve_of(key).name}")
        return aes_key_unwrap(key_encryption_key(key, epk), jwe.encrypted_key)
    except (InvalidUnwrap, ValueError):
        raise VerifyError("jwe: the content key does not unwrap under our key") from None
