"""Every key of one door, derived from one secret: a door that starts again within a boot is the same one.

    key   HKDF-SHA256(secret, no salt, info "strongroom/door/v1\\0" and the key's label)

The agent makes the secret anew for each boot, so nothing signed in one boot can be signed in another. The P-256 key of
the TLS certificate is not among them: it is made in the process and dies with it.
"""

from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.errors import FormatError
from strongroom.keys.recoverable import ORDER, private_key
from strongroom.receipts.signing import Signer

SECRET: Final = 32  # bytes
_INFO: Final = b"strongroom/door/v1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorKeys:
    receipt: Ed25519PrivateKey = field(repr=False)
    hybrid: MLDSA65PrivateKey = field(repr=False)
    ethereum: EllipticCurvePrivateKey = field(repr=False)  # secp256k1
    salt: bytes = field(repr=False)  # of the prefix cache's salts
    hpke: bytes = field(repr=False)  # seed of the key for sealed bodies
    log: bytes = field(repr=False)  # guards the records of the log's file

    @classmethod
    def from_secret(cls, secret: bytes) -> Self:
        """The keys of SECRET bytes; FormatError for another length."""
        if len(secret) != SECRET:
            raise FormatError(f"door secret: {len(secret)} bytes, want {SECRET}")
        return cls(
            receipt=Ed25519PrivateKey.from_private_bytes(_derive(secret, b"receipt/ed25519")),
            hybrid=MLDSA65PrivateKey.from_seed_bytes(_derive(secret, b"receipt/ml-dsa-65")),
            ethereum=private_key(_scalar(_derive(secret, b"signature/secp256k1", 48))),
            salt=_derive(secret, b"cache-salt"),
            hpke=_derive(secret, b"sealed-bodies"),
            log=_derive(secret, b"receipt-log"),
        )

    def signer(self, *, hybrid: bool) -> Signer:
        """What signs receipts and heads of the log."""
        return Signer(self.receipt, self.hybrid if hybrid else None)


def _derive(secret: bytes, label: bytes, length: int = 32) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=_INFO + label).derive(secret)


def _scalar(wide: bytes) -> bytes:
    # 16 bytes more than the order has: what is left of a bias towards small scalars is below 2**-128
    return (int.from_bytes(wide, "big") % (ORDER - 1) + 1).to_bytes(32, "big")
