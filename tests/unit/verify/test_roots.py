"""Mirrors strongroom/verify/roots.py."""

from hashlib import sha256

import pytest

from strongroom.errors import ConfigError, VerifyError
from strongroom.verify.roots import PRODUCTION, Anchor, RootPin
from tests.fakes.amd import issuers, needs_vectors


@needs_vectors
@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
def test_the_pins_are_amds_own_certificates(product: str) -> None:
    for kind in ("ask", "asvk"):
        ark = issuers(f"{product.lower()}_{kind}_ark").ark
        assert sha256(ark or b"").digest() == PRODUCTION.amd[product].ark_sha256


@pytest.mark.guarantee("G18")
def test_production_believes_no_simulated_root() -> None:
    assert PRODUCTION.insecure == frozenset()


def test_insecure_roots_are_added_to_a_copy() -> None:
    extended = PRODUCTION.with_insecure([bytes(32)]).with_insecure([b"\1" * 32])
    assert extended.insecure == {bytes(32), b"\1" * 32}
    assert extended.amd is PRODUCTION.amd
    assert PRODUCTION.insecure == frozenset()


def test_only_a_sha256_is_a_pin() -> None:
    with pytest.raises(ConfigError, match="root pin: 31 bytes, want the 32"):
        RootPin(bytes(31))
    with pytest.raises(ConfigError, match="insecure root: want the 32 bytes"):
        PRODUCTION.with_insecure([bytes(33)])


def test_the_pins_cannot_be_edited() -> None:
    with pytest.raises(TypeError):
        PRODUCTION.amd["Naples"] = RootPin(bytes(32))  # type: ignore[index]


@pytest.mark.parametrize("anchor", Anchor)
def test_each_anchor_has_its_own_genuine_root(anchor: Anchor) -> None:
    (pin,) = PRODUCTION.pins(anchor)
    assert PRODUCTION.accepts(anchor, pin) is False
    for other in set(Anchor) - {anchor}:
        with pytest.raises(VerifyError, match=f"root: sha256 is {pin.hex()}, want the pinned {other} root"):
            PRODUCTION.accepts(other, pin)


def test_an_anchor_is_named_like_its_field() -> None:
    assert all(PRODUCTION.pins(anchor) is getattr(PRODUCTION, anchor) for anchor in Anchor)


@pytest.mark.guarantee("G18")
@pytest.mark.parametrize("anchor", Anchor)
def test_a_simulated_root_is_accepted_where_named_and_says_so(anchor: Anchor) -> None:
    with pytest.raises(VerifyError, match="want the pinned"):
        PRODUCTION.accepts(anchor, bytes(32))
    assert PRODUCTION.with_insecure([bytes(32)]).accepts(anchor, bytes(32)) is True
