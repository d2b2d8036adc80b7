"""A layer's key, wrapped for one or more public keys: JWE in JSON (RFC 7516 section 7.2), A256GCM content.

    recipients   serialisation
    1            flattened: alg and epk in `protected`
    2 or more    general: alg and epk in each recipient's own `header`

alg is ECDH-ES+A256KW on P-256 or P-521, or RSA-OAEP-256; RSA-OAEP is read too, it is what skopeo writes. The library
behind skopeo repeats the first recipient's `encrypted_key` at the top of the general form, which is ignored.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from strongroom.errors import FormatError, VerifyError
from strongroom.keys.jwe import CEK_BYTES, ENC, IV_BYTES, MAX_HEADER, TAG_BYTES, key_encryption_key
from strongroom.keys.jwk import ECDH, RSA_OAEP, PrivateKey, PublicKey, curve_of, pack_point, parse_point
from strongroom.wire.canonical import JSON, b64u, parse_json, unb64u

MAX_ENVELOPE: Final = 64 << 10  # bytes
MAX_RECIPIENTS: Final = 32
_RSA_OAEP_SHA1: Final = "RSA-OAEP"
_HASHES: Final[Mapping[str, HashAlgorithm]] = {RSA_OAEP: SHA256(), _RSA_OAEP_SHA1: SHA1()}  # noqa: S303
_SHARED: Final = frozenset({"protected", "iv", "ciphertext", "tag"})
_KEYS: Final = frozenset({"encrypted_key", "recipients"})


@dataclass(frozen=True, slots=True)
class Recipient:
    """The content key, wrapped for one key; `header` says how."""

    header: Mapping[str, JSON]
    encrypted_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One JWE. Nothing in it is secret."""

    protected: str  # base64url of the header; these very characters are authenticated
    recipients: tuple[Recipient, ...]
    iv: bytes
    ciphertext: bytes
    tag: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read either serialisation; FormatError for other members, for unprotected headers and for an `aad`."""
        value = parse_json(data, "jwe", max_bytes=MAX_ENVELOPE)
        if not isinstance(value, dict):
            raise FormatError("jwe: want an object")
        texts = {name: member for name, member in value.items() if isinstance(member, str)}
        keys = _KEYS & value.keys()
        if value.keys() - _KEYS != _SHARED or not keys or not texts.keys() >= _SHARED:
            raise FormatError(
                f"jwe: want an object of exactly {', '.join(sorted(_SHARED))} and recipients or encrypted_key"
            )
        header = _header(texts["protected"])
        iv, ciphertext, tag = (unb64u(texts[name], f"jwe.{name}") for name in ("iv", "ciphertext", "tag"))
        for name, got, want in (("iv", iv, IV_BYTES), ("tag", tag, TAG_BYTES)):
            if len(got) != want:
                raise FormatError(f"jwe.{name}: got {len(got)} bytes, want {want}")
        alone: list[JSON] = [{"encrypted_key": value.get("encrypted_key")}]
        return cls(
            protected=texts["protected"],
            recipients=tuple(_recipients(value.get("recipients", alone), header)),
            iv=iv,
            ciphertext=ciphertext,
            tag=tag,
        )

    def pack(self) -> bytes:
        shared: dict[str, JSON] = {"protected": self.protected}
        if len(self.recipients) == 1:
            shared["encrypted_key"] = b64u(self.recipients[0].encrypted_key)
        else:
            shared["recipients"] = [
                {"header": dict(one.header), "encrypted_key": b64u(one.encrypted_key)}
                for one in self.recipients
            ]
        shared |= {"iv": b64u(self.iv), "ciphertext": b64u(self.ciphertext), "tag": b64u(self.tag)}
        return json.dumps(shared, separators=(",", ":")).encode()


def seal(
    plaintext: bytes,
    recipients: Sequence[PublicKey],
    *,
    ephemerals: Sequence[ec.EllipticCurvePrivateKey | None],
    cek: bytes,
    iv: bytes,
) -> Envelope:
    """The envelope that each of `recipients` opens.

    All randomness is fresh: `cek` 32 bytes, `iv` 12, and for every recipient on a curve a key on it in `ephemerals`.
    """
    if not 1 <= len(recipients) <= MAX_RECIPIENTS or len(cek) != CEK_BYTES:
        raise ValueError(f"{len(recipients)} recipients and a key of {len(cek)} bytes")
    wrapped = tuple(_wrap(key, own, cek) for key, own in zip(recipients, ephemerals, strict=True))
    alone = dict(wrapped[0].header) if len(wrapped) == 1 else {}
    protected = b64u(json.dumps({**alone, "enc": ENC}, separators=(",", ":")).encode())
    sealed = AESGCM(cek).encrypt(iv, plaintext, protected.encode("ascii"))
    return Envelope(
        protected=protected,
        recipients=wrapped,
        iv=iv,
        ciphertext=sealed[:-TAG_BYTES],
        tag=sealed[-TAG_BYTES:],
    )


def open_envelope(envelope: Envelope, key: PrivateKey) -> bytes:
    """The plaintext. VerifyError when no recipient is `key`, or the content is not what was sealed."""
    for one in envelope.recipients:
        cek = _unwrap(one, key)
        if cek is None or len(cek) != CEK_BYTES:
            continue
        try:
            content = envelope.ciphertext + envelope.tag
            return AESGCM(cek).decrypt(envelope.iv, content, envelope.protected.encode("ascii"))
        except InvalidTag:
            raise VerifyError("jwe: the tag does not match header and ciphertext") from None
    raise VerifyError(f"jwe: none of {len(envelope.recipients)} recipients is our key")


def _header(protected: str) -> dict[str, JSON]:
    if len(protected) > MAX_HEADER:
        raise FormatError(f"jwe.protected: got {len(protected)} characters, want at most {MAX_HEADER}")
    header = parse_json(unb64u(protected, "jwe.protected"), "jwe.protected", max_bytes=MAX_HEADER)
    if not isinstance(header, dict) or header.pop("enc", None) != ENC:
        raise FormatError(f"jwe.protected: want an object with enc {ENC}")
    return header


def _recipients(rows: JSON, shared: dict[str, JSON]) -> Iterator[Recipient]:
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_RECIPIENTS:
        raise FormatError(f"jwe.recipients: want a list of 1..{MAX_RECIPIENTS}")
    for row in rows:
        if not isinstance(row, dict) or not row.keys() <= {"header", "encrypted_key"}:
            raise FormatError("jwe.recipients: want objects of header, encrypted_key")
        own, wrapped = row.get("header", {}), row.get("encrypted_key")
        if not isinstance(own, dict) or not isinstance(wrapped, str):
            raise FormatError(
                "jwe.recipients: want a header that is an object and an encrypted_key that is text"
            )
        if own.keys() & shared.keys() or "enc" in own:
            raise FormatError("jwe.recipients: a header repeats what is protected")
        header = {**shared, **own}
        if not header.keys() <= {"alg", "epk"}:
            raise FormatError(
                f"jwe: header has {min(header.keys() - {'alg', 'epk'})[:40]!a}, want alg, enc and epk alone"
            )
        yield Recipient(header, unb64u(wrapped, "jwe.encrypted_key"))


def _wrap(key: PublicKey, ephemeral: ec.EllipticCurvePrivateKey | None, cek: bytes) -> Recipient:
    if isinstance(key, rsa.RSAPublicKey):
        return Recipient({"alg": RSA_OAEP}, key.encrypt(cek, _oaep(RSA_OAEP)))
    if ephemeral is None or curve_of(ephemeral) is not curve_of(key):
        raise ValueError("ephemeral key is not on the recipient's curve")
    point: dict[str, JSON] = dict(pack_point(ephemeral.public_key()))
    return Recipient({"alg": ECDH, "epk": point}, aes_key_wrap(key_encryption_key(ephemeral, key), cek))


def _unwrap(one: Recipient, key: PrivateKey) -> bytes | None:
    """The content key, or None when it was wrapped for another."""
    alg = one.header.get("alg")
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            if isinstance(alg, str) and alg in _HASHES and "epk" not in one.header:
                return key.decrypt(one.encrypted_key, _oaep(alg))
        elif alg == ECDH:
            epk = parse_point(one.header.get("epk"), "jwe.epk")
            if curve_of(epk) is curve_of(key):
                return aes_key_unwrap(key_encryption_key(key, epk), one.encrypted_key)
    except (InvalidUnwrap, ValueError):
        pass
    return None


def _oaep(alg: str) -> padding.OAEP:
    return padding.OAEP(padding.MGF1(_HASHES[alg]), _HASHES[alg], None)
