"""From one model key: a commitment, the manifest's key, and the key of a journal.

    PRK          = HKDF-Extract(SHA-256, salt, ikm = model key)
    commitment   = HKDF-Expand(PRK, "strongroom/sealed/v2/commitment", 32)
    manifest key = HKDF-Expand(PRK, "strongroom/sealed/v2/manifest", 32)
    journal key  = HKDF-Expand(PRK, "strongroom/sealed/v2/journal", 32)

The salt stands in the header of the file that the key is for. Objects have keys of their own, random ones, in the
manifest. GCM does not commit to its key: one ciphertext can open under two. The commitment, compared before
anything is decrypted, closes that. Source: docs/formats/sealed.md, section 2.
"""

from hmac import compare_digest
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from strongroom.errors import FormatError, VerifyError

KEY_SIZE: Final = 32
_LABEL: Final = b"strongroom/sealed/v2/"

Octets: TypeAlias = bytes | bytearray | memoryview


class VolumeKeys:
    """Keys under one salt. Drop it as soon as the manifest is open: Python cannot wipe it."""

    __slots__ = ("_prk",)

    def __init__(self, *, model_key: Octets, salt: bytes) -> None:
        if (length := memoryview(model_key).nbytes) != KEY_SIZE:
            raise FormatError(f"model key: got {length} bytes, want {KEY_SIZE}")
        self._prk = HKDF.extract(SHA256(), salt, model_key)

    @property
    def commitment(self) -> bytes:
        """32 bytes that only this model key gives under this salt; safe to publish."""
        return self._expand(b"commitment")

    @property
    def manifest_key(self) -> bytes:
        return self._expand(b"manifest")

    @property
    def journal_key(self) -> bytes:
        return self._expand(b"journal")

    def check_commitment(self, commitment: bytes, subject: str) -> None:
        """Raise VerifyError unless `subject` was sealed under this very model key."""
        if not compare_digest(self.commitment, commitment):
            raise VerifyError(f"{subject}: key commitment does not match, want the key it was sealed with")

    def _expand(self, info: bytes) -> bytes:
        return HKDFExpand(SHA256(), KEY_SIZE, _LABEL + info).derive(self._prk)
