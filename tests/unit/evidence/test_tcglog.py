"""Mirrors strongroom/evidence/tcglog.py."""

import json
from dataclasses import replace
from typing import Any, Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.tcglog import (
    EV_NO_ACTION,
    EV_SEPARATOR,
    MAX_BYTES,
    CCELTable,
    LogKind,
    Record,
    TCGLog,
    cc_register,
)
from strongroom.evidence.tpm import Hash
from tests import VECTORS
from tests.fakes.tpm import log, record

INDEX: Final = VECTORS / "index.json"
KINDS: Final = {"tpm-eventlog": LogKind.TPM, "ccel": LogKind.CC, "ccel-negative": LogKind.CC}
REAL: Final = [
    vector
    for vector in (json.loads(INDEX.read_text())["vectors"] if INDEX.exists() else [])
    if vector["kind"] in KINDS
]
BANKS: Final = (Hash.SHA1, Hash.SHA256)
LOG: Final = log([(0, 8, b"v1"), (7, EV_SEPARATOR, bytes(4)), (4, 0x80000007, b"ready")], banks=BANKS)
DATA: Final = LOG.pack()
CC_DATA: Final = log([(1, 4, bytes(4)), (3, 6, b"tag")], kind=LogKind.CC, banks=(Hash.SHA384,)).pack()
LEGACY: Final = replace(LOG, is_legacy=True, records=(record(0, 8, b"v1", banks=(Hash.SHA1,)),) * 3).pack()


@pytest.mark.skipif(not REAL, reason="no real vectors beside this checkout")
def test_all_real_logs_were_found() -> None:
    assert len(REAL) == 7


@pytest.mark.parametrize("vector", REAL, ids=lambda vector: vector["id"])
def test_a_real_log_gives_the_listed_facts_and_its_own_bytes(vector: dict[str, Any]) -> None:
    data, expect = (VECTORS / vector["files"]["log"]).read_bytes(), vector["expect"]
    parsed = TCGLog.parse(data, KINDS[vector["kind"]])
    assert (len(parsed.records), parsed.size) == (expect["entries"], expect["bytes_used"])
    assert [str(bank) for bank in parsed.banks] == [name.split()[0] for name in expect["algorithms"]]
    assert parsed.is_legacy is ("legacy" in expect["algorithms"][0])
    assert parsed.pack() == data[: parsed.size]


def test_a_real_table_says_where_the_area_is() -> None:
    folder = VECTORS / "tdx/v4-cos113-ccel"
    if not folder.exists():
        pytest.skip("no real vectors beside this checkout")
    data = (folder / "ccel_table.bin").read_bytes()
    table = CCELTable.parse(data)
    assert (table.cc_type, table.cc_subtype, table.log_address) == (2, 0, 0xBEDBF000)
    assert table.log_length == len((folder / "ccel_data.bin").read_bytes())
    for at in range(len(data)):
        with pytest.raises(FormatError, match="ccel table: "):
            CCELTable.parse(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])
        with pytest.raises(FormatError, match=f"got {at} bytes, want 56"):
            CCELTable.parse(data[:at])


@pytest.mark.parametrize(
    ("data", "kind"),
    [(DATA, LogKind.TPM), (LEGACY, LogKind.TPM), (CC_DATA, LogKind.CC)],
    ids=["new", "old", "cc"],
)
def test_a_log_is_read_to_its_last_byte(data: bytes, kind: LogKind) -> None:
    whole = TCGLog.parse(data, kind)
    assert whole.pack() == data
    ends = {record.offset for record in whole.records} - {0}
    for n in range(len(data)):
        if n in ends:  # a log has no length of its own: a shorter one is for the replay to notice
            assert TCGLog.parse(data[:n], kind).pack() == data[:n]
        else:
            with pytest.raises(FormatError, match="event log"):
                TCGLog.parse(data[:n], kind)


@pytest.mark.parametrize(
    ("data", "kind"),
    [(DATA, LogKind.TPM), (LEGACY, LogKind.TPM), (CC_DATA, LogKind.CC)],
    ids=["new", "old", "cc"],
)
def test_a_changed_bit_is_refused_or_kept(data: bytes, kind: LogKind) -> None:
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            parsed = TCGLog.parse(bytes(changed), kind)
        except FormatError as error:
            assert str(error).startswith("event log")  # noqa: PT017
        else:
            assert parsed.pack() == changed


@pytest.mark.parametrize("fill", [b"\xff", b"\0"])
@pytest.mark.parametrize("n", [8, 12, 4096])
def test_a_cc_area_may_be_filled_up(fill: bytes, n: int) -> None:
    parsed = TCGLog.parse(CC_DATA + n * fill, LogKind.CC)
    assert parsed.size == len(CC_DATA)
    assert len(parsed.records) == 3


@pytest.mark.parametrize(
    "filling", [b"\xff" * 8 + b"\0", b"\0" * 64 + b"\1", b"\xff" * 64 + CC_DATA, b"\0\xff" * 32]
)
def test_a_filling_of_anything_else_is_refused(filling: bytes) -> None:
    with pytest.raises(FormatError, match="event log"):
        TCGLog.parse(CC_DATA + filling, LogKind.CC)


