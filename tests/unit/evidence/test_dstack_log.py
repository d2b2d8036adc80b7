"""Mirrors strongroom/evidence/dstack_log.py. Vectors: dstack's digests, and a log and quote of a real guest."""

import json
from contextlib import suppress
from dataclasses import replace
from hashlib import sha384
from typing import Any

import pytest

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence import dstack_log
from strongroom.evidence.dstack_log import (
    EVENT_TYPE,
    LogEntry,
    RuntimeEvent,
    boot_claims,
    event_digest,
    event_digest_v2,
    firmware,
    pack,
    parse,
    replay,
    require_genuine,
    stripped,
    view,
)
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.tcglog import LogKind, TCGLog
from strongroom.evidence.tdx import TDXQuote
from tests import VECTORS

BOOT = tuple(
    RuntimeEvent(name=name, payload=payload)
    for name, payload in (("system-preparing", b""), ("app-id", bytes(20)), ("system-ready", b""))
)
FIRMWARE = LogEntry(imr=0, event_type=0x80000001, digest=bytes([1]) * 48, event="", payload=b"SecureBoot")
ACPI = LogEntry(imr=0, event_type=10, digest=bytes([2]) * 48, event="acpi-loader", payload=b"ACPI DATA")
LOG = (FIRMWARE, ACPI, *(event.entry for event in BOOT))
REGISTERS = {imr: replay(LOG, imr) for imr in range(4)}


def real() -> tuple[dstack_log.Log, dict[int, bytes]]:
    folder = VECTORS / "tdx" / "v4-dstack"
    if not folder.exists():
        pytest.skip("no real vectors beside this checkout")
    body = TDXQuote.parse((folder / "quote.bin").read_bytes(), trailing="any").body
    return parse((folder / "event_log.json").read_text()), dict(enumerate(body.rtmrs))


@pytest.mark.parametrize(
    ("name", "payload", "digest"),
    [
        (
            "app-id",
            "deadbeef",
            "67b4be4efed0893cfa2bb1d35dca209ad8348b4c97f980807bcde8b9a0f26398dd0923d6eccb5aa2096d98046da8740f",
        ),
        (
            "system-ready",
            "",
            "1a76b2a80a0be71eae59f80945d876351a7a3fb8e9fd1ff1cede5734aa84ea11fd72b4edfbb6f04e5a85edd114c751bd",
        ),
    ],
)
def test_digest_of_version_1(name: str, payload: str, digest: str) -> None:
    assert event_digest(name, bytes.fromhex(payload)).hex() == digest


def test_digest_of_version_2() -> None:
    event = RuntimeEvent(name="compose-hash", payload=bytes.fromhex("abcd"), version=2)
    assert event.preimage == b'{"name":"compose-hash","payload":"abcd","type":134217729}'
    assert event.digest == event_digest_v2(event.name, event.payload)
    assert event.digest.hex() == (
        "9dde1673f544faa94b921825209593ddde08d0baf9cd6990175dffaf3081f1bb10311d56de189491feb33842a050ad7b"
    )


def test_a_real_log_leads_to_the_registers_of_its_quote() -> None:
    log, registers = real()
    require_genuine(log, registers)
    claims = boot_claims(log)
    assert claims["app-id"] == claims["compose-hash"][:20]
    assert list(claims) == [
        *("system-preparing", "app-id", "compose-hash", "instance-id", "boot-mr-done", "key-provider")
    ]


def test_a_real_log_makes_a_round_trip() -> None:
    log, registers = real()
    assert parse(pack(log)) == log
    short = stripped(log)
    assert len(short) < len(log)
    require_genuine(short, {3: registers[3]})


def test_a_firmware_s_log_leads_to_the_first_registers() -> None:
    folder = VECTORS / "tdx" / "v4-cos113-ccel"
    if not folder.exists():
        pytest.skip("no real vectors beside this checkout")
    log = TCGLog.parse((folder / "ccel_data.bin").read_bytes(), LogKind.CC)
    body = TDXQuote.parse((folder / "quote.bin").read_bytes(), trailing="any").body
    entries = firmware(log)
    require_genuine(entries, dict(enumerate(body.rtmrs[:3])))
    assert parse(pack(entries)) == entries
    with pytest.raises(FormatError, match="counts PCRs"):
        firmware(replace(log, kind=LogKind.TPM))
    bare = replace(log.records[-1], digests=())
    with pytest.raises(FormatError, match="no SHA-384"):
        firmware(replace(log, records=(bare,)))


