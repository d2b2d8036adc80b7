"""Mirrors guest/aael.py: a register in memory, and a crash at every step; one test on a software TPM."""

import shutil
from pathlib import Path
from typing import Final

import pytest

from demo.silicon.vtpm import vtpm
from guest import aael
from guest.aael import LOG, MAX_RECORDS, WRITE_AHEAD, AAELLog, PCRRegister
from strongroom.errors import FormatError, MachineError, PolicyError
from strongroom.evidence.aael import AAELEntry, AAELRecord, parse_records, replayed
from strongroom.evidence.tpm import Hash
from tests import need

ENTRIES: Final = tuple(AAELEntry("strongroom", f"step-{n}", f'{{"n":{n}}}') for n in range(3))


class CrashError(Exception):
    """The process ends here."""


class Memory:
    """A register that can be made to end the process before or after it was extended."""

    index, bank = 23, Hash.SHA256

    def __init__(self) -> None:
        self.value = bytes(32)
        self.extended = 0
        self.crash = ""

    def read(self) -> bytes:
        return self.value

    def extend(self, digest: bytes) -> None:
        if self.crash == "before extend":
            raise CrashError
        self.value = self.bank.digest(self.value + digest)
        self.extended += 1
        if self.crash == "after extend":
            raise CrashError


def records(*entries: AAELEntry) -> tuple[AAELRecord, ...]:
    return tuple(AAELRecord(23, Hash.SHA256, entry) for entry in entries)


def test_entries_are_in_register_and_file(tmp_path: Path) -> None:
    register = Memory()
    log = AAELLog.open(tmp_path / "new", register)
    assert log.records == () and log.append(ENTRIES[0]) and log.append(ENTRIES[1])
    assert log.records == parse_records((tmp_path / "new" / LOG).read_bytes()) == records(*ENTRIES[:2])
    assert register.value == replayed(log.records, Hash.SHA256)
    assert not (tmp_path / "new" / WRITE_AHEAD).exists()


def test_an_entry_that_is_there_is_not_added_again(tmp_path: Path) -> None:
    register = Memory()
    log = AAELLog.open(tmp_path, register)
    assert [log.append(entry) for entry in (*ENTRIES, *ENTRIES)] == [True] * 3 + [False] * 3
    again = AAELLog.open(tmp_path, register)
    assert again.records == log.records and not again.append(ENTRIES[1])
    assert register.extended == 3


