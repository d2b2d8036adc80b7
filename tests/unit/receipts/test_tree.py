"""Mirrors strongroom/receipts/tree.py."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import FormatError, VerifyError
from strongroom.receipts.tree import EMPTY, Tree, leaf_hash, require_consistency, require_inclusion

# The entries and heads of the tests of RFC 6962's first implementation, whose hashing RFC 9162 kept.
ENTRIES = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
HEADS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# (leaf, size, path) and (first, second, path) of the same tests
INCLUSIONS = [
    (0, 8, ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"]),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
]  # fmt: skip
CONSISTENCIES = [
    (1, 8, ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"]),
    (6, 8, ["0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"]),
]  # fmt: skip
MOST = 40
LEAVES = [leaf_hash(bytes([n])) for n in range(MOST)]


def tree(leaves: list[bytes]) -> Tree:
    grown = Tree()
    for leaf in leaves:
        grown.append(leaf)
    return grown


FULL = tree(LEAVES)
SIZES = st.integers(1, MOST)


def naive(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1, word for word."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1" + naive(leaves[:split]) + naive(leaves[split:])).digest()


def test_heads_of_the_known_entries() -> None:
    grown = Tree()
    assert grown.head() == EMPTY == naive([])
    for entry, head in zip(ENTRIES, HEADS, strict=True):
        grown.append(leaf_hash(entry))
        assert grown.head().hex() == head
    assert [grown.head(n + 1).hex() for n in range(8)] == HEADS


def test_proofs_of_the_known_entries() -> None:
    grown = tree([*map(leaf_hash, ENTRIES)])
    for index, size, path in INCLUSIONS:
        assert [node.hex() for node in grown.inclusion(index, size)] == path
    for first, second, path in CONSISTENCIES:
        assert [node.hex() for node in grown.consistency(first, second)] == path


@given(SIZES)
def test_heads_are_what_the_definition_says(size: int) -> None:
    assert FULL.head(size) == naive(LEAVES[:size])


@pytest.mark.guarantee("G12")
def test_every_inclusion_is_proven_and_nothing_else() -> None:
    for size in range(1, MOST + 1):
        head = FULL.head(size)
        for index in range(size):
            path = FULL.inclusion(index, size)
            require_inclusion(LEAVES[index], index, size, path, head)
            wrong = [(LEAVES[index - 1], index, path), (LEAVES[index], index, [*path, head])]
            wrong += [(LEAVES[index], other, path) for other in (index - 1, index ^ 1, index + 1, size)]
            wrong += [
                (LEAVES[index], index, [*path[:at], bytes(32), *path[at + 1 :]]) for at in range(len(path))
            ]
            wrong += [(LEAVES[index], index, path[:-1])] if path else []
            for leaf, at, way in wrong:
                if (leaf, at, way) != (LEAVES[index], index, path):
                    with pytest.raises(VerifyError):
                        require_inclusion(leaf, at, size, way, head)


@pytest.mark.guarantee("G12")
def test_every_growth_is_proven_and_nothing_else() -> None:
    for second in range(1, MOST + 1):
        for first in range(1, second + 1):
            heads, path = (FULL.head(first), FULL.head(second)), FULL.consistency(first, second)
            require_consistency(first, heads[0], second, heads[1], path)
            for changed in ((bytes(32), heads[1]), (heads[0], bytes(32))):
                with pytest.raises(VerifyError):
                    require_consistency(first, changed[0], second, changed[1], path)
            mutants = [[*path[:at], bytes(32), *path[at + 1 :]] for at in range(len(path))]
            mutants += [[*path, bytes(32)], *([path[:-1]] if path else [])]
            for mutant in mutants:
                with pytest.raises(VerifyError):
                    require_consistency(first, heads[0], second, heads[1], mutant)


@pytest.mark.guarantee("G12")
@given(SIZES, SIZES, st.integers(0, MOST - 1))
def test_a_tree_with_a_changed_leaf_is_no_successor(first: int, more: int, changed: int) -> None:
    second = min(first + more, MOST)
    other = tree([*LEAVES[:changed], bytes(32), *LEAVES[changed + 1 :]])
    proof = other.consistency(first, second)
    if changed < first:
        with pytest.raises(VerifyError):
            require_consistency(first, FULL.head(first), second, other.head(second), proof)
    else:
        require_consistency(first, FULL.head(first), second, other.head(second), proof)


def test_nothing_grew_into_something_without_a_proof() -> None:
    require_consistency(0, EMPTY, 5, FULL.head(5), [])
    with pytest.raises(VerifyError, match="differ"):
        require_consistency(0, bytes(32), 5, FULL.head(5), [])
    with pytest.raises(VerifyError, match="differ"):
        require_consistency(5, FULL.head(5), 5, FULL.head(4), [])
    with pytest.raises(VerifyError, match="and then"):
        require_consistency(6, FULL.head(6), 5, FULL.head(5), [])


@given(st.integers(0, MOST // 8), st.integers(0, MOST))
def test_what_is_forgotten_changes_nothing_of_the_rest(segments: int, first: int) -> None:
    height, grown, grafted = 3, tree(LEAVES), Tree()
    grown.forget(segments << height, height)
    for number in range(segments):
        grafted.graft(FULL.subtree(height, number), height)
    for leaf in LEAVES[segments << height :]:
        grafted.append(leaf)
    for one in (grown, grafted):
        assert (one.head(), one.size, one.first) == (FULL.head(), MOST, segments << height)
        for index in range(one.first, MOST):
            assert one.inclusion(index, MOST) == FULL.inclusion(index, MOST)
        if first > one.first or (first and not first % 8):
            assert one.consistency(first, MOST) == FULL.consistency(first, MOST)
        if segments:
            with pytest.raises(FormatError, match="not kept"):
                one.inclusion(0, MOST)


@pytest.mark.parametrize("ask", [(-1, 5), (5, 5), (0, MOST + 1), (0, 0)])
def test_leaves_that_are_not_there(ask: tuple[int, int]) -> None:
    with pytest.raises(FormatError, match=r"leaf|at most"):
        FULL.inclusion(*ask)


@pytest.mark.parametrize("ask", [(0, 5), (6, 5), (1, MOST + 1), (-1, 5)])
def test_sizes_that_never_were(ask: tuple[int, int]) -> None:
    with pytest.raises(FormatError, match=r"consistency|at most"):
        FULL.consistency(*ask)


def test_a_subtree_fits_where_a_multiple_of_it_lies() -> None:
    with pytest.raises(FormatError, match="want a multiple of 8"):
        tree(LEAVES[:3]).graft(bytes(32), 3)


def test_a_proof_of_the_greatest_length_ends() -> None:
    with pytest.raises(VerifyError):
        require_inclusion(bytes(32), 0, 2**53, [bytes(32)] * 65, bytes(32))
    with pytest.raises(VerifyError):
        require_consistency(1, bytes(32), 2**53, bytes(32), [bytes(32)] * 65)