def test_every_flipped_bit_of_a_digest_is_seen() -> None:
    for n in range(len(LOG)):
        for at in range(0, 384, 5):
            digest = bytearray(LOG[n].digest)
            digest[at // 8] ^= 1 << at % 8
            changed = (*LOG[:n], replace(LOG[n], digest=bytes(digest)), *LOG[n + 1 :])
            with pytest.raises(VerifyError):
                require_genuine(changed, REGISTERS)


def test_a_renamed_swapped_added_or_missing_event_is_seen() -> None:
    for changed in (
        (*LOG[:3], replace(LOG[3], event="app-ix"), LOG[4]),
        (*LOG[:3], replace(LOG[3], payload=bytes(19) + b"1"), LOG[4]),
        (*LOG[:3], LOG[4], LOG[3]),
        (*LOG, LOG[4]),
        LOG[:-1],
        (*LOG[:-1], replace(LOG[-1], version=2)),
        (*LOG[:2], replace(LOG[2], imr=2), *LOG[3:]),
        (replace(FIRMWARE, imr=1), *LOG[1:]),
    ):
        with pytest.raises(VerifyError):
            require_genuine(changed, REGISTERS)


def test_a_missing_digest_is_computed() -> None:
    bare = tuple(replace(entry, digest=b"") if entry.runtime else entry for entry in LOG)
    require_genuine(bare, REGISTERS)
    assert pack(bare) == pack(LOG)
    with pytest.raises(FormatError, match="digest is 0 bytes"):
        replace(FIRMWARE, digest=b"")


def test_our_own_events_replay_to_the_head_of_our_log() -> None:
    ours = EventLog((Event("userdata", bytes(32)), Event("boot-done", b"{}")))
    entries = view(ours)
    assert replay(entries, 3) == ours.head
    require_genuine(entries, {3: ours.head})
    assert {entry.event_type for entry in entries} != {EVENT_TYPE}
    assert [entry.runtime for entry in entries] == [None, None]
    assert parse(pack(entries)) == entries


def test_both_kinds_of_events_in_one_register() -> None:
    ours = view(EventLog((Event("userdata", bytes(32)),)))
    log = (*ours, BOOT[1].entry)
    want = sha384(sha384(bytes(48) + ours[0].digest).digest() + BOOT[1].digest).digest()
    assert replay(log, 3) == want
    require_genuine(log, {3: want})


def test_an_empty_register_is_zero() -> None:
    assert replay((), 3) == bytes(48)


def test_claims_end_with_boot() -> None:
    late = RuntimeEvent(name="compose-hash", payload=b"evil").entry
    assert "compose-hash" not in boot_claims((*LOG, late))
    with pytest.raises(FormatError, match="no event system-ready"):
        boot_claims(LOG[:-1])
    with pytest.raises(FormatError, match="twice"):
        boot_claims((BOOT[1].entry, *LOG))


def test_only_dstack_s_events_in_the_runtime_register_are_claims() -> None:
    posing = LogEntry(imr=3, event_type=1, digest=bytes(48), event="app-id", payload=b"evil")
    assert boot_claims((posing, *LOG))["app-id"] == bytes(20)


def test_init_scripts_may_repeat() -> None:
    script = RuntimeEvent(name="init-script-hash", payload=bytes(32)).entry
    assert "init-script-hash" not in boot_claims((script, script, *LOG))


def test_version_2_travels_with_its_preimage() -> None:
    entry = RuntimeEvent(name="compose-hash", payload=b"\xab", version=2).entry
    value: Any = entry.to_json()
    assert sha384(bytes.fromhex(value["preimage"])).hexdigest() == value["digest"]
    assert LogEntry.from_json(value, "x") == entry
    with pytest.raises(FormatError, match="preimage"):
        LogEntry.from_json(value | {"preimage": "00"}, "x")
    with pytest.raises(FormatError, match="preimage"):
        LogEntry.from_json(FIRMWARE.to_json() | {"preimage": ""}, "x")


@pytest.mark.parametrize(
    "change",
    [
        {"imr": 4},
        {"imr": -1},
        {"imr": True},
        {"imr": "0"},
        {"event_type": 2**32},
        {"digest": "00"},
        {"digest": "AA" * 48},
        {"digest": "zz" * 48},
        {"digest": None},
        {"event": None},
        {"event_payload": "0"},
        {"event_payload": "0 0"},
        {"version": 3},
        {"version": True},
        {"version": "1"},
        {"more": 1},
    ],
)
def test_a_wrong_member_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        LogEntry.from_json(BOOT[1].entry.to_json() | change, "x")


def test_every_cut_is_refused() -> None:
    text = pack(LOG)
    for n in range(len(text)):
        with pytest.raises(FormatError):
            parse(text[:n])


def test_a_changed_bit_is_refused_or_another_log() -> None:
    text = pack(LOG[2:]).encode()
    for at in range(8 * len(text)):
        data = bytearray(text)
        data[at // 8] ^= 1 << at % 8
        with suppress(FormatError, UnicodeDecodeError):
            assert parse(bytes(data).decode()) != LOG[2:]


def test_a_long_log_is_refused() -> None:
    entry = BOOT[0].entry.to_json()
    with pytest.raises(FormatError, match="at most 4096"):
        parse(json.dumps([entry] * 4097))
