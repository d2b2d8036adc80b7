"""Mirrors demo/silicon/entries.py: what the kernel does, errno by errno."""

import errno
import os
from collections.abc import Callable

import pytest

from demo.silicon.entries import ATTRIBUTES, Attribute, Entries

INBLOB = bytes(range(64))


class Reports:
    """Counts the reports it makes and says what they were asked for."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, report_data: bytes, privlevel: int) -> tuple[bytes, bytes]:
        self.made += 1
        return b"%d:%d:" % (self.made, privlevel) + report_data, b"certificates"


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def entries(reports: Reports) -> Entries:
    made = Entries(reports)
    made.make("e")
    return made


def write(entries: Entries, name: str, value: bytes) -> None:
    file = entries.open("e", ATTRIBUTES[name], os.O_WRONLY)
    try:
        entries.write(file, value, 0)
    finally:
        entries.release(file)


def read(entries: Entries, name: str) -> bytes:
    file = entries.open("e", ATTRIBUTES[name], os.O_RDONLY)
    try:
        return entries.read(file, 4096, 0)
    finally:
        entries.release(file)


def refused(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        call()
    assert caught.value.errno == number


def test_a_report_is_made_when_it_is_read(entries: Entries, reports: Reports) -> None:
    write(entries, "inblob", INBLOB)
    assert reports.made == 0
    assert read(entries, "outblob") == b"1:0:" + INBLOB
    assert read(entries, "auxblob") == b"certificates"
    assert reports.made == 1


def test_what_does_not_change_is_there_from_the_start(entries: Entries) -> None:
    assert read(entries, "provider") == b"sev_guest\n"
    assert read(entries, "privlevel_floor") == b"0\n"
    assert read(entries, "generation") == b"0\n"


def test_the_generation_counts_every_store(entries: Entries) -> None:
    for count, (name, value) in enumerate([("inblob", INBLOB), ("privlevel", b"1"), ("inblob", INBLOB)], 1):
        write(entries, name, value)
        assert read(entries, "generation") == b"%d\n" % count
    read(entries, "outblob")
    assert read(entries, "generation") == b"3\n"


def test_a_store_makes_the_next_read_a_new_report(entries: Entries) -> None:
    write(entries, "inblob", INBLOB)
    assert read(entries, "outblob") == b"1:0:" + INBLOB
    write(entries, "privlevel", b"2")
    assert read(entries, "outblob") == b"2:2:" + INBLOB


def test_an_open_file_keeps_what_it_was_filled_with(entries: Entries) -> None:
    write(entries, "inblob", INBLOB)
    file = entries.open("e", Attribute.OUTBLOB, os.O_RDONLY)
    first = entries.read(file, 10, 0)
    write(entries, "inblob", bytes(64))
    assert first + entries.read(file, 4096, 10) == b"1:0:" + INBLOB


def test_inblob_is_stored_when_the_file_is_closed(entries: Entries) -> None:
    file = entries.open("e", Attribute.INBLOB, os.O_WRONLY)
    entries.write(file, INBLOB, 0)
    refused(errno.EINVAL, lambda: read(entries, "outblob"))
    entries.flush(file)
    assert read(entries, "outblob").endswith(INBLOB)
    entries.release(file)
    assert read(entries, "generation") == b"1\n"


def test_inblob_may_come_in_parts_of_one_open_file(entries: Entries) -> None:
    file = entries.open("e", Attribute.INBLOB, os.O_WRONLY)
    entries.write(file, INBLOB[32:], 32)
    entries.write(file, INBLOB[:32], 0)
    entries.release(file)
    assert read(entries, "outblob").endswith(INBLOB)


def test_without_an_inblob_there_is_no_report(entries: Entries) -> None:
    refused(errno.EINVAL, lambda: read(entries, "outblob"))
    refused(errno.EINVAL, lambda: read(entries, "auxblob"))


@pytest.mark.parametrize("size", [1, 32, 63])
def test_sev_guest_wants_64_bytes(entries: Entries, size: int) -> None:
    write(entries, "inblob", bytes(size))
    refused(errno.EINVAL, lambda: read(entries, "outblob"))


def test_more_than_64_bytes_do_not_fit_and_empty_the_inblob(entries: Entries) -> None:
    write(entries, "inblob", INBLOB)
    refused(errno.EFBIG, lambda: write(entries, "inblob", bytes(65)))
    refused(errno.EINVAL, lambda: read(entries, "outblob"))


@pytest.mark.parametrize(("text", "level"), [(b"3", 3), (b"0x2\n", 2), (b"01", 1), (b"+1", 1), (b"0\n", 0)])
def test_privlevel_is_a_number_as_the_kernel_reads_it(entries: Entries, text: bytes, level: int) -> None:
    write(entries, "inblob", INBLOB)
    write(entries, "privlevel", text)
    assert read(entries, "outblob").startswith(b"1:%d:" % level)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"4", errno.EINVAL),
        (b"", errno.EINVAL),
        (b"-1", errno.EINVAL),
        (b"1 ", errno.EINVAL),
        (b"1\n\n", errno.EINVAL),
        (b"09", errno.EINVAL),
        (b"0x", errno.EINVAL),
        (b"4294967296", errno.ERANGE),
        (b"1" * 5000, errno.ERANGE),
    ],
)
def test_a_privlevel_that_is_none_is_refused(entries: Entries, text: bytes, number: int) -> None:
    refused(number, lambda: write(entries, "privlevel", text))
    assert read(entries, "generation") == b"0\n"


@pytest.mark.parametrize("attribute", Attribute)
def test_an_attribute_has_one_direction_for_root_too(entries: Entries, attribute: Attribute) -> None:
    writable = attribute in (Attribute.INBLOB, Attribute.PRIVLEVEL)
    refused(errno.EACCES, lambda: entries.open("e", attribute, os.O_RDWR))
    refused(errno.EACCES, lambda: entries.open("e", attribute, os.O_RDONLY if writable else os.O_WRONLY))


def test_an_entry_is_made_once_and_dropped_once(entries: Entries) -> None:
    refused(errno.EEXIST, lambda: entries.make("e"))
    assert entries.names() == ["e"]
    entries.drop("e")
    refused(errno.ENOENT, lambda: entries.drop("e"))
    refused(errno.ENOENT, lambda: entries.open("e", Attribute.PROVIDER, os.O_RDONLY))
    assert entries.names() == []


def test_files_of_a_dropped_entry_are_dead(entries: Entries) -> None:
    write(entries, "inblob", INBLOB)
    outblob = entries.open("e", Attribute.OUTBLOB, os.O_RDONLY)
    inblob = entries.open("e", Attribute.INBLOB, os.O_WRONLY)
    privlevel = entries.open("e", Attribute.PRIVLEVEL, os.O_WRONLY)
    entries.write(inblob, INBLOB, 0)
    entries.drop("e")
    refused(errno.ENOENT, lambda: entries.read(outblob, 4096, 0))
    refused(errno.ENOENT, lambda: entries.write(privlevel, b"1", 0))
    entries.release(inblob)


def test_a_failed_report_is_tried_anew(reports: Reports) -> None:
    failures = [OSError(errno.EIO, "")]

    def sometimes(report_data: bytes, privlevel: int) -> tuple[bytes, bytes]:
        if failures:
            raise failures.pop()
        return reports(report_data, privlevel)

    entries = Entries(sometimes)
    entries.make("e")
    write(entries, "inblob", INBLOB)
    refused(errno.EIO, lambda: read(entries, "outblob"))
    assert read(entries, "outblob") == b"1:0:" + INBLOB
