"""The two signatures that lead from an application's key to the service that gave it its root.

    link 0   by the app root key     over the application's key and what it is for
    link 1   by the service's root   over app id and app root key; empty where no service issued it

Each is 65 bytes (recoverable.py) over Keccak-256 of one of these texts:

    v0       <purpose>:<public key in lowercase hex>
    v1       LP("dstack-guest-v1-key-claim") || LP(algorithm) || LP(domain) || LP(public key)
    issued   dstack-kms-issued:<app id, 20 bytes><app root key, compressed>

In v0 the purpose is whatever a caller wrote, and no length parts it from the key: a signature says that the app
root's holder was asked, not that it agreed with the words. v1 has neither weakness.
"""

from typing import Final

from strongroom.errors import FormatError, VerifyError
from strongroom.keys.derivation import lp, octets
from strongroom.keys.keccak import keccak256
from strongroom.keys.recoverable import SigningKey, recover, sign_recoverable

Chain = tuple[bytes, bytes]  # link 0, and link 1 or b""

APP_ID: Final = 20  # bytes
_ISSUED: Final = b"dstack-kms-issued"
_CLAIM: Final = b"dstack-guest-v1-key-claim"


def key_digest_v0(purpose: str, public_key: bytes) -> bytes:
    """What link 0 signs for a key of v0."""
    return keccak256(octets(purpose) + b":" + public_key.hex().encode())


def key_digest_v1(algorithm: str, domain: str, public_key: bytes) -> bytes:
    """What link 0 signs for a key of v1."""
    return keccak256(b"".join(map(lp, (_CLAIM, algorithm.encode(), octets(domain), public_key))))


def issued_digest(app_id: bytes, app_root: bytes) -> bytes:
    """What link 1 signs; `app_root` is a compressed public key."""
    if len(app_id) != APP_ID or len(app_root) != 33:
        raise FormatError(
            f"key chain: app id {len(app_id)}, app root {len(app_root)} bytes, want {APP_ID} and 33"
        )
    return keccak256(_ISSUED + b":" + app_id + app_root)


def issue(service_root: SigningKey, *, app_id: bytes, app_root: bytes) -> bytes:
    """Link 1: the service's root says that this is the root key of that application."""
    return sign_recoverable(service_root, issued_digest(app_id, app_root))


def verify_chain(digest: bytes, chain: Chain, *, app_id: bytes, service_root: bytes) -> bytes:
    """The app root key (compressed) that vouches for a key, itself vouched for by `service_root` (compressed).

    `digest` is one of the two above, over the key that was seen in use; `service_root` is known from elsewhere,
    never from the answer that is being checked. Raises FormatError or VerifyError.
    """
    app_root = recover(digest, chain[0])
    if not chain[1]:
        raise VerifyError("key chain: no service issued the app root key")
    if (signer := recover(issued_digest(app_id, app_root), chain[1])) != service_root:
        raise VerifyError(f"key chain: issued under {signer.hex()}, want {service_root.hex()}")
    return app_root
