"""Mirrors strongroom/evidence/bundle.py."""

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import MAX_BYTES, Bundle, GPUEvidence
from strongroom.evidence.eventlog import Event, EventLog

BUNDLE: Final = Bundle(
    report=b"report",
    certificates=b"",
    events=EventLog((Event("model", b"{}"),)),
    purpose=Purpose.RA_TLS,
    challenge=bytes(16),
)
PACKED: Final = BUNDLE.pack()


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
        ({"tee": "tdx"}, "tee is 'tdx', want snp"),
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
        Bundle.parse(b" " * (MAX_BYTES + 1))
