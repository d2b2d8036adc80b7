"""Mirrors strongroom/evidence/collateral.py."""

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.collateral import AMD_CRL, MAX_BYTES, Collateral


def test_entries_are_found_by_name() -> None:
    collateral = Collateral.of({"nvidia-rim/B": b"2", "nvidia-rim/A": b"1", AMD_CRL: b"crl"})
    assert [name for name, _ in collateral] == [AMD_CRL, "nvidia-rim/A", "nvidia-rim/B"]
    assert collateral.find(AMD_CRL) == b"crl"
    assert collateral.find("nvidia-rim") is None
    assert collateral
    assert not Collateral()


def test_ones_own_entries_win() -> None:
    own, carried = Collateral.of({"a": b"own"}), Collateral.of({"a": b"carried", "b": b"carried"})
    assert dict(own.over(carried)) == {"a": b"own", "b": b"carried"}


def test_order_names_and_sizes_are_held() -> None:
    with pytest.raises(FormatError, match="names repeat or are out of order"):
        Collateral((("b", b"1"), ("a", b"1")))
    with pytest.raises(FormatError, match="names repeat or are out of order"):
        Collateral((("a", b"1"), ("a", b"1")))
    for name in ("", "A", "a/", "a/b/c", "a b", "a\n", "../a"):
        with pytest.raises(FormatError, match="collateral: name is"):
            Collateral.of({name: b"1"})
    with pytest.raises(FormatError, match="129 entries, want at most 128"):
        Collateral.of({f"a{n}": b"1" for n in range(129)})
    with pytest.raises(FormatError, match=f"want at most {MAX_BYTES}"):
        Collateral.of({"a": bytes(MAX_BYTES), "b": b"1"})
