"""Mirrors strongroom/push/offer.py: an offer is worth something over one connection, for one manifest, from one key."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.errors import FormatError, PolicyError, VerifyError
from strongroom.push.offer import Offer, provider_name, public_key, spki_of

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SPKI = spki_of(KEY.public_key())
MANIFEST, EXPORTER = bytes([1]) * 32, bytes([2]) * 32


def offer() -> Offer:
    return Offer.sign(KEY, manifest_sha256=MANIFEST, exporter=EXPORTER)


def test_an_offer_verifies_where_it_was_made() -> None:
    offer().verify(exporter=EXPORTER, providers={SPKI})
    assert Offer.parse(offer().header) == offer()


def test_an_offer_by_hand() -> None:
    """docs/formats/push.md, section 2."""
    signed = (
        b"strongroom/push/v1\0"
        + (32).to_bytes(8, "big") + MANIFEST
        + (32).to_bytes(8, "big") + EXPORTER
    )  # fmt: skip
    assert offer().signature == KEY.sign(signed)


@pytest.mark.guarantee("G7")
def test_another_connection_or_manifest_is_refused() -> None:
    for exporter in (bytes(32), EXPORTER[:-1] + b"\x03", EXPORTER[:-1]):
        with pytest.raises(VerifyError, match="does not verify over this connection"):
            offer().verify(exporter=exporter, providers={SPKI})
    with pytest.raises(VerifyError):
        replace(offer(), manifest_sha256=bytes(32)).verify(exporter=EXPORTER, providers={SPKI})


def test_only_listed_keys_are_believed() -> None:
    other = spki_of(Ed25519PrivateKey.generate().public_key())
    with pytest.raises(PolicyError, match=f"key {provider_name(SPKI)} may not push"):
        offer().verify(exporter=EXPORTER, providers={other})
    with pytest.raises(PolicyError):
        offer().verify(exporter=EXPORTER, providers=set())
    with pytest.raises(VerifyError):  # a listed key that signed nothing
        replace(offer(), provider=other).verify(exporter=EXPORTER, providers={other, SPKI})


def test_the_signature_is_not_shown() -> None:
    assert offer().signature.hex() not in repr(offer())
    assert str(offer().signature) not in repr(offer())


@pytest.mark.guarantee("G16")
def test_a_changed_header_is_refused() -> None:
    good = offer().header
    for length in range(len(good)):
        with pytest.raises(FormatError):
            Offer.parse(good[:length])
    for at in range(len(good)):
        for bit in range(7):
            flipped = good[:at] + chr(ord(good[at]) ^ 1 << bit) + good[at + 1 :]
            with pytest.raises((FormatError, PolicyError, VerifyError)):
                Offer.parse(flipped).verify(exporter=EXPORTER, providers={SPKI})
    with pytest.raises(FormatError):
        Offer.parse(good + " ")


def test_only_ed25519_is_a_providers_key() -> None:
    assert spki_of(public_key(SPKI)) == SPKI
    p256 = ec.generate_private_key(ec.SECP256R1()).public_key()
    other = p256.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for wrong in (b"", SPKI[:-1], SPKI + b"\0", b"\0" + SPKI[1:], other):
        with pytest.raises(FormatError, match="want the DER SubjectPublicKeyInfo of an Ed25519 key"):
            public_key(wrong)
