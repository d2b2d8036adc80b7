"""Signatures of receipts and of the log's heads: Ed25519, and ML-DSA-65 beside it where the door is told so.

    key        DER SPKI of the Ed25519 key, 44 bytes; hybrid: then DER SPKI of the ML-DSA-65 key, 1974 bytes
    signature  Ed25519, 64 bytes; hybrid: then ML-DSA-65 with the context "strongroom", 3309 bytes

Evidence speaks for all of `key`. A hybrid signature therefore cannot lose one of its halves: the half that is left
comes with a key that no evidence speaks for. Source: RFC 8032, FIPS 204.
"""

from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from strongroom.errors import FormatError, VerifyError

ED25519_SPKI: Final = 44  # bytes
HYBRID_SPKI: Final = ED25519_SPKI + 1974
_ED25519: Final = 64  # bytes of its signature
_CONTEXT: Final = b"strongroom"


class Signer:
    """Both keys, or one. Its repr shows neither."""

    def __init__(self, key: Ed25519PrivateKey, hybrid: MLDSA65PrivateKey | None = None) -> None:
        self._key, self._hybrid = key, hybrid
        self.key = b"".join(
            half.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            for half in (key, hybrid)
            if half is not None
        )

    def sign(self, message: bytes) -> bytes:
        signature = self._key.sign(message)
        return signature if self._hybrid is None else signature + self._hybrid.sign(message, _CONTEXT)


def verify(key: bytes, signature: bytes, message: bytes, *, subject: str) -> None:
    """Raise VerifyError unless every key in `key` signed, FormatError for a key of another form."""
    ed25519, hybrid = _keys(key, subject)
    try:
        ed25519.verify(signature[:_ED25519], message)
        if hybrid is not None:
            hybrid.verify(signature[_ED25519:], message, _CONTEXT)
        elif len(signature) != _ED25519:
            raise InvalidSignature
    except InvalidSignature as error:
        raise VerifyError(f"{subject}: the signature does not match") from error


@lru_cache(maxsize=8)
def _keys(key: bytes, subject: str) -> tuple[Ed25519PublicKey, MLDSA65PublicKey | None]:
    hybrid = len(key) == HYBRID_SPKI
    try:
        first = load_der_public_key(key[:ED25519_SPKI] if hybrid else key)
        second = load_der_public_key(key[ED25519_SPKI:]) if hybrid else None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError(f"{subject}: key is not a DER public key") from error
    if not isinstance(first, Ed25519PublicKey):
        raise FormatError(f"{subject}: key is {type(first).__name__}, want Ed25519")
    if second is not None and not isinstance(second, MLDSA65PublicKey):
        raise FormatError(f"{subject}: second key is {type(second).__name__}, want ML-DSA-65")
    return first, second
