"""NVSwitches through the driver's own query library: how they are protected, and their evidence.

The only module that knows libnvidia-nscq. It states what the library says; what may be accepted is decided in
guest/gpus.py. The library has to be of the driver's version: one of another opens its session with a warning at best,
and has nothing to say of any switch then.

    /drv/nvswitch/{device}/uuid            every switch
    /<label>/id/arch                       2 is LS10, the one that can be attested
    /<label>/config/pcie_mode              Protection
    /<label>/config/certificate            PEM, leaf first
    /<label>/config/attestation_report     over the session's input, 32 bytes

Answers come as calls back, and none where a switch is silent. Source: NVIDIA's nscq_attestation.h and
nscq_attestation_path.h, API version 2.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import (
    CDLL,
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_char,
    c_char_p,
    c_int8,
    c_uint8,
    c_uint32,
    c_void_p,
    cast,
)
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Protocol

from guest.machine.device import answered, check_nonce, cut
from strongroom.errors import MachineError
from strongroom.evidence.gpu import GPUEvidence

LIBRARY: Final = "libnvidia-nscq.so.2"
MAX_SWITCHES: Final = 16
_FILE: Final = re.compile(r"libnvidia-nscq\.so\.([0-9]+(?:\.[0-9]+)+)")  # what the library's name leads to
_LABEL: Final = re.compile(rb"[0-9A-Za-z-]{1,63}")
_MOUNT_DEVICES: Final = 1
_LS10: Final = 2
_SENTENCES: Final = {
    1: "it came up in part only (is it of the driver's version?)",
    -1: "not implemented",
    -2: "it knows no such switch",
    -3: "the switch cannot be opened",
    -4: "the answer does not fit",
    -5: "unexpected value",
    -6: "it does not support this driver",
    -7: "the driver failed",
    -8: "the switch did not answer in time",
}


class Protection(IntEnum):
    """How far a switch keeps everybody but the GPUs out, its host included."""

    UNKNOWN = -1
    DISABLED = 0
    ENABLED = 1
    FAILURE = 2
    LOCKED = 3  # enabled, and nobody can change it before a reset


class Switches(Protocol):
    """What the rest of the guest asks of the switches. Every method raises MachineError, and nothing else."""

    @property
    def count(self) -> int: ...
    def protection(self, index: int) -> int: ...
    def evidence(self, index: int, nonce: bytes) -> GPUEvidence: ...


class _UUID(Structure):
    _fields_ = (("octets", c_uint8 * 16),)


class _Label(Structure):
    _fields_ = (("text", c_char * 64),)


class _Report(Structure):
    _fields_ = (("size", c_uint32), ("content", c_uint8 * 0x2000))


class _Certificates(Structure):
    _fields_ = (("content", c_uint8 * 0x1400), ("size", c_uint32))


class _Opened(Structure):
    _fields_ = (("code", c_int8), ("session", c_void_p))


_PROTOTYPES: Final[dict[str, tuple[Any, ...]]] = {  # what it returns, then what it takes
    "nscq_session_create": (_Opened, c_uint32),
    "nscq_session_destroy": (None, c_void_p),
    "nscq_session_path_observe": (c_int8, c_void_p, c_char_p, c_void_p, c_void_p, c_uint32),
    "nscq_session_set_input": (c_int8, c_void_p, c_uint32, c_void_p, c_uint32),
    "nscq_uuid_to_label": (c_int8, POINTER(_UUID), POINTER(_Label), c_uint32),
}
_Answers = list[tuple[bytes, int, Any]]  # which switch, code, value
_turn: Final = threading.Lock()


@contextmanager
def session(driver: str) -> Iterator[Switches]:
    """Every switch, asked through the library of the `driver`'s version; one session at a time."""
    with _turn:
        library = _load()
        if (found := _version(library)) != driver:
            raise MachineError(f"nscq: library is of version {found}, want the driver's, {driver}")
        opened = library.nscq_session_create(_MOUNT_DEVICES)
        try:
            _check(opened.code, "session")
            yield NSCQ(library, opened.session)
        finally:
            if opened.session is not None:
                library.nscq_session_destroy(opened.session)


