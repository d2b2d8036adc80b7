"""Mirrors strongroom/sealed/journal.py."""

import pytest

from strongroom.errors import FormatError, VerifyError
from strongroom.sealed.journal import MAX_RECORD, Begun, Finished, Journal, JournalWriter, Record
from strongroom.sealed.manifest import INLINE_BELOW, SealedFile

KEY, SALT = bytes(range(32)), b"salt" * 8


def finished(number: int) -> Finished:
    one = bytes([number])
    file = SealedFile(
        path=f"file-{number}",
        mode=0o644,
        mtime=7,
        nanos=9,
        size=INLINE_BELOW,
        object_id=one * 16,
        key=one * 32,
    )
    return Finished(file, one * 32)


RECORDS: tuple[Record, ...] = (
    Begun(b"\1" * 16),
    finished(1),
    Begun(b"\2" * 16),
    finished(3),
    Begun(b"\4" * 16),
)


def packed(*records: Record) -> list[bytes]:
    """The header, then each record."""
    writer = JournalWriter(model_key=KEY, salt=SALT, chunk_log2=17)
    return [writer.header, *map(writer.pack, records)]


GOOD = b"".join(packed(*RECORDS))


def test_round_trip() -> None:
    journal = Journal.parse(GOOD, model_key=KEY)
    assert journal.records == RECORDS and journal.chunk_log2 == 17
    assert journal.finished == (finished(1), finished(3))
    assert journal.object_ids == {b"\1" * 16, b"\2" * 16, b"\3" * 16, b"\4" * 16}
    assert journal.finished[0].file.sha256 is None


def test_what_stands_before_a_cut_holds() -> None:
    parts = packed(*RECORDS)
    ends = [sum(map(len, parts[:n])) for n in range(1, len(parts) + 1)]
    for length in range(len(GOOD)):
        whole = sum(end <= length for end in ends[1:])
        assert Journal.parse(GOOD[:length], model_key=KEY).records == RECORDS[:whole]


def test_nothing_behind_a_change_is_believed() -> None:
    parts = packed(*RECORDS)
    start = len(parts[0])
    for position in range(start, len(GOOD)):
        data = bytearray(GOOD)
        data[position] ^= 1 << position % 8
        kept = Journal.parse(bytes(data), model_key=KEY).records
        before = sum(position >= sum(map(len, parts[: n + 1])) for n in range(1, len(parts)))
        assert kept == RECORDS[:before]


def test_every_changed_byte_of_the_header_is_refused() -> None:
    for position in range(80):
        data = bytearray(GOOD)
        data[position] ^= 1 << position % 8
        if position == 10:  # the size of chunks: authenticated with every record
            assert Journal.parse(bytes(data), model_key=KEY).records == ()
            continue
        with pytest.raises((FormatError, VerifyError), match=r"^journal: "):
            Journal.parse(bytes(data), model_key=KEY)


def test_records_stand_in_their_order_or_not_at_all() -> None:
    header, one, two, *_ = packed(*RECORDS)
    assert Journal.parse(header + two + one, model_key=KEY).records == ()
    assert Journal.parse(header + one + one, model_key=KEY).records == RECORDS[:1]


def test_another_key_reads_nothing() -> None:
    with pytest.raises(VerifyError, match="journal: key commitment does not match"):
        Journal.parse(GOOD, model_key=bytes(32))


@pytest.mark.guarantee("G11")
def test_it_shows_neither_keys_nor_names() -> None:
    assert b"file-" not in GOOD and bytes([1]) * 32 not in GOOD
    assert "01010101" not in repr(Journal.parse(GOOD, model_key=KEY)) and "key" not in repr(finished(1))


def test_it_is_read_record_by_record_and_not_behind_its_end() -> None:
    parts = packed(*RECORDS)
    asked: list[int] = []
    rest = memoryview(b"".join(parts[:3]) + b"\0\0\0\x20" + bytes(1 << 20))

    def read(size: int) -> bytes:
        nonlocal rest
        asked.append(size)
        piece, rest = bytes(rest[:size]), rest[size:]
        return piece

    assert Journal.read(read, model_key=KEY).records == RECORDS[:2]
    assert asked == [80, 4, len(parts[1]) - 4, 4, len(parts[2]) - 4, 4, 32]
    asked.clear()
    rest = memoryview(parts[0] + (MAX_RECORD + 1).to_bytes(4, "big") + bytes(100))
    assert Journal.read(read, model_key=KEY).records == ()
    assert asked == [80, 4]


def test_what_is_no_journal_is_not_read() -> None:
    asked: list[int] = []

    def read(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    with pytest.raises(FormatError, match="journal: magic is 0000000000000000"):
        Journal.read(read, model_key=KEY)
    assert asked == [80]
