"""Mirrors strongroom/evidence/bundle.py."""

import contextlib
import json
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import MAX_BYTES, MAX_PACKED, Bundle, GPUEvidence
from strongroom.evidence.collateral import Collateral
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.vtpm import TPMEvidence
from strongroom.wire.canonical import b64u, pack_json
from strongroom.wire.cbor import pack_cbor, parse_cbor

BUNDLE: Final = Bundle(
    report=b"report",
    certificates=b"",
    events=EventLog((Event("model", b"{}"),)),
    purpose=Purpose.RA_TLS,
    challenge=bytes(16),
)
PACKED: Final = BUNDLE.pack()
ZEROS: Final = b64u(bytes(32))
WHOLE: Final = replace(
    BUNDLE,
    tee="azure-snp",
    gpus=(GPUEvidence(kind="hopper", report=b"r", certificates=b"c"),),
    tpm=TPMEvidence(attest=b"a", signature=b"s", pcrs=((4, bytes(32)), (11, bytes(32)))),
    collateral=Collateral.of({"nvidia-rim/NV_GPU_DRIVER_GH100_550.144.03": b"<xml/>", "amd-crl": b"der"}),
)


def test_packs_to_canonical_json_and_back() -> None:
    gpu = GPUEvidence(kind="hopper", report=b"r", certificates=b"c")
    for bundle in (BUNDLE, replace(BUNDLE, gpus=(gpu,))):
        assert Bundle.parse(bundle.pack()) == bundle
        assert Bundle.from_json(bundle.to_json()) == bundle
    assert PACKED == (
        b'{"certificates":"","challenge":"AAAAAAAAAAAAAAAAAAAAAA","events":[{"name":"model","payload":"e30"}],'
        b'"gpus":[],"purpose":"ra-tls","report":"cmVwb3J0","tee":"snp","version":"strongroom/bundle/v1"}'
    )
    assert BUNDLE.digest == sha256(PACKED).digest()


@pytest.mark.parametrize("n", range(len(PACKED)))
def test_nothing_shorter_parses(n: int) -> None:
    with pytest.raises(FormatError):
        Bundle.parse(PACKED[:n])


def test_a_second_spelling_is_refused() -> None:
    with pytest.raises(FormatError, match="not in canonical form"):
        Bundle.parse(json.dumps(json.loads(PACKED)).encode())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": "strongroom/bundle/v2"}, "version is 'strongroom/bundle/v2', want strongroom/bundle/v1"),
        ({"tee": "sgx"}, "tee is 'sgx', want one of snp, tdx, azure-snp, azure-tdx"),
        ({"tee": None}, "tee is None, want one of"),
        ({"tpm": None}, "bundle.tpm: want exactly the keys attest"),
        ({"collateral": {}}, "bundle.collateral: want an object of 1..128 entries"),
        ({"collateral": {"amd-crl": ""}}, "collateral: amd-crl is empty"),
        ({"collateral": {"amd-crl": 1}}, "bundle.collateral.amd-crl: must be text"),
        ({"collateral": {"AMD": "AAAA"}}, "collateral: name is 'AMD'"),
        ({"purpose": "kbs"}, "purpose is 'kbs', want one of ra-tls"),
        ({"purpose": ["ra-tls"]}, "purpose is"),
        ({"challenge": "AAAA"}, "challenge is 3 bytes, want at least 16"),
        ({"report": None}, "report must be text"),
        ({"report": "="}, "report: not unpadded base64url"),
        ({"gpus": {}}, "gpus must be a list"),
        ({"gpus": [{}] * 17}, "gpus must be a list"),
        ({"gpus": [{}]}, "want exactly the keys kind"),
        ({"gpus": [{"kind": 1, "report": "", "certificates": ""}]}, "every value must be text"),
        ({"events": None}, "event log: not a list"),
        ({"more": 1}, "want exactly the keys"),
    ],
)
def test_other_shapes_are_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        Bundle.from_json(BUNDLE.to_json() | change)


