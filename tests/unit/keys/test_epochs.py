"""Mirrors strongroom/keys/epochs.py, whose derivation is written down here a second time."""

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from strongroom.errors import FormatError
from strongroom.keys.epochs import Kind, Use, derive_epoch, load, public, sign

ROOT = bytes(range(32))


def by_hand(use: str, kind: str, path: str, epoch: int) -> bytes:
    parts = [part.encode() for part in (use, kind, path)]
    info = b"".join(len(part).to_bytes(4, "big") + part for part in parts) + epoch.to_bytes(4, "big")
    extracted = hmac.digest(b"strongroom/keys/v1", ROOT, "sha256")
    return hmac.digest(extracted, info + b"\1", "sha256")


@pytest.mark.parametrize("use", Use)
@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("path", ["", "a.service/", "ü"])
def test_keys_are_derived_as_written(use: Use, kind: Kind, path: str) -> None:
    for epoch in (1, 2, (1 << 32) - 1):
        assert derive_epoch(ROOT, use=use, kind=kind, path=path, epoch=epoch) == by_hand(
            use, kind, path, epoch
        )


def test_one_vector() -> None:
    secret = derive_epoch(ROOT, use=Use.EXPORT, kind=Kind.SECRET, path="db/master", epoch=1)
    assert secret == by_hand("export", "secret", "db/master", 1)
    assert (
        hashlib.sha256(secret).hexdigest()
        == hashlib.sha256(by_hand("export", "secret", "db/master", 1)).hexdigest()
    )


@pytest.mark.parametrize("epoch", [0, -1, 1 << 32])
def test_epochs_are_bounded(epoch: int) -> None:
    with pytest.raises(FormatError, match="epoch"):
        derive_epoch(ROOT, use=Use.SIGN, kind=Kind.P256, path="", epoch=epoch)


def test_other_roots_are_refused() -> None:
    for root in (b"", bytes(31), bytes(33)):
        with pytest.raises(FormatError, match="want 32"):
            derive_epoch(root, use=Use.SIGN, kind=Kind.P256, path="", epoch=1)
    with pytest.raises(FormatError, match="surrogate"):
        derive_epoch(ROOT, use=Use.SIGN, kind=Kind.P256, path="\ud800", epoch=1)


@pytest.mark.parametrize("kind", [Kind.ED25519, Kind.P256, Kind.SECP256K1])
def test_signatures_are_64_bytes_and_always_the_same(kind: Kind) -> None:
    key = load(derive_epoch(ROOT, use=Use.SIGN, kind=kind, path="x", epoch=1), kind)
    signature = sign(key, b"data")
    assert len(signature) == 64 and signature == sign(key, b"data")
    other = load_der_public_key(public(key))
    if isinstance(other, Ed25519PublicKey):
        other.verify(signature, b"data")
    else:
        assert isinstance(other, ec.EllipticCurvePublicKey)
        r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        other.verify(encode_dss_signature(r, s), b"data", ec.ECDSA(SHA256()))


def test_a_secret_is_no_key_pair() -> None:
    with pytest.raises(FormatError, match="no kind of key pair"):
        load(bytes(32), Kind.SECRET)
