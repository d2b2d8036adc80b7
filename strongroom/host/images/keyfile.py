"""Keys for images in files: the private one as the service manager or the broker hands it over, public ones as PEM."""

from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_pem_private_key,
    load_pem_public_key,
)

from strongroom.errors import ConfigError, FormatError
from strongroom.host.secret import Secret
from strongroom.keys.jwk import PrivateKey, PublicKey, curve_of

MAX_KEY: Final = 64 << 10  # bytes
_PEM: Final = b"-----BEGIN"
_BITS: Final = range(2048, 4097)


def private_key(secret: Secret) -> PrivateKey:
    """The key in PEM or DER without a password; FormatError, with no byte of it, for anything else."""
    key: object = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):  # whose words may repeat what they read
        data = secret.reveal()
        key = (load_pem_private_key if data.startswith(_PEM) else load_der_private_key)(data, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise FormatError("image key: want an EC or RSA private key in PEM or DER, without a password")
    _check(key)
    return key


def public_key(path: Path) -> PublicKey:
    with path.open("rb") as file:
        data = file.read(MAX_KEY)
    key: object = None
    with suppress(ValueError, UnsupportedAlgorithm):  # said below
        key = load_pem_public_key(data)
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise ConfigError(f"{path}: want an EC or RSA public key in PEM")
    _check(key)
    return key


def _check(key: PrivateKey | PublicKey) -> None:
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        curve_of(key)
    elif key.key_size not in _BITS:
        raise FormatError(f"image key: rsa of {key.key_size} bits, want {_BITS[0]}..{_BITS[-1]}")
