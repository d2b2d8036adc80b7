"""The guest's AAEL file: an entry extends its register and is then appended, and a crash between the two is mended.

    eventlog            records, see strongroom.evidence.aael
    .wal_event_entry    BE64 offset in eventlog, the value the register is about to have, the entry's line

The second file is there, whole, before the register is touched, and goes when the entry is in the first. So whatever
was interrupted is finished by whoever opens the log next, once and not twice. An entry that is there already is not
added again. A register that holds anything but what the file explains ends it: somebody else extended it.
"""

import os
from pathlib import Path
from typing import Final, Protocol, Self

from guest.machine.tpm import opened
from strongroom.errors import FormatError, MachineError, PolicyError
from strongroom.evidence.aael import MAX_BYTES, AAELEntry, AAELRecord, parse_records, replayed
from strongroom.evidence.tpm import Hash

DIRECTORY: Final = Path("/run/strongroom/aael")
LOG: Final = "eventlog"
WRITE_AHEAD: Final = ".wal_event_entry"
PCR: Final = 23  # resettable by who may use the TPM: PCR 15 says the same of our own log, and is not
MAX_RECORDS: Final = 512
_OFFSET: Final = 8  # bytes


class Register(Protocol):
    """What takes the digests of the log, and of nothing else."""

    @property
    def index(self) -> int: ...
    @property
    def bank(self) -> Hash: ...
    def read(self) -> bytes: ...
    def extend(self, digest: bytes) -> None: ...


class PCRRegister:
    """A PCR (SHA-256 bank) of the TPM at `path`. Blocking; MachineError."""

    bank: Final = Hash.SHA256

    def __init__(self, path: Path, index: int = PCR) -> None:
        self._path, self.index = path, index

    def read(self) -> bytes:
        with opened(self._path) as tpm:
            return tpm.read(self.index)

    def extend(self, digest: bytes) -> None:
        with opened(self._path) as tpm:
            tpm.extend(self.index, digest)


class AAELLog:
    """The log in one directory, written by one process. Blocking; after an error, open it anew."""

    def __init__(self, directory: Path, register: Register) -> None:
        self._log, self._ahead, self._register = directory / LOG, directory / WRITE_AHEAD, register
        self._records: tuple[AAELRecord, ...] = ()

    @classmethod
    def open(cls, directory: Path, register: Register) -> Self:
        """The log, with what was interrupted finished. MachineError where file and register do not agree."""
        log = cls(directory, register)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            log._finish()
            log._load()
        except OSError as error:
            raise _failure(error) from error
        except FormatError as error:
            raise MachineError(f"aael: {error}") from None
        return log

    @property
    def records(self) -> tuple[AAELRecord, ...]:
        return self._records

    def append(self, entry: AAELEntry) -> bool:
        """Whether the entry was new. It is in register and file when this returns."""
        record = AAELRecord(self._register.index, self._register.bank, entry)
        if record in self._records:
            return False
        size = sum(len(known.pack()) for known in self._records)
        if len(self._records) >= MAX_RECORDS or size + len(record.pack()) > MAX_BYTES:
            raise PolicyError(
                f"aael: {len(self._records)} entries of {size} bytes, there is no room for more"
            )
        try:
            self._write_ahead(size, self._after(self._check(), record), entry)
            self._finish()
        except OSError as error:
            raise _failure(error) from error
        self._records += (record,)
        return True

    def _load(self) -> None:
        data = self._log.read_bytes() if self._log.exists() else b""
        records = parse_records(data)
        for record in records:
            if (record.register, record.bank) != (self._register.index, self._register.bank):
                raise MachineError(
                    f"aael: an entry is of register {record.register} ({record.bank}), "
                    f"want {self._register.index} ({self._register.bank})"
                )
        self._records = records
        self._check()

    def _check(self) -> bytes:
        """The register's value, which is what the records make of it."""
        found, wanted = self._register.read(), replayed(self._records, self._register.bank)
        if found != wanted:
            raise MachineError(
                f"aael: register {self._register.index} is {found.hex()}, want {wanted.hex()}: "
                "something else extended it"
            )
        return found

    def _after(self, value: bytes, record: AAELRecord) -> bytes:
        return self._register.bank.digest(value + record.digest)

    def _write_ahead(self, offset: int, expected: bytes, entry: AAELEntry) -> None:
        new = self._ahead.with_suffix(".new")
        _write(new, offset.to_bytes(_OFFSET, "big") + expected + entry.line, at=0)
        new.replace(self._ahead)  # whole, or not there

    def _finish(self) -> None:
        """Do what is left to do of the entry that was written ahead, if there is one."""
        if not self._ahead.exists():
            return
        offset, expected, entry = self._read_ahead()
        record = AAELRecord(self._register.index, self._register.bank, entry)
        if (value := self._register.read()) != expected:
            if self._after(value, record) != expected:
                raise MachineError(
                    f"aael: register {self._register.index} is {value.hex()}, and neither before nor after "
                    "the entry that was begun: something else extended it"
                )
            self._register.extend(record.digest)
            if self._register.read() != expected:
                raise MachineError(f"aael: register {self._register.index} did not take an entry's digest")
        _write(self._log, record.pack(), at=offset)
        self._ahead.unlink()

    def _read_ahead(self) -> tuple[int, bytes, AAELEntry]:
        data, size = self._ahead.read_bytes(), self._register.bank.size
        if len(data) > MAX_BYTES or len(data) < _OFFSET + size:
            raise FormatError(f"entry written ahead has {len(data)} bytes, want more than {_OFFSET + size}")
        offset = int.from_bytes(data[:_OFFSET], "big")
        length = self._log.stat().st_size if self._log.exists() else 0
        if offset > length:
            raise FormatError(f"entry written ahead is for offset {offset} of {length} bytes")
        return offset, data[_OFFSET : _OFFSET + size], AAELEntry.of_line(data[_OFFSET + size :])


def _write(path: Path, data: bytes, *, at: int) -> None:
    """All of `data` at this offset, and nothing behind it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.truncate(at)
        stream.seek(at)
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _failure(error: OSError) -> MachineError:
    return MachineError(f"aael: {(error.strerror or 'failed').lower()}")