@pytest.mark.parametrize("filling", [b"\xff" * 8, b"\xff" * 64, bytes(8), bytes(64)])
def test_a_tpm_log_is_never_filled_up(filling: bytes) -> None:
    with pytest.raises(FormatError, match="event log"):
        TCGLog.parse(DATA + filling, LogKind.TPM)


def test_what_a_cc_log_cannot_be() -> None:
    with pytest.raises(FormatError, match="first record is not a specification id"):
        TCGLog.parse(record_bytes(1, 4), LogKind.CC)
    for register in (0, 5, 23):
        bad = log([(register, 4, b"")], kind=LogKind.CC, banks=(Hash.SHA384,)).pack()
        with pytest.raises(FormatError, match=rf"register is {register} at offset \d+, want 1\.\.4"):
            TCGLog.parse(bad, LogKind.CC)


def test_a_pcr_beyond_the_last_is_refused() -> None:
    with pytest.raises(FormatError, match=r"register is 24 at offset \d+, want 0\.\.23"):
        TCGLog.parse(log([(24, 4, b"")]).pack(), LogKind.TPM)


def test_an_event_that_is_never_extended_may_name_no_register() -> None:
    parsed = TCGLog.parse(log([(0xFFFFFFFF, EV_NO_ACTION, b"")]).pack(), LogKind.TPM)
    assert not parsed.records[1].is_extended


@pytest.mark.parametrize(
    ("digests", "why"),
    [
        ((), "0 digests at offset"),
        (((0x04, bytes(20)),) * 2, "algorithm 0x4 at offset .* appears twice"),
        (((0x0C, bytes(48)),), "algorithm 0xc at offset .* is unannounced"),
        (((0x04, bytes(20)), (0x0B, bytes(32)), (0x04, bytes(20))), "3 digests at offset"),
    ],
)
def test_digests_are_as_announced(digests: tuple[tuple[int, bytes], ...], why: str) -> None:
    bad = replace(LOG, records=(*LOG.records, Record(0, 4, digests, b"", 0)))
    with pytest.raises(FormatError, match=why):
        TCGLog.parse(bad.pack(), LogKind.TPM)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((24, "00000000"), "0 algorithms"),
        ((24, "09000000"), "9 algorithms"),
        ((24, "01000000"), "4 bytes left at offset 33"),
        ((28, "04002100"), "algorithm 0x4 has digests of 33 bytes"),
        ((28, "12002100"), "algorithm 0x12 has digests of 33 bytes"),
        ((28, "77770000"), "algorithm 0x7777 has digests of 0 bytes"),
        ((28, "0b002000"), "an algorithm appears twice"),
        ((36, "01"), "0 bytes left at offset 37, want 1"),
    ],
)
def test_a_header_is_read_strictly(change: tuple[int, str], why: str) -> None:
    event = bytearray(LOG.records[0].event)
    at, new = change
    event[at : at + len(new) // 2] = bytes.fromhex(new)
    first = replace(LOG.records[0], event=bytes(event))
    with pytest.raises(FormatError, match=why):
        TCGLog.parse(replace(LOG, records=(first,)).pack(), LogKind.TPM)


def test_an_unknown_algorithm_is_skipped_over_by_its_announced_size() -> None:
    event = bytearray(LOG.records[0].event)
    event[28:32] = bytes.fromhex("77771100")
    first = replace(LOG.records[0], event=bytes(event))
    later = Record(0, 8, ((0x7777, bytes(17)), (0x0B, bytes(32))), b"", 0)
    parsed = TCGLog.parse(replace(LOG, records=(first, later)).pack(), LogKind.TPM)
    assert parsed.banks == (Hash.SHA256,)
    assert parsed.records[1].digest(Hash.SHA1) is None


def test_sizes_are_bounded() -> None:
    with pytest.raises(FormatError, match="want at most 1048576"):
        TCGLog.parse(bytes(MAX_BYTES + 1), LogKind.TPM)
    with pytest.raises(FormatError, match="more than 10000 records"):
        TCGLog.parse(record_bytes(0, 4) * 10_001, LogKind.TPM)
    huge = DATA[:-9] + b"\xff\xff\xff\xff" + b"ready"
    with pytest.raises(FormatError, match=r"5 bytes left at offset \d+, want 4294967295"):
        TCGLog.parse(huge, LogKind.TPM)


def test_firmware_maps_pcrs_to_cc_registers() -> None:
    assert [cc_register(pcr) for pcr in range(24)] == [0, 1, 2, 2, 2, 2, 2, 1, *[3] * 8, *[4] * 8]
    with pytest.raises(FormatError, match="pcr is 24"):
        cc_register(24)


def record_bytes(register: int, type: int) -> bytes:
    """A record in the old format."""
    return register.to_bytes(4, "little") + type.to_bytes(4, "little") + bytes(24)
