"""Mirrors broker/reference.py."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.broker.reference import ReferenceValues, SignedReferences, sign
from strongroom.errors import FormatError, VerifyError
from strongroom.wire.canonical import b64u, pack_json
from tests import ROOT

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
VALUES: dict[str, Any] = {
    "version": "strongroom/reference-values/v1",
    "name": "my-image",
    "serial": 7,
    "not_after": 1800000000,
    "source": "strongroom 0.2, commit 0123",
    "measurements": [
        {"kind": "snp", "name": "4 vcpus", "value": "ab" * 48},
        {
            "kind": "tdx",
            "name": "tdx",
            "mr_td": "01" * 48,
            "rtmr0": "any",
            "rtmr1": "02" * 48,
            "rtmr2": "03" * 48,
        },
        {"kind": "tpm", "name": "uki", "pcrs": {"pcr11": "04" * 32, "pcr15": "events"}},
    ],
}


def values(**change: Any) -> ReferenceValues:
    return ReferenceValues.from_json(VALUES | change)


def test_a_signed_file_is_read_back() -> None:
    file = sign(values(), KEY)
    again = SignedReferences.parse(file.pack())
    assert again == file and again.verify(file.key) == values()
    assert again.values.to_json() == VALUES


def test_the_signature_is_the_one_the_document_gives() -> None:
    """docs/formats/reference-values.md holds this very file."""
    example = sign(ReferenceValues.from_json(VALUES | {"measurements": VALUES["measurements"][:1]}), KEY)
    assert example.pack().decode().strip() in (ROOT / "docs/formats/reference-values.md").read_text()


def test_another_key_is_not_believed() -> None:
    file = sign(values(), KEY)
    other = sign(values(), Ed25519PrivateKey.from_private_bytes(bytes(32)))
    with pytest.raises(VerifyError, match=r"signed by key .*, want"):
        other.verify(file.key)
    forged = SignedReferences(values=values(), key=file.key, signature=other.signature)
    with pytest.raises(VerifyError, match="the signature does not verify"):
        forged.verify(file.key)


def test_every_changed_byte_is_refused() -> None:
    file = sign(values(), KEY)
    packed = file.pack().rstrip(b"\n")
    for place in range(len(packed)):
        changed = bytearray(packed)
        changed[place] ^= 1
        with pytest.raises((FormatError, VerifyError)):
            SignedReferences.parse(bytes(changed)).verify(file.key)
    for length in range(len(packed)):
        with pytest.raises(FormatError):
            SignedReferences.parse(packed[:length])


def test_another_writing_of_the_same_is_refused() -> None:
    packed = sign(values(), KEY).pack()
    with pytest.raises(FormatError, match="canonical"):
        SignedReferences.parse(json.dumps(json.loads(packed)).encode())


def snp(**change: Any) -> dict[str, Any]:
    return {"kind": "snp", "name": "a", "value": "00" * 48} | change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": "v2"}, "version: want strongroom/reference-values/v1"),
        ({"extra": 1}, "extra: unknown member"),
        ({"name": ""}, "name: want one line"),
        ({"name": "a\nb"}, "name: want one line"),
        ({"serial": -1}, "serial: want a whole number"),
        ({"serial": True}, "serial: want a whole number"),
        ({"not_after": "2026-01-01"}, "not_after: want a whole number"),
        ({"not_after": 2**60}, "not_after: want a whole number"),
        ({"measurements": []}, "measurements: want a list of 1"),
        ({"measurements": {}}, "measurements: want a list of 1"),
        ({"measurements": [snp(kind="sgx")]}, r"measurements\[0\].kind: want one of snp, tdx, tpm"),
        ({"measurements": [snp(kind=[])]}, "kind: want one of"),
        ({"measurements": [snp(value="00" * 47)]}, "value: want 96 lowercase hex"),
        ({"measurements": [snp(value="AB" * 48)]}, "value: want 96 lowercase hex"),
        ({"measurements": [snp(value="any")]}, "value: want 96 lowercase hex"),
        ({"measurements": [snp(value={})]}, "value: want 96 lowercase hex"),
        ({"measurements": [snp(extra=1)]}, "extra: unknown member"),
        ({"measurements": [{"kind": "snp", "name": "a"}]}, "value: missing"),
        ({"measurements": [{"kind": "tdx", "name": "a", "mr_td": "any"}]}, "rtmr0: missing"),
        ({"measurements": [{"kind": "tpm", "name": "a", "pcrs": {}}]}, "pcrs: want pcr0..pcr23"),
        ({"measurements": [{"kind": "tpm", "name": "a", "pcrs": {"pcr24": "00" * 32}}]}, "pcrs: want pcr0"),
        ({"measurements": [{"kind": "tpm", "name": "a", "pcrs": {"pcr1": "any"}}]}, "pcr1: want 64"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        values(**change)


def test_they_hold_for_their_time() -> None:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    stamp = int(now.timestamp())
    assert values(not_before=stamp, not_after=stamp + 1).holds_at(now)
    assert not values(not_before=stamp + 1).holds_at(now)
    assert not values(not_after=stamp).holds_at(now)
    assert values(not_after=stamp).holds_at(now - timedelta(microseconds=1))


def test_the_key_is_no_secret_and_the_envelope_has_three_members() -> None:
    file = sign(values(), KEY)
    value = json.loads(file.pack())
    assert value.keys() == {"reference_values", "key", "signature"} and value["key"] == b64u(file.key)
    assert pack_json(value) + b"\n" == file.pack()
