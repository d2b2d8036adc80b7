"""Mirrors strongroom/evidence/binding.py. binding.json comes from tests/vectors/make_binding.sh (openssl)."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.binding import (
    MAGIC,
    Purpose,
    certificate_challenge,
    channel_challenge,
    gpu_digest,
    gpu_nonce,
    is_reserved,
    kbs_digest,
    kbs_report_data,
    receipt_challenge,
    report_data,
    tpm_nonce,
)
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.gpu import GPUEvidence
from tests import ROOT

VECTOR: Final = json.loads((ROOT / "tests/vectors/binding.json").read_text())
CHALLENGE: Final = bytes.fromhex(VECTOR["challenge"])
KEY: Final = bytes.fromhex(VECTOR["key"])
EXPORTER: Final = bytes.fromhex(VECTOR["exporter"])
NOT_BEFORE: Final = datetime.fromtimestamp(VECTOR["not_before"], UTC)
LOG: Final = EventLog((Event("model", b'{"epoch":3,"name":"tiny"}'), Event("boot-done", b"{}")))
FIELDS: Final[dict[str, Any]] = {
    "purpose": Purpose.CHANNEL,
    "challenge": CHALLENGE,
    "key": KEY,
    "gpu_digest": b"",
    "context": LOG.head,
}
GPU: Final = GPUEvidence(kind="hopper", report=b"report", certificates=b"chain")


def test_a_second_implementation_agrees() -> None:
    assert {
        "head": LOG.head.hex(),
        "report_data": report_data(**FIELDS).hex(),
        "gpu_nonce": gpu_nonce(CHALLENGE, KEY).hex(),
        "channel_challenge": channel_challenge(CHALLENGE, EXPORTER).hex(),
        "certificate_challenge": certificate_challenge(NOT_BEFORE).hex(),
        "receipt_challenge": receipt_challenge(NOT_BEFORE).hex(),
        "kbs_digest": kbs_digest({"tee-pubkey": {"kty": "EC"}, "nonce": "abc"}).hex(),
    } == {
        name: value
        for name, value in VECTOR.items()
        if name not in ("challenge", "key", "exporter", "not_before")
    }


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize(
    "change",
    [
        {"purpose": Purpose.RA_TLS},
        {"challenge": CHALLENGE + b"\0"},
        {"key": KEY[:-1]},
        {"gpu_digest": bytes(48)},
        {"context": bytes(48)},
        {"challenge": CHALLENGE + KEY[:1], "key": KEY[1:]},  # a byte that moves into its neighbour
    ],
    ids="+".join,
)
def test_every_field_counts(change: dict[str, Any]) -> None:
    assert report_data(**FIELDS | change) != report_data(**FIELDS)


def test_a_short_challenge_is_refused() -> None:
    with pytest.raises(FormatError, match="challenge: 15 bytes, want at least 16"):
        report_data(**FIELDS | {"challenge": bytes(15)})


def test_an_unregistered_purpose_is_refused() -> None:
    with pytest.raises(ValueError, match="ra_tls"):
        report_data(**FIELDS | {"purpose": "ra_tls"})


def test_gpu_digest_knows_every_byte_and_no_order() -> None:
    other = replace(GPU, report=b"other")
    assert gpu_digest([]) == b""
    assert len(gpu_digest([GPU])) == 48
    assert gpu_digest([GPU, other]) == gpu_digest([other, GPU])
    changed = [replace(GPU, kind="ls10"), other, replace(GPU, certificates=b"chai", report=b"nreport")]
    assert len({gpu_digest([device]) for device in [GPU, *changed]}) == 4


@pytest.mark.guarantee("G8")
def test_a_channel_challenge_belongs_to_one_connection() -> None:
    assert channel_challenge(CHALLENGE, EXPORTER) != channel_challenge(CHALLENGE, bytes(32))
    assert channel_challenge(CHALLENGE, EXPORTER) != channel_challenge(EXPORTER, CHALLENGE)
    for nonce, exporter in ((bytes(31), bytes(32)), (bytes(32), bytes(33))):
        with pytest.raises(FormatError, match="want 32 and 32"):
            channel_challenge(nonce, exporter)


def test_times_are_whole_minutes_and_purposes_differ() -> None:
    assert certificate_challenge(NOT_BEFORE) == certificate_challenge(NOT_BEFORE + timedelta(seconds=59))
    assert certificate_challenge(NOT_BEFORE) != certificate_challenge(NOT_BEFORE + timedelta(seconds=60))
    assert certificate_challenge(NOT_BEFORE) != receipt_challenge(NOT_BEFORE)
    with pytest.raises(FormatError, match="no zone"):
        certificate_challenge(NOT_BEFORE.replace(tzinfo=None))
    with pytest.raises(FormatError, match="after 1970"):
        receipt_challenge(datetime(1969, 12, 31, tzinfo=UTC))


def test_kbs_digest_is_over_the_canonical_form() -> None:
    assert kbs_digest({"nonce": "n", "tee-pubkey": 1}) == kbs_digest({"tee-pubkey": 1, "nonce": "n"})
    assert len(kbs_digest({}, hash="sha256")) == 32
    assert len(kbs_digest({}, hash="sha512")) == 64
    with pytest.raises(FormatError, match="kbs: hash is 'sm3', want one of sha256, sha384, sha512"):
        kbs_digest({}, hash="sm3")


@pytest.mark.parametrize("size", [0, 32, 47, 49, 64])
def test_only_a_sha384_digest_becomes_report_data(size: int) -> None:
    with pytest.raises(FormatError, match=f"kbs: digest is {size} bytes, want 48"):
        kbs_report_data(bytes(size))


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize(
    ("data", "reserved"),
    [
        (report_data(**FIELDS), True),
        (kbs_report_data(kbs_digest({})), True),
        (MAGIC, True),
        (MAGIC + b"\xff" * 48, True),
        (b"\xff" * 33, True),
        (b"\xff" * 33 + bytes(31), True),
        (b"\xff" * 48, True),
        (b"", False),
        (bytes(64), False),
        (b"\xff" * 32, False),
        (b"\xff" * 32 + bytes(32), False),
        (b"\xff" * 49, False),
        (b"\xff" * 64, False),
        (MAGIC[1:], False),
    ],
)
def test_our_own_shapes_are_reserved(data: bytes, reserved: bool) -> None:
    assert is_reserved(data) is reserved


def test_more_than_report_data_holds_is_refused() -> None:
    with pytest.raises(FormatError, match="report_data: 65 bytes, want at most 64"):
        is_reserved(bytes(65))


@pytest.mark.guarantee("G7")
def test_a_tpm_nonce_commits_to_everything_report_data_does() -> None:
    nonce = tpm_nonce(report_data(**FIELDS))
    assert len(nonce) == 32
    others: list[dict[str, Any]] = [
        {"purpose": Purpose.BOOT},
        {"challenge": bytes(32)},
        {"key": b"other"},
        {"gpu_digest": gpu_digest([GPU])},
        {"context": bytes(48)},
    ]
    assert nonce not in {tpm_nonce(report_data(**FIELDS | other)) for other in others}
    for foreign in (bytes(64), MAGIC, report_data(**FIELDS) + b"!"):
        with pytest.raises(FormatError, match="report_data is not one computed here"):
            tpm_nonce(foreign)
