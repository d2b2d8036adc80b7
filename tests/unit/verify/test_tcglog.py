"""Mirrors strongroom/verify/tcglog.py: every log of the shared set, and logs that say more than was measured."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.aael import AAELEntry
from strongroom.evidence.tcglog import EV_EVENT_TAG, EV_NO_ACTION, EV_SEPARATOR, LogKind, Record, TCGLog
from strongroom.evidence.tdx import TDXQuote
from strongroom.evidence.tpm import Hash
from strongroom.verify.tcglog import aael_entries, confirmed, measured_data, replay
from tests import VECTORS
from tests.fakes.tpm import log

INDEX: Final = VECTORS / "index.json"
KINDS: Final = {"tpm-eventlog": LogKind.TPM, "ccel": LogKind.CC, "ccel-negative": LogKind.CC}
VECTOR: Final = {v["id"]: v for v in (json.loads(INDEX.read_text())["vectors"] if INDEX.exists() else [])}
LOGS: Final = [v for v in VECTOR.values() if v["kind"] in KINDS]
needs_vectors: Final = pytest.mark.skipif(not LOGS, reason="no real vectors beside this checkout")

SHA256: Final = Hash.SHA256
EVENTS: Final = [(0, 8, b"v1"), (7, EV_SEPARATOR, bytes(4)), (0, EV_SEPARATOR, bytes(4))]
LOG: Final = log(EVENTS)
REGISTERS: Final = dict(replay(LOG, SHA256))


def real_log(file: str, kind: LogKind) -> TCGLog:
    return TCGLog.parse((VECTORS / file).read_bytes(), kind)


def pcr_values(file: str) -> dict[int, bytes]:
    raw = json.loads((VECTORS / file).read_text())
    return {int(pcr): bytes.fromhex(value) for pcr, value in raw.items()}


@pytest.mark.parametrize("vector", LOGS, ids=lambda vector: vector["id"])
def test_real_logs_replay_to_the_listed_registers(vector: dict[str, Any]) -> None:
    parsed = real_log(vector["files"]["log"], KINDS[vector["kind"]])
    expect = vector["expect"]["replayed"]
    for bank in parsed.banks:
        values = replay(parsed, bank)
        assert {str(register): value.hex() for register, value in values.items()} == expect[str(bank)]
        assert confirmed(parsed, values, bank)
    assert [str(bank) for bank in parsed.banks] == list(expect)


@needs_vectors
def test_a_sha256_replay_of_an_old_log_is_refused() -> None:
    parsed = real_log("tpm/legacy-sha1/event_log.bin", LogKind.TPM)
    with pytest.raises(VerifyError, match="event log: banks are sha1, want sha256"):
        replay(parsed, SHA256)


@needs_vectors
def test_a_real_ccel_explains_the_quote_it_came_with_and_a_changed_one_does_not() -> None:
    body = TDXQuote.parse((VECTORS / "tdx/v4-cos113-ccel/quote.bin").read_bytes()).body
    rtmrs = dict(enumerate(body.rtmrs, start=1))
    events = confirmed(real_log("tdx/v4-cos113-ccel/ccel_data.bin", LogKind.CC), rtmrs, Hash.SHA384)
    assert len(events) == 43
    changed = real_log("tpm/ccel-dup-separator/ccel.bin", LogKind.CC)
    with pytest.raises(VerifyError, match=r"replay differs from the quote in rtmr 0, rtmr 1$"):
        confirmed(changed, rtmrs, Hash.SHA384)
    assert confirmed(changed, {3: rtmrs[3]}, Hash.SHA384)


@needs_vectors
@pytest.mark.parametrize("bank", [Hash.SHA1, Hash.SHA256, Hash.SHA384])
def test_a_real_log_explains_the_pcrs_of_its_quote(bank: Hash) -> None:
    folder = "tpm/gce-cos85-nonce9009"
    pcrs = pcr_values(f"{folder}/pcrs_{bank}.json")
    parsed = real_log(f"{folder}/event_log.bin", LogKind.TPM)
    assert confirmed(parsed, {pcr: pcrs[pcr] for pcr in range(10)}, bank)
    del pcrs[10]  # Linux's own list
    assert confirmed(parsed, pcrs, bank)  # those never extended are as they were at reset


@needs_vectors
def test_a_unified_kernel_s_log_explains_all_but_what_came_after_the_firmware() -> None:
    folder, expect = "tpm/uki-secureboot", VECTOR["uki-secureboot"]["expect"]
    pcrs = pcr_values(f"{folder}/pcrs_sha256.json")
    parsed = real_log(f"{folder}/event_log.bin", LogKind.TPM)
    matches = expect["log_replay_matches"]
    assert confirmed(parsed, {pcr: pcrs[pcr] for pcr in pcrs if matches.get(str(pcr))}, SHA256)
    with pytest.raises(VerifyError, match=r"differs from the quote in pcr 11$"):
        confirmed(parsed, {int(pcr): pcrs[int(pcr)] for pcr in matches}, SHA256)
    value = replay(parsed, SHA256)[11]
    assert value.hex() == expect["pcr11_from_log"]
    for phase in expect["pcr11_phases"]:
        value = SHA256.digest(value + SHA256.digest(phase.encode()))
    assert value == pcrs[11]
    stub = confirmed(parsed, {11: replay(parsed, SHA256)[11]}, SHA256)
    assert len(stub) == 12
    assert all(event.data is None for event in stub)  # names of sections, in another encoding than measured


@needs_vectors
def test_what_a_boot_loader_measured_is_told_from_what_it_only_logged() -> None:
    parsed = real_log("tpm/ubuntu2404-sevsnp/event_log.bin", LogKind.TPM)
    events = confirmed(parsed, replay(parsed, SHA256), SHA256)
    commands = [event.data for event in events if event.register == 8]
    assert len(commands) == 71
    assert all(commands)
    assert any(command is not None and command.startswith(b"linux /vmlinuz-6.8") for command in commands)
    separators = [event for event in events if event.type == EV_SEPARATOR]
    assert [event.data for event in separators] == [bytes(4)] * 8
    assert [event.data for event in events if event.register == 14] == [None] * 3  # shim logs names of lists


@needs_vectors
def test_the_agent_s_own_entries_behind_a_real_ccel() -> None:
    parsed = real_log("tpm/ccel-aael-alibaba/ccel.bin", LogKind.CC)
    events = confirmed(parsed, replay(parsed, Hash.SHA384), Hash.SHA384)
    entries = aael_entries(events, 4)
    assert [(entry.domain, entry.operation) for entry in entries] == [("coco.com", "some-operation")] * 2
    assert entries[0].content == "some-content"
    with pytest.raises(VerifyError, match="register 3 has an event that is no entry of the agent"):
        aael_entries(events, 3)


def test_the_replay_is_a_hash_chain_from_zeros() -> None:
    first = SHA256.digest(bytes(32) + SHA256.digest(b"v1"))
    assert REGISTERS[0] == SHA256.digest(first + SHA256.digest(bytes(4)))
    assert REGISTERS.keys() == {0, 7}


def test_an_empty_log_extends_nothing() -> None:
    assert replay(log([]), SHA256) == {}


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_the_startup_locality_starts_pcr_0(locality: int) -> None:
    started = log([(0, EV_NO_ACTION, b"StartupLocality\0" + bytes((locality,))), *EVENTS])
    first = SHA256.digest(bytes(31) + bytes((locality,)) + SHA256.digest(b"v1"))
    values = replay(started, SHA256)
    assert values[0] == SHA256.digest(first + SHA256.digest(bytes(4)))
    assert values[7] == REGISTERS[7]


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([(0, 3, b"StartupLocality\0\1")], "startup locality is '01'"),
        ([(0, 3, b"StartupLocality\0")], "startup locality is ''"),
        ([(0, 3, b"StartupLocality\0\3\0")], "startup locality is '0300'"),
        ([(1, 3, b"StartupLocality\0\3")], "startup locality is '03', want 0, 3 or 4 for pcr 0"),
        ([(0, 3, b"StartupLocality\0\3")] * 2, "comes late or twice"),
        ([*EVENTS, (0, 3, b"StartupLocality\0\3")], "comes late or twice"),
    ],
)
def test_another_startup_locality_is_refused(events: list[tuple[int, int, bytes]], why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        replay(log(events), SHA256)


def test_an_event_that_is_not_extended_changes_nothing() -> None:
    assert replay(log([(0, EV_NO_ACTION, b"a note"), *EVENTS]), SHA256) == REGISTERS


def test_a_record_without_a_digest_in_the_bank_is_not_skipped() -> None:
    both = log(EVENTS, banks=(Hash.SHA1, SHA256))
    bare = Record(5, 0xD, ((int(Hash.SHA1), bytes(20)),), b"hidden", 99)
    hiding = replace(both, records=(*both.records, bare))
    assert replay(hiding, Hash.SHA1)
    with pytest.raises(VerifyError, match="record at offset 99 has no sha256 digest, want one"):
        replay(hiding, SHA256)


@pytest.mark.parametrize(
    ("registers", "why"),
    [
        ({}, "no register to compare with"),
        ({0: bytes(32)}, r"in pcr 0$"),
        ({0: REGISTERS[7], 7: REGISTERS[0]}, r"in pcr 0, pcr 7$"),
        (REGISTERS | {5: REGISTERS[7]}, r"in pcr 5$"),
        (REGISTERS | {5: b"\xff" * 32}, r"in pcr 5$"),
        (REGISTERS | {17: bytes(32)}, r"in pcr 17$"),
        ({0: REGISTERS[0][:-1]}, r"in pcr 0$"),
    ],
)
def test_registers_the_log_does_not_explain_are_named(registers: Mapping[int, bytes], why: str) -> None:
    with pytest.raises(VerifyError, match=why):
        confirmed(LOG, registers, SHA256)


def test_registers_never_extended_are_as_they_were_at_reset() -> None:
    assert len(confirmed(LOG, REGISTERS | {5: bytes(32), 17: b"\xff" * 32, 23: bytes(32)}, SHA256)) == 3


@pytest.mark.parametrize("drop", range(3))
def test_a_log_with_an_event_less_more_or_moved_is_refused(drop: int) -> None:
    events = list(EVENTS)
    del events[drop]
    for changed in (events, [*EVENTS, EVENTS[drop]], [EVENTS[2], *EVENTS[:2]]):
        with pytest.raises(VerifyError, match="replay differs"):
            confirmed(log(changed), REGISTERS, SHA256)


def test_events_of_registers_nobody_quoted_are_not_given_back() -> None:
    assert [event.register for event in confirmed(LOG, {7: REGISTERS[7]}, SHA256)] == [7]


def test_edited_event_data_is_dropped_although_the_replay_holds() -> None:
    edited = replace(LOG.records[1], event=b"v2")
    forged = replace(LOG, records=(LOG.records[0], edited, *LOG.records[2:]))
    events = confirmed(forged, REGISTERS, SHA256)
    assert [event.data for event in events] == [None, bytes(4), bytes(4)]


VARIABLE: Final = bytes(16) + (4).to_bytes(8, "little") + (3).to_bytes(8, "little") + b"B\0o\0o\0t\0" + b"abc"


@pytest.mark.parametrize(
    ("type", "event", "measured", "data"),
    [
        (0x80000002, VARIABLE, b"abc", b"abc"),
        (0x80000002, VARIABLE, VARIABLE, VARIABLE),
        (0x80000002, VARIABLE[:31], b"abc", None),
        (0x80000002, VARIABLE[:16] + b"\xff" * 16 + b"abc", b"abc", None),
        (0x80000001, VARIABLE, b"abc", None),
        (0xD, b"grub_cmd: set x=y\0", b"set x=y", b"set x=y"),
        (0xD, b"grub_cmd set x=y\0\x7f", b"set x=y", b"set x=y"),
        (0xD, b"text\0", b"text", b"text"),
        (0xD, b"text\0", b"text\0", b"text\0"),
        (0xD, b"/boot/grub.cfg\0", b"contents of the file", None),
        (0x6, b"grub_cmd: set x=y\0", b"set x=y", None),
    ],
)
def test_event_data_is_what_was_measured_or_nothing(
    type: int, event: bytes, measured: bytes, data: bytes | None
) -> None:
    entry = Record(8, type, ((int(SHA256), SHA256.digest(measured)),), event, 0)
    assert measured_data(entry, SHA256) == data


def test_every_entry_of_the_agent_s_register_has_to_be_one() -> None:
    entries = [AAELEntry("a.b", "pull", "x"), AAELEntry("a.b", "run", "y z")]
    written = log([(4, EV_EVENT_TAG, entry.pack()) for entry in entries], kind=LogKind.CC)
    registers = replay(written, SHA256)
    assert aael_entries(confirmed(written, registers, SHA256), 4) == tuple(entries)
    edited = replace(written.records[1], event=AAELEntry("a.b", "pull", "z").pack())
    forged = replace(written, records=(written.records[0], edited, written.records[2]))
    with pytest.raises(VerifyError, match="register 4 has an event that is no entry"):
        aael_entries(confirmed(forged, registers, SHA256), 4)
    other = log([(4, EV_EVENT_TAG, b"another tag")], kind=LogKind.CC)
    with pytest.raises(FormatError, match="aael entry: tag is"):
        aael_entries(confirmed(other, replay(other, SHA256), SHA256), 4)


def test_a_bank_of_no_known_hash_is_refused() -> None:
    odd = replace(LOG, algorithms=((0x12, 32),))
    with pytest.raises(VerifyError, match="banks are none we know, want sha256"):
        replay(odd, SHA256)