@pytest.mark.parametrize("moment", ["before extend", "after extend", "in the file", "after the file"])
def test_a_crash_is_mended_once(tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    register = Memory()
    log = AAELLog.open(tmp_path, register)
    log.append(ENTRIES[0])
    register.crash = moment
    write = aael._write

    def torn(path: Path, data: bytes, *, at: int) -> None:
        if path.name != LOG or "file" not in moment:
            return write(path, data, at=at)
        write(path, data[:20] if moment == "in the file" else data, at=at)
        raise CrashError

    monkeypatch.setattr(aael, "_write", torn)
    with pytest.raises(CrashError):
        log.append(ENTRIES[1])
    monkeypatch.undo()
    register.crash = ""
    mended = AAELLog.open(tmp_path, register)
    assert mended.records == records(*ENTRIES[:2]) and register.extended == 2
    assert register.value == replayed(mended.records, Hash.SHA256)
    assert mended.append(ENTRIES[2]) and not (tmp_path / WRITE_AHEAD).exists()


def test_a_crash_before_anything_is_written_ahead_leaves_nothing(tmp_path: Path) -> None:
    register = Memory()
    AAELLog.open(tmp_path, register).append(ENTRIES[0])
    (tmp_path / WRITE_AHEAD).with_suffix(".new").write_bytes(b"torn")
    assert AAELLog.open(tmp_path, register).records == records(ENTRIES[0])


def test_a_register_that_somebody_else_extended_ends_it(tmp_path: Path) -> None:
    register = Memory()
    log = AAELLog.open(tmp_path, register)
    log.append(ENTRIES[0])
    register.extend(bytes(32))
    for attempt in (lambda: log.append(ENTRIES[1]), lambda: AAELLog.open(tmp_path, register)):
        with pytest.raises(MachineError, match=r"register 23 is .* something else extended it"):
            attempt()


def test_a_register_extended_while_an_entry_was_begun_ends_it(tmp_path: Path) -> None:
    register = Memory()
    log = AAELLog.open(tmp_path, register)
    register.crash = "before extend"
    with pytest.raises(CrashError):
        log.append(ENTRIES[0])
    register.crash = ""
    register.extend(bytes(32))
    with pytest.raises(MachineError, match="neither before nor after the entry that was begun"):
        AAELLog.open(tmp_path, register)


def test_a_register_that_takes_nothing_is_noticed(tmp_path: Path) -> None:
    class Deaf(Memory):
        def extend(self, digest: bytes) -> None:
            self.extended += 1

    with pytest.raises(MachineError, match="did not take an entry's digest"):
        AAELLog.open(tmp_path, Deaf()).append(ENTRIES[0])


def test_every_changed_byte_of_the_file_is_noticed(tmp_path: Path) -> None:
    register = Memory()
    log = AAELLog.open(tmp_path, register)
    for entry in ENTRIES:
        log.append(entry)
    whole = (tmp_path / LOG).read_bytes()
    for n in range(len(whole)):
        for changed in (whole[:n], whole[:n] + bytes((whole[n] ^ 1,)) + whole[n + 1 :]):
            (tmp_path / LOG).write_bytes(changed)
            with pytest.raises(MachineError, match="aael"):
                AAELLog.open(tmp_path, register)


@pytest.mark.parametrize(
    "ahead",
    [
        b"",
        bytes(39),
        (1 << 40).to_bytes(8, "big") + bytes(32) + b"a b c",
        bytes(40) + b"a b",
        bytes(40) + b"a b c\nd",
        bytes(40) + b"\xff b c",
        bytes(40) + b"a b c",
    ],
)
def test_an_entry_written_ahead_that_cannot_be_is_refused(tmp_path: Path, ahead: bytes) -> None:
    (tmp_path / WRITE_AHEAD).write_bytes(ahead)
    register = Memory()
    with pytest.raises(MachineError, match="aael"):
        AAELLog.open(tmp_path, register)
    assert not register.extended


def test_the_log_of_another_register_is_refused(tmp_path: Path) -> None:
    (tmp_path / LOG).write_bytes(AAELRecord(16, Hash.SHA256, ENTRIES[0]).pack())
    with pytest.raises(MachineError, match=r"entry is of register 16 \(sha256\), want 23"):
        AAELLog.open(tmp_path, Memory())


def test_the_log_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aael, "MAX_RECORDS", 2)
    log = AAELLog.open(tmp_path, Memory())
    assert log.append(ENTRIES[0]) and log.append(ENTRIES[1])
    with pytest.raises(PolicyError, match="no room for more"):
        log.append(ENTRIES[2])
    assert MAX_RECORDS == 512


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MachineError, match=r"aael: (not a directory|file exists)"):
        AAELLog.open(tmp_path / "file", Memory())


def test_another_line_is_no_entry() -> None:
    with pytest.raises(FormatError, match="aael entry"):
        AAELEntry.of_line(b"one")


def test_a_real_register_follows_the_log(tmp_path: Path, socket_dir: Path) -> None:
    need(shutil.which("swtpm"), "there is no swtpm")
    with vtpm(socket_dir) as path:
        log = AAELLog.open(tmp_path, PCRRegister(path))
        for entry in ENTRIES:
            assert log.append(entry)
        assert PCRRegister(path).read() == replayed(records(*ENTRIES), Hash.SHA256)
        assert AAELLog.open(tmp_path, PCRRegister(path)).records == log.records
        PCRRegister(path).extend(bytes(32))
        with pytest.raises(MachineError, match="something else extended it"):
            AAELLog.open(tmp_path, PCRRegister(path))
