"""Mirrors strongroom/receipts/log.py."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.errors import FormatError, VerifyError
from strongroom.receipts.keys import DoorKeys
from strongroom.receipts.log import Consistency, Head, Inclusion, SignedHead, sign_head, verify_head
from strongroom.receipts.tree import Tree, leaf_hash
from strongroom.wire.canonical import JSON
from tests.fakes.exchange import receipt, receipt_bundle
from tests.fakes.silicon import silicon

KEYS = DoorKeys.from_secret(bytes(range(32)))
SIGNER = KEYS.signer(hybrid=False)
RECEIPTS = [
    replace(receipt(receipt_bundle(silicon(), KEYS.receipt)), id=f"{number:032x}") for number in range(7)
]
TREE = Tree()
for _receipt in RECEIPTS:
    TREE.append(leaf_hash(_receipt.signed_part))


def head(size: int = 7) -> Head:
    return Head(log=bytes(16), size=size, root=TREE.head(size), time=1_800_000_000 + size)


SIGNED = sign_head(head(), SIGNER)


def inclusion(index: int) -> Inclusion:
    return Inclusion(head=SIGNED, index=index, path=tuple(TREE.inclusion(index, 7)))


def consistency(first: int, second: int) -> Consistency:
    return Consistency(first=first, second=second, path=tuple(TREE.consistency(first, second)))


def test_json_round_trips() -> None:
    assert SignedHead.from_json(SIGNED.to_json()) == SIGNED
    assert Head.from_json(head(0).to_json()) == head(0)
    assert Inclusion.from_json(inclusion(3).to_json()) == inclusion(3)
    assert Consistency.from_json(consistency(3, 7).to_json()) == consistency(3, 7)


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize(
    "change", [{"log": bytes(15) + b"\1"}, {"size": 6}, {"root": bytes(32)}, {"time": 1}]
)
def test_every_member_of_a_head_is_signed(hybrid: bool, change: dict[str, Any]) -> None:
    signer = KEYS.signer(hybrid=hybrid)
    signed = sign_head(head(), signer)
    assert verify_head(signed, key=signer.key) == head()
    with pytest.raises(VerifyError, match="head: the signature does not match"):
        verify_head(replace(signed, head=replace(head(), **change)), key=signer.key)


@pytest.mark.guarantee("G12")
def test_a_head_by_another_key_is_refused() -> None:
    other = DoorKeys.from_secret(bytes(32)).signer(hybrid=False)
    with pytest.raises(VerifyError, match="another key"):
        verify_head(sign_head(head(), other), key=SIGNER.key)


@pytest.mark.guarantee("G12")
def test_a_receipt_is_in_the_log_where_the_proof_says() -> None:
    for index, one in enumerate(RECEIPTS):
        assert inclusion(index).require(one, key=SIGNER.key) == head()
        with pytest.raises(VerifyError, match="does not lead"):
            inclusion(index).require(replace(one, complete=False), key=SIGNER.key)
        with pytest.raises(VerifyError):
            replace(inclusion(index), index=(index + 1) % 7).require(one, key=SIGNER.key)
    unsigned = replace(inclusion(0), head=replace(SIGNED, signature=bytes(64)))
    with pytest.raises(VerifyError, match="signature"):
        unsigned.require(RECEIPTS[0], key=SIGNER.key)


@pytest.mark.guarantee("G12")
def test_a_log_goes_on() -> None:
    for first in range(1, 8):
        consistency(first, 7).require(head(first), head())
    with pytest.raises(VerifyError, match="of two logs"):
        consistency(3, 7).require(replace(head(3), log=b"\1" * 16), head())
    with pytest.raises(VerifyError, match="want 3 and 7"):
        consistency(4, 7).require(head(3), head())
    with pytest.raises(VerifyError, match="does not go on"):
        consistency(3, 7).require(replace(head(3), root=bytes(32)), head())


GOOD_HEAD: Any = SIGNED.to_json()
GOOD_PROOF: Any = inclusion(1).to_json()


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {**GOOD_HEAD, "more": 1},
        {**GOOD_HEAD, "key": 1},
        {**GOOD_HEAD, "signature": "=="},
        {**GOOD_HEAD, "head": {**GOOD_HEAD["head"], "version": "strongroom/log-head/v2"}},
        {**GOOD_HEAD, "head": {**GOOD_HEAD["head"], "size": True}},
        {**GOOD_HEAD, "head": {**GOOD_HEAD["head"], "size": -1}},
        {**GOOD_HEAD, "head": {**GOOD_HEAD["head"], "size": 0}},  # with a root that leaves have
        {**GOOD_HEAD, "head": {**GOOD_HEAD["head"], "root": "AB" * 32}},
        {**GOOD_HEAD, "head": {**GOOD_HEAD["head"], "log": "ab" * 15}},
    ],
)
def test_other_heads_are_refused(value: JSON) -> None:
    with pytest.raises(FormatError):
        SignedHead.from_json(value)


@pytest.mark.parametrize(
    "change",
    [
        {"index": "1"},
        {"index": 2**53},
        {"path": None},
        {"path": ["ab"]},
        {"path": ["ab" * 32] * 65},
        {"head": None},
        {"x": 1},
    ],
)
def test_other_proofs_are_refused(change: dict[str, JSON]) -> None:
    with pytest.raises(FormatError):
        Inclusion.from_json({**GOOD_PROOF, **change})


def test_a_receipt_key_is_no_key_for_something_else() -> None:
    """One key signs receipts and heads: their labels keep them apart."""
    key = Ed25519PrivateKey.from_private_bytes(KEYS.receipt.private_bytes_raw())
    signature = key.sign(RECEIPTS[0].signed_part)
    with pytest.raises(VerifyError):
        verify_head(replace(SIGNED, signature=signature), key=SIGNER.key)
