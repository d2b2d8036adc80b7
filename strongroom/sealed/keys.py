"""From one model key: a commitment, the manifest's key, and a key for every file.

    PRK          = HKDF-Extract(SHA-256, salt = header.salt, ikm = model key)
    commitment   = HKDF-Expand(PRK, "strongroom/sealed/v1/commitment", 32)
    manifest key = HKDF-Expand(PRK, "strongroom/sealed/v1/manifest", 32)
    file key     = HKDF-Expand(PRK, "strongroom/sealed/v1/file" || file id, 32)

GCM does not commit to its key: one ciphertext can open under two. The commitment, compared before anything is
decrypted, closes that. Source: docs/formats/sealed.md, section 2.
"""

from hmac import compare_digest
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from strongroom.errors import FormatError, VerifyError

KEY_SIZE: Final = 32
FILE_ID_SIZE: Final = 16
_LABEL: Final = b"strongroom/sealed/v1/"

Octets: TypeAlias = bytes | bytearray | memoryview


class VolumeKeys:
    """Keys of one sealed tree. Drop it as soon as the file keys are made: Python cannot wipe it."""

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

    def file_key(self, file_id: bytes) -> bytes:
        """The key of exactly one version of one file. A file id is random and never used twice."""
        if len(file_id) != FILE_ID_SIZE:
            raise FormatError(f"file id: got {len(file_id)} bytes, want {FILE_ID_SIZE}")
        return self._expand(b"file" + file_id)

    def check_commitment(self, commitment: bytes) -> None:
        """Raise VerifyError unless the tree was sealed under this very model key."""
        if not compare_digest(self.commitment, commitment):
            raise VerifyError(
                "manifest: key commitment does not match, want the key this tree was sealed with"
            )

    def _expand(self, info: bytes) -> bytes:
        return HKDFExpand(SHA256(), KEY_SIZE, _LABEL + info).derive(self._prk)
