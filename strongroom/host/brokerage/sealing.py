"""What the broker keeps sealed: AES-256-GCM under keys derived from one root key, bound to what it is and whose.

    record      01 || key id (8) || nonce (12) || ciphertext || tag (16)
    key         HKDF-SHA256(root key, info = "strongroom/broker/v1 " || purpose)
    AAD         enc("strongroom/broker/v1") || enc(purpose) || enc(context)
    key id      the first 8 bytes of HKDF-SHA256(root key, info = "strongroom/broker/v1 id")

A record moved to another name, version or purpose does not open.
"""

import hmac
import secrets
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.errors import FormatError, VerifyError
from strongroom.host.secret import Secret
from strongroom.wire.framing import enc

ROOT_BYTES: Final = 32
ID_BYTES: Final = 8
_LABEL: Final = b"strongroom/broker/v1"
_FORMAT: Final = b"\x01"
_NONCE: Final = 12
_HEADER: Final = len(_FORMAT) + ID_BYTES + _NONCE
_TAG: Final = 16


class Seal:
    """One root key at work."""

    def __init__(self, root: Secret) -> None:
        if len(root) != ROOT_BYTES:
            raise FormatError(f"root key: {len(root)} bytes, want {ROOT_BYTES}")
        self._root = root
        self._ciphers: dict[str, AESGCM] = {}
        self.id: Final = self._derived("id")[:ID_BYTES]
        self._mac_key = self._derived("mac")

    def __repr__(self) -> str:
        return f"Seal({self.id.hex()})"

    def seal(self, purpose: str, context: bytes, content: bytes) -> bytes:
        """The record of `content`, which opens for this purpose and context alone."""
        nonce = secrets.token_bytes(_NONCE)
        sealed = self._cipher(purpose).encrypt(nonce, content, _aad(purpose, context))
        return _FORMAT + self.id + nonce + sealed

    def open(self, purpose: str, context: bytes, record: bytes) -> bytes:
        """The content. VerifyError for another key's record, another purpose or context, or any changed bit."""
        if len(record) < _HEADER + _TAG or record[:1] != _FORMAT:
            raise VerifyError(f"sealed {purpose}: not a record of this version")
        if record[1 : 1 + ID_BYTES] != self.id:
            raise VerifyError(f"sealed {purpose}: sealed under another root key")
        try:
            nonce = record[_HEADER - _NONCE : _HEADER]
            return self._cipher(purpose).decrypt(nonce, record[_HEADER:], _aad(purpose, context))
        except InvalidTag:
            raise VerifyError(f"sealed {purpose}: changed since it was sealed, or moved") from None

    def mac(self, purpose: str, content: bytes) -> bytes:
        """32 bytes that only holders of the root key can make."""
        return hmac.digest(self._mac_key, enc(purpose.encode()) + enc(content), sha256)

    def _cipher(self, purpose: str) -> AESGCM:
        if purpose not in self._ciphers:
            self._ciphers[purpose] = AESGCM(self._derived(f"seal {purpose}"))
        return self._ciphers[purpose]

    def _derived(self, info: str) -> bytes:
        hkdf = HKDF(SHA256(), length=32, salt=None, info=_LABEL + b" " + info.encode())
        return hkdf.derive(self._root.reveal())


def _aad(purpose: str, context: bytes) -> bytes:
    return enc(_LABEL) + enc(purpose.encode()) + enc(context)
