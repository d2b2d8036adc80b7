"""Attestation reports through the kernel's configfs-tsm, known by its path alone.

One request is one entry: mkdir a random name, write the options and `inblob`, read `outblob` and `auxblob`,
rmdir. `generation` is read before and after: configfs stores a binary attribute when its file is closed and
drops errors there, so only the generation tells that our writes, and nobody else's, made this report.

Source: Linux Documentation/ABI/testing/configfs-tsm-report.
"""

import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from strongroom.errors import FormatError, MachineError
from strongroom.evidence.bundle import TEEKind
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.tdx import TDXQuote

ROOT: Final = Path("/sys/kernel/config/tsm/report")
PROVIDERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {  # how each one's report says its report_data
    "sev_guest": lambda blob: SNPReport.parse(blob).report_data,
    "tdx_guest": lambda blob: TDXQuote.parse(blob).body.report_data,
}
_TEES: Final[Mapping[str, TEEKind]] = {
    "sev_guest": "snp",
    "tdx_guest": "tdx",
    "azure_snp": "azure-snp",  # not the kernel's: reports of a paravisor
    "azure_tdx": "azure-tdx",
}
REPORT_DATA_SIZE: Final = 64
MAX_BLOB: Final = 64 << 10  # bytes; the kernel's own limit for a report and its certificates is 32 KiB
_MAX_TEXT: Final = 4096  # bytes, a page: the kernel's limit for a text attribute
_PAUSE: Final = 0.05  # seconds between attempts
_PASSING: Final = {errno.EBUSY, errno.EINTR, errno.EAGAIN}
_SENTENCES: Final = {
    errno.ENXIO: "no attestation provider is bound, want a confidential VM with its guest driver loaded",
    errno.EFBIG: "report or certificates are larger than the kernel's limit",
    errno.EINVAL: "request refused by the kernel as invalid",
    errno.EACCES: "permission denied, want root",
    errno.EPERM: "not permitted, want root",
    errno.ENOTTY: "guest driver is disabled, its keys were withdrawn",
    errno.ETIMEDOUT: "the host did not answer in time",
}


@dataclass(frozen=True, slots=True)
class TSMReport:
    outblob: bytes  # the report as the TEE signed it
    auxblob: bytes  # the host's certificate table: hints, possibly empty; a quote brings its own and has none
    provider: str

    @property
    def tee(self) -> TEEKind:
        return _TEES[self.provider]


class Silicon(Protocol):
    """Whatever makes reports here: configfs-tsm, or a device on kernels without it."""

    def report(self, report_data: bytes, *, privlevel: int | None = None) -> TSMReport: ...


class _MovedError(Exception):
    """The entry's generation is not what our own writes account for."""


class TSM:
    """The report directory. Blocking, and safe from several threads: no two requests share an entry."""

    def __init__(
        self,
        root: Path = ROOT,
        *,
        deadline: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._root = root
        self._deadline = deadline  # seconds for one report, attempts and pauses together
        self._clock = clock
        self._sleep = sleep

    def report(self, report_data: bytes, *, privlevel: int | None = None) -> TSMReport:
        """A fresh report over exactly `report_data` (64 bytes), from VMPL `privlevel` where given.

        Only a busy or interrupted provider is asked again, until the deadline. Raises MachineError.
        """
        if len(report_data) != REPORT_DATA_SIZE:
            raise MachineError(f"tsm: report_data is {len(report_data)} bytes, want {REPORT_DATA_SIZE}")
        until = self._clock() + self._deadline
        while True:
            try:
                return self._attempt(report_data, privlevel)
            except _MovedError as moved:
                reason = str(moved)
            except OSError as error:
                if error.errno not in _PASSING:
                    raise MachineError(f"tsm: {self._sentence(error)}") from error
                reason = (error.strerror or "busy").lower()
            if self._clock() + _PAUSE > until:
                raise MachineError(f"tsm: {reason}, and no report within {self._deadline:g} s")
            self._sleep(_PAUSE)

    def _attempt(self, report_data: bytes, privlevel: int | None) -> TSMReport:
        entry = self._root / f"strongroom-{secrets.token_hex(8)}"
        os.mkdir(entry)
        try:
            return self._filled(entry, report_data, privlevel)
        finally:
            with suppress(OSError):  # an entry left behind must not hide a report or its failure
                os.rmdir(entry)

    def _filled(self, entry: Path, report_data: bytes, privlevel: int | None) -> TSMReport:
        provider = _text(entry / "provider")
        if provider not in PROVIDERS:
            raise MachineError(f"tsm: provider is {provider!r}, want one of {', '.join(PROVIDERS)}")
        if privlevel is not None and provider != "sev_guest":
            raise MachineError(f"tsm: provider {provider} has no privilege levels, want none asked for")
        before, writes = _generation(entry), 1
        if privlevel is not None:
            _write(entry / "privlevel", str(privlevel).encode())
            writes += 1
        _write(entry / "inblob", report_data)
        outblob, auxblob = _read(entry / "outblob", MAX_BLOB), self._auxblob(entry)
        after = _generation(entry)
        if after != before + writes:
            raise _MovedError(f"generation went from {before} to {after}, want {before + writes}")
        check(outblob, report_data, provider)
        return TSMReport(outblob, auxblob, provider)

    def _auxblob(self, entry: Path) -> bytes:
        try:
            return _read(entry / "auxblob", MAX_BLOB)
        except FileNotFoundError:
            return b""  # a provider without certificates need not show the attribute

    def _sentence(self, error: OSError) -> str:
        if error.errno == errno.ENOENT and not self._root.is_dir():
            return f"{self._root} is missing, want configfs mounted on a confidential VM"
        reason = _SENTENCES.get(error.errno or 0, (error.strerror or "failed").lower())
        attribute = Path(os.fsdecode(error.filename)).name if error.filename is not None else "entry"
        return f"{'entry' if attribute.startswith('strongroom-') else attribute}: {reason}"


def check(outblob: bytes, report_data: bytes, provider: str) -> None:
    """Raises MachineError unless this is a provider's report over `report_data`."""
    try:
        found = PROVIDERS[provider](outblob)
    except FormatError as error:
        raise MachineError(f"tsm: outblob is no report: {error}") from error
    if found != report_data:
        raise MachineError("tsm: report speaks for other report_data than was written")


def _generation(entry: Path) -> int:
    text = _text(entry / "generation")
    if not text.isascii() or not text.isdigit():
        raise MachineError(f"tsm: generation is {text!r}, want a number")
    return int(text)


def _text(path: Path) -> str:
    return _read(path, _MAX_TEXT).decode("utf-8", "backslashreplace").removesuffix("\n")


def _write(path: Path, value: bytes) -> None:
    with _naming(path), _opened(path, os.O_WRONLY) as file:
        written = os.write(file, value)  # one write: the kernel takes no second
    if written != len(value):
        raise MachineError(f"tsm: {path.name} took {written} bytes, want {len(value)}")


def _read(path: Path, cap: int) -> bytes:
    contents = bytearray()
    with _naming(path), _opened(path, os.O_RDONLY) as file:
        while piece := os.read(file, cap):
            contents += piece
            if len(contents) > cap:
                raise MachineError(f"tsm: {path.name} is larger than {cap} bytes")
    return bytes(contents)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = os.fspath(path)  # read and write do not say it, open does
        raise