class NSCQ:
    """The library with a session open; switches go by number, for their names identify a machine."""

    def __init__(self, library: CDLL, opened: int) -> None:
        self._library, self._session = library, opened
        found = self._observe("switches", b"/drv/nvswitch/{device}/uuid", POINTER(_UUID), _uuid)
        self._uuids: list[bytes] = [uuid for _, _, uuid in found]
        if len(found) > MAX_SWITCHES:
            raise MachineError(f"nscq: {len(found)} switches, want at most {MAX_SWITCHES}")
        if (distinct := len({*self._uuids})) != len(found):
            raise MachineError(f"nscq: {len(found)} switches are {distinct} by name, want all distinct")

    @property
    def count(self) -> int:
        return len(self._uuids)

    def protection(self, index: int) -> int:
        """A Protection, or a number nobody has named yet."""
        return int(self._ask(index, "protection", b"config/pcie_mode", c_int8, int))

    def evidence(self, index: int, nonce: bytes) -> GPUEvidence:
        """A fresh report of one switch over `nonce` (32 bytes), with its certificates."""
        what = f"switch {index}"
        check_nonce(nonce, what)
        if (found := self._ask(index, "architecture", b"id/arch", c_int8, int)) != _LS10:
            raise MachineError(f"{what}: architecture is {found}, want {_LS10}")
        asked = (c_uint8 * len(nonce)).from_buffer_copy(nonce)
        _check(self._library.nscq_session_set_input(self._session, 0, asked, len(asked)), f"nonce of {what}")
        report = self._filled(index, "report", b"config/attestation_report", _Report)
        pem = self._filled(index, "certificates", b"config/certificate", _Certificates)
        return answered("ls10", report, pem, nonce=nonce, what=what)

    def _filled(self, index: int, what: str, path: bytes, kind: Any) -> bytes:
        content, size = self._ask(index, what, path, kind, lambda found: (bytes(found.content), found.size))
        return cut(content, size, f"switch {index}: {what}")

    def _ask(self, index: int, what: str, path: bytes, kind: Any, copy: Callable[[Any], Any]) -> Any:
        """The one answer of one switch."""
        uuid, subject = self._uuids[index], f"{what} of switch {index}"
        answers = self._observe(subject, b"/" + self._label(uuid) + b"/" + path, kind, copy)
        if [device for device, _, _ in answers] != [uuid]:
            raise MachineError(f"nscq {subject}: {len(answers)} answers, want one, by this switch")
        return answers[0][2]

    def _observe(self, what: str, path: bytes, kind: Any, copy: Callable[[Any], Any]) -> _Answers:
        answers: _Answers = []

        def told(device: Any, code: int, value: Any, _: int | None) -> None:
            # What it points to is there only now.
            answers.append((_uuid(device), code, copy(value) if code == 0 else None))

        callback = CFUNCTYPE(None, POINTER(_UUID), c_int8, kind, c_void_p)(told)
        code = self._library.nscq_session_path_observe(self._session, path, callback, None, 0)
        for each in (code, *(code for _, code, _ in answers)):
            _check(each, what)
        return answers

    def _label(self, uuid: bytes) -> bytes:
        label = _Label()
        code = self._library.nscq_uuid_to_label(byref(_UUID.from_buffer_copy(uuid)), byref(label), 0)
        _check(code, "label")
        text: bytes = label.text
        if not _LABEL.fullmatch(text):
            raise MachineError("nscq label: want letters, digits and hyphens")
        return text


def _uuid(pointer: Any) -> bytes:
    return bytes(pointer.contents.octets) if pointer else b""


def _load() -> CDLL:
    try:
        library = CDLL(LIBRARY)
        for name, (result, *arguments) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except OSError as error:
        raise MachineError(
            f"nscq: {LIBRARY} cannot be loaded, want the driver's own in the image ({error})"
        ) from error
    except AttributeError as error:
        raise MachineError(f"nscq: {LIBRARY} is too old for this ({error})") from error
    return library


def _version(library: CDLL) -> str:
    """By the name of the file that was loaded: the library itself tells its version to nobody."""
    address = cast(library.nscq_session_create, c_void_p).value or 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        area, *_, name = line.split(maxsplit=5)
        start, _, end = area.partition("-")
        if int(start, 16) <= address < int(end, 16) and (match := _FILE.fullmatch(Path(name).name)):
            return match[1]
    return "unknown"


def _check(code: int, what: str) -> None:
    if code:
        raise MachineError(f"nscq {what}: {_SENTENCES.get(code, 'unspecified')} (code {code})")