def test_size_is_bounded_both_ways() -> None:
    large = replace(BUNDLE, events=EventLog((Event("a", bytes(60_000)),) * 4))
    with pytest.raises(FormatError, match=f"want at most {MAX_BYTES}"):
        large.pack()
    with pytest.raises(FormatError, match=f"want at most {MAX_BYTES}"):
        large.pack_cbor()
    with pytest.raises(FormatError, match=f"want at most {MAX_BYTES}"):
        Bundle.parse(pack_json(large.to_json()))
    for parse in (Bundle.parse, Bundle.parse_cbor):
        with pytest.raises(FormatError, match=f"want at most {MAX_PACKED}"):
            parse(b" " * (MAX_PACKED + 1))


def test_collateral_travels_along_and_changes_no_digest() -> None:
    for bundle in (BUNDLE, WHOLE):
        renewed = replace(bundle, collateral=Collateral.of({"amd-crl": b"a newer list"}))
        assert (
            renewed.digest
            == bundle.digest
            == sha256(replace(bundle, collateral=Collateral()).pack()).digest()
        )
        assert Bundle.parse(renewed.pack()) == Bundle.parse_cbor(renewed.pack_cbor()) == renewed


def test_both_encodings_hold_the_same_value() -> None:
    for bundle in (BUNDLE, WHOLE):
        assert Bundle.parse(bundle.pack()) == Bundle.parse_cbor(bundle.pack_cbor()) == bundle
    assert len(WHOLE.pack_cbor()) < len(WHOLE.pack())


PACKED_CBOR: Final = WHOLE.pack_cbor()


@pytest.mark.parametrize("n", range(len(PACKED_CBOR)))
def test_nothing_shorter_parses_as_cbor(n: int) -> None:
    with pytest.raises(FormatError):
        Bundle.parse_cbor(PACKED_CBOR[:n])


def test_any_flipped_bit_is_another_bundle_or_refused() -> None:
    for packed, parse in ((WHOLE.pack(), Bundle.parse), (PACKED_CBOR, Bundle.parse_cbor)):
        for n in range(8 * len(packed)):
            flipped = bytearray(packed)
            flipped[n // 8] ^= 1 << n % 8
            with contextlib.suppress(FormatError):
                assert parse(bytes(flipped)) != WHOLE


def test_text_in_the_place_of_bytes_is_refused() -> None:
    members = parse_cbor(BUNDLE.pack_cbor(), "x")
    assert isinstance(members, dict)
    with pytest.raises(FormatError, match="not in canonical form"):
        Bundle.parse_cbor(pack_cbor(members | {"report": "cmVwb3J0"}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"attest": None}, "bundle.tpm.attest: must be text"),
        ({"more": ""}, "bundle.tpm: want exactly the keys"),
        ({"pcrs": {}}, "bundle.tpm.pcrs: want a list of at most 24"),
        ({"pcrs": [[0, "AA"]] * 25}, "bundle.tpm.pcrs: want a list of at most 24"),
        ({"pcrs": [[True, ZEROS]]}, r"tpm.pcrs\[0\]: want an index and a value"),
        ({"pcrs": [[0]]}, r"tpm.pcrs\[0\]: want an index and a value"),
        ({"pcrs": [[0, ZEROS], [0, ZEROS]]}, "pcrs are .0, 0., want each of 0..23 once, in order"),
        ({"pcrs": [[1, ZEROS], [0, ZEROS]]}, "pcrs are .1, 0., want"),
        ({"pcrs": [[24, ZEROS]]}, "pcrs are .24., want"),
        ({"pcrs": [[-1, ZEROS]]}, "pcrs are .-1., want"),
        ({"pcrs": [[0, "AAAA"]]}, "a pcr value is not 32 bytes"),
    ],
)
def test_other_shapes_of_tpm_evidence_are_refused(change: dict[str, Any], why: str) -> None:
    value = WHOLE.to_json()
    assert isinstance(value["tpm"], dict)
    with pytest.raises(FormatError, match=why):
        Bundle.from_json(value | {"tpm": value["tpm"] | change})
