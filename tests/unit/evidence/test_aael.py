"""Mirrors strongroom/evidence/aael.py."""

import hashlib
from typing import Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.aael import (
    END,
    HEADER,
    AAELEntry,
    AAELRecord,
    entry_of,
    parse_records,
    records_of,
    replayed,
    whole_log,
)
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.tcglog import LogKind, TCGLog
from strongroom.evidence.tpm import Hash
from strongroom.verify.tcglog import aael_entries, confirmed, replay
from tests import VECTORS

ENTRY: Final = AAELEntry("github.com/confidential-containers", "PullImage", '{"image": "a b"}')
DATA: Final = ENTRY.pack()


def test_an_entry_has_the_published_form() -> None:
    assert DATA[:4] == bytes.fromhex("4c454141")
    assert int.from_bytes(DATA[4:8], "little") == len(DATA) - 8
    assert AAELEntry.parse(DATA) == ENTRY


def test_no_other_length_parses() -> None:
    for n in range(len(DATA)):
        with pytest.raises(FormatError, match="aael entry"):
            AAELEntry.parse(DATA[:n])
    with pytest.raises(FormatError, match="1 bytes left over"):
        AAELEntry.parse(DATA + b"\0")


def test_a_changed_bit_is_refused_or_kept() -> None:
    for bit in range(8 * len(DATA)):
        changed = bytearray(DATA)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert AAELEntry.parse(bytes(changed)).pack() == changed
        except FormatError as error:
            assert str(error).startswith("aael entry")  # noqa: PT017


@pytest.mark.parametrize(
    "text", [b"", b"a", b"a b", b" a b", b"a  b", b"a b c\nd e f", b"\xff a b", b"a\tb c d"]
)
def test_other_shapes_are_refused(text: bytes) -> None:
    with pytest.raises(FormatError, match="aael entry"):
        AAELEntry.parse(DATA[:4] + len(text).to_bytes(4, "little") + text)


def test_content_is_bounded() -> None:
    with pytest.raises(FormatError, match="at most 65536 bytes"):
        AAELEntry("a", "b", "c" * 65537)


# The two entries at the end of a log of a TDX guest, published as test data of an event log parser.
PUBLISHED: Final = (
    (
        AAELEntry("coco.com", "some-operation", "some-content"),
        "2330183d89750c6a374ac9827d33a33636e7876733544584c8ccc88df0df87eada37e5d71d0773502234c2b5fbc7448e",
    ),
    (
        AAELEntry("coco.com", "some-operation", '{"key": "value", "nested-key": {"sub-key": "value"}}'),
        "82b3e7dd09cbe55777a6eeed67614e9e5a25508ec1cd03ecbfbe10c913fa76ed451fbc275babc6a01a8e5c08e853419b",
    ),
)
RECORDS: Final = tuple(AAELRecord(4, Hash.SHA384, entry) for entry, _ in PUBLISHED)
LOG: Final = b"".join(record.pack() for record in RECORDS)


def test_the_published_entries_have_the_published_digests() -> None:
    for record, (_, digest) in zip(RECORDS, PUBLISHED, strict=True):
        assert record.digest.hex() == digest


def test_a_record_has_the_published_form() -> None:
    data = PUBLISHED[0][0].pack()
    fixed = bytes.fromhex("04000000 06000000 01000000 0c00")
    assert RECORDS[0].pack() == fixed + bytes.fromhex(PUBLISHED[0][1]) + bytes((len(data), 0, 0, 0)) + data
    assert data[4:8] == bytes((len(data) - 8, 0, 0, 0))


def test_the_end_of_a_real_log_is_what_we_write() -> None:
    path = VECTORS / "tpm/ccel-aael-alibaba/ccel.bin"
    if not path.exists():
        pytest.skip("the real logs are not beside this checkout")
    data = path.read_bytes()
    assert data.endswith(LOG + END)
    assert parse_records(data[-len(LOG + END) : -len(END)]) == RECORDS
    assert whole_log(data[: -len(LOG + END)], LOG) == data
    assert whole_log(data[: -len(LOG + END)] + b"\xff" * 4096, LOG) == data


def test_without_a_ccel_the_published_header_comes_first() -> None:
    assert len(HEADER) == 69
    assert HEADER[:8] == bytes.fromhex("0000000003000000") and HEADER[28] == 0x25
    assert HEADER[-13:] == bytes.fromhex("020000000c0030001200200000")
    assert whole_log(b"", LOG) == HEADER + LOG + END


@pytest.mark.parametrize("bank", [Hash.SHA256, Hash.SHA384, Hash.SHA512])
def test_records_come_back_in_every_bank_and_replay(bank: Hash) -> None:
    records = tuple(AAELRecord(23, bank, entry) for entry, _ in PUBLISHED)
    assert parse_records(b"".join(record.pack() for record in records)) == records
    value = bytes(bank.size)
    for record in records:
        assert record.digest == hashlib.new(str(bank), record.entry.pack()).digest()
        value = hashlib.new(str(bank), value + record.digest).digest()
    assert replayed(records, bank) == value
    assert replayed((), bank) == bytes(bank.size)


def test_a_log_cut_inside_a_record_is_refused() -> None:
    first = len(RECORDS[0].pack())
    for n in range(len(LOG)):
        if n in (0, first):
            assert len(parse_records(LOG[:n])) == n // first
            continue
        with pytest.raises(FormatError, match="aael"):
            parse_records(LOG[:n])


def test_every_changed_bit_of_a_log_is_refused_but_those_of_the_register() -> None:
    starts = {0, len(RECORDS[0].pack())}
    for bit in range(8 * len(LOG)):
        changed = bytearray(LOG)
        changed[bit // 8] ^= 1 << bit % 8
        if any(start <= bit // 8 < start + 4 for start in starts):
            try:
                assert parse_records(bytes(changed)) != RECORDS
            except FormatError as error:
                assert "want a PCR" in str(error)  # noqa: PT017
            continue
        with pytest.raises(FormatError, match="aael"):
            parse_records(bytes(changed))


@pytest.mark.parametrize(
    ("register", "bank"), [(24, Hash.SHA384), (-1, Hash.SHA384), (4, Hash.SHA1)], ids=range(3)
)
def test_another_register_or_bank_is_refused(register: int, bank: Hash) -> None:
    with pytest.raises(FormatError, match="want a PCR and SHA-2"):
        AAELRecord(register, bank, ENTRY)


def test_a_log_is_bounded() -> None:
    with pytest.raises(FormatError, match="want at most 1048576"):
        parse_records(bytes((1 << 20) + 1))


OURS: Final = EventLog(
    (Event("userdata", bytes(range(32))), Event("engine", b'{"name":"vllm"}'), Event("boot-done", b"{}"))
)


def test_our_own_log_replays_to_its_head_as_records_of_a_ccel() -> None:
    firmware = TCGLog.parse(_firmware(), LogKind.CC).pack()
    whole = TCGLog.parse(whole_log(firmware, records_of(OURS)), LogKind.CC)
    registers = {4: replay(whole, Hash.SHA384)[4]}
    assert registers[4] == OURS.head
    assert [event.data for event in confirmed(whole, registers, Hash.SHA384)] == [
        event.measured for event in OURS.events
    ]


def test_an_entry_in_a_ccel_is_confirmed_by_its_digest() -> None:
    whole = TCGLog.parse(whole_log(_firmware(), LOG), LogKind.CC)
    registers = {4: replay(whole, Hash.SHA384)[4]}
    assert registers[4] == replayed(RECORDS, Hash.SHA384)
    assert aael_entries(confirmed(whole, registers, Hash.SHA384), 4) == tuple(e for e, _ in PUBLISHED)


def _firmware() -> bytes:
    """A CCEL of one record that announces SHA-384, and its filling."""
    event = b"Spec ID Event03\0" + bytes(8) + bytes.fromhex("01000000 0c003000 00")
    head = bytes(4) + b"\3\0\0\0" + bytes(20) + len(event).to_bytes(4, "little")
    return head + event + b"\xff" * 64


@pytest.mark.parametrize(
    ("payload", "content"),
    [
        (b'{"name":"vllm"}', '{"name":"vllm"}'),
        (bytes(range(3)), '{"base64url":"AAEC"}'),
        (b"{\xff", '{"base64url":"e_8"}'),
        (
            b'{"a":"\xe2\x80\xae"}',
            '{"base64url":"eyJhIjoi4oCuIn0"}',
        ),  # a direction mark, which no line may hold
    ],
)
def test_an_event_of_ours_as_an_entry(payload: bytes, content: str) -> None:
    assert entry_of(Event("engine", payload)) == AAELEntry("strongroom", "engine", content)
