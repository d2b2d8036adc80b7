"""A TPM 2.0 by path: extend a PCR and read it back, in the SHA-256 bank. Quotes are made in tpm_quote.py.

The path is the resource manager's character device, or a unix socket that speaks the same raw commands. The
device takes one command in one write and gives one response to one read; on a socket the length in the
response header says where it ends. Responses are read to their last byte.

Source: TCG TPM 2.0 Library, Part 1 section 19 (password sessions), Part 3 sections 9.3 (Startup), 22.2
(PCR_Extend) and 22.4 (PCR_Read).
"""

import os
import socket
import stat
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final, Protocol

from strongroom.errors import FormatError, MachineError
from strongroom.wire.reader import Reader

DEVICE: Final = Path("/dev/tpmrm0")
PCR_COUNT: Final = 24
DIGEST_SIZE: Final = 32

TPM_ST_NO_SESSIONS: Final = 0x8001
TPM_ST_SESSIONS: Final = 0x8002
TPM_CC_STARTUP: Final = 0x144
TPM_CC_PCR_READ: Final = 0x17E
TPM_CC_PCR_EXTEND: Final = 0x182
TPM_RC_SUCCESS: Final = 0x000
TPM_RC_INITIALIZE: Final = 0x100
TPM_RC_YIELDED: Final = 0x908
TPM_RC_TESTING: Final = 0x90A
TPM_RC_RETRY: Final = 0x922
TPM_SU_CLEAR: Final = 0x0000
TPM_ALG_SHA256: Final = 0x000B
TPM_RS_PW: Final = 0x40000009

_HEADER: Final = Struct(">HII")  # tag, size of the whole, command or response code
_MAX_RESPONSE: Final = 4096  # bytes, TPM2_MAX_RESPONSE_SIZE of every TPM we know
_NOT_NOW: Final = frozenset({TPM_RC_YIELDED, TPM_RC_TESTING, TPM_RC_RETRY})  # the command was not begun
_PAUSES: Final = tuple(0.01 * 2**n for n in range(8))  # seconds, 2.5 in all
_TIMEOUT: Final = 30.0  # seconds for a socket to answer
_EMPTY_PASSWORD: Final = Struct(">IHBH").pack(TPM_RS_PW, 0, 0, 0)  # session, nonce, attributes, password


class Channel(Protocol):
    def exchange(self, command: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Answer:
    handle: int | None
    parameters: Reader


class TPM:
    """One open TPM. Blocking, one command at a time; made by `opened`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def extend(self, index: int, digest: bytes) -> None:
        """Replace PCR `index` by SHA-256(PCR || digest); the PCR needs an empty authorisation value.

        Raises MachineError, with the TPM's return code where it refuses.
        """
        _check_index(index)
        if len(digest) != DIGEST_SIZE:
            raise MachineError(f"tpm pcr {index}: digest is {len(digest)} bytes, want {DIGEST_SIZE}")
        digests = Struct(">IH").pack(1, TPM_ALG_SHA256) + digest
        what = f"pcr_extend {index}"
        answer = self.authorised(TPM_CC_PCR_EXTEND, index.to_bytes(4, "big"), digests, what)
        if answer.parameters.remaining:
            raise MachineError(f"tpm {what}: {answer.parameters.remaining} bytes of parameters, want none")

    def read(self, index: int) -> bytes:
        """The 32 bytes of PCR `index`."""
        _check_index(index)
        selection, what = selected({index}), f"pcr_read {index}"
        with told(what):
            response = self.command(TPM_ST_NO_SESSIONS, TPM_CC_PCR_READ, selection, what)
            response.take(4)  # update counter: moves with every extend of any PCR
            if (found := response.take(len(selection))) != selection:
                raise MachineError(f"tpm {what}: no sha-256 bank, selection is {found.hex()}")
            if (count := response.u32be()) != 1:
                raise MachineError(f"tpm {what}: {count} digests, want 1")
            if (size := response.u16be()) != DIGEST_SIZE:
                raise MachineError(f"tpm {what}: digest is {size} bytes, want {DIGEST_SIZE}")
            digest = response.take(DIGEST_SIZE)
            response.end()
        return digest

    def startup(self) -> None:
        """TPM2_Startup(CLEAR). A kernel or a firmware has done it already on a real machine."""
        with told("startup"):
            body = TPM_SU_CLEAR.to_bytes(2, "big")
            self.command(TPM_ST_NO_SESSIONS, TPM_CC_STARTUP, body, "startup").end()

    def authorised(
        self, code: int, handles: bytes, parameters: bytes, what: str, *, makes: bool = False
    ) -> Answer:
        """The answer to a command on one handle whose authorisation value is empty; `makes` a new handle."""
        session = len(_EMPTY_PASSWORD).to_bytes(4, "big") + _EMPTY_PASSWORD
        with told(what):
            response = self.command(TPM_ST_SESSIONS, code, handles + session + parameters, what)
            handle = response.u32be() if makes else None
            answer = Answer(handle, Reader(response.take(response.u32be()), f"tpm {what}"))
            response.take(response.u16be())  # nonce of the session
            response.take(1)  # attributes of the session
            response.take(response.u16be())  # a password session answers without one
            response.end()
        return answer

    def command(self, tag: int, code: int, body: bytes, what: str) -> Reader:
        """What follows the header of a successful response; a TPM nobody started is started first."""
        command = _HEADER.pack(tag, _HEADER.size + len(body), code) + body
        found, status, response = self._exchange(command, what)
        if status == TPM_RC_INITIALIZE and code != TPM_CC_STARTUP:
            self.startup()
            found, status, response = self._exchange(command, what)
        if status != TPM_RC_SUCCESS:
            raise MachineError(f"tpm {what}: return code 0x{status:x}, want 0x0")
        if found != tag:
            raise MachineError(f"tpm {what}: response tag is 0x{found:x}, want 0x{tag:x}")
        return response

    def _exchange(self, command: bytes, what: str) -> tuple[int, int, Reader]:
        for pause in _PAUSES:
            answer = _response(self._channel.exchange(command), what)
            if answer[1] not in _NOT_NOW:
                return answer
            time.sleep(pause)
        return _response(self._channel.exchange(command), what)


@contextmanager
def opened(path: Path = DEVICE) -> Iterator[TPM]:
    """The TPM at a character device or a unix socket."""
    with ExitStack() as stack:
        with told(str(path)):
            channel: Channel = stack.enter_context(_channel(path))
        yield TPM(channel)


class _Device:
    def __init__(self, file: int) -> None:
        self._file = file

    def exchange(self, command: bytes) -> bytes:
        if (written := os.write(self._file, command)) != len(command):
            raise MachineError(f"tpm: device took {written} bytes of a command, want {len(command)}")
        return os.read(self._file, _MAX_RESPONSE + 1)


class _Socket:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def exchange(self, command: bytes) -> bytes:
        self._connection.sendall(command)
        header = self._receive(_HEADER.size)
        size: int = _HEADER.unpack(header)[1]
        if not _HEADER.size <= size <= _MAX_RESPONSE:
            raise MachineError(f"tpm: response of {size} bytes, want {_HEADER.size}..{_MAX_RESPONSE}")
        return header + self._receive(size - _HEADER.size)

    def _receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            piece = self._connection.recv(size - len(received))
            if not piece:
                raise MachineError(f"tpm: closed after {len(received)} bytes, want {size}")
            received += piece
        return bytes(received)


@contextmanager
def _channel(path: Path) -> Iterator[_Device | _Socket]:
    mode = path.stat().st_mode
    if stat.S_ISCHR(mode):
        with open(path, "r+b", buffering=0) as device:
            yield _Device(device.fileno())
    elif stat.S_ISSOCK(mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT)
            connection.connect(os.fspath(path))
            yield _Socket(connection)
    else:
        raise MachineError(f"tpm {path}: neither a device nor a socket")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Whatever goes wrong inside is a MachineError about `what`."""
    try:
        yield
    except FormatError as error:
        raise MachineError(str(error)) from error
    except OSError as error:
        raise MachineError(f"tpm {what}: {(error.strerror or str(error) or 'failed').lower()}") from error


def _response(data: bytes, what: str) -> tuple[int, int, Reader]:
    reader = Reader(data, f"tpm {what}")
    tag, size, status = reader.u16be(), reader.u32be(), reader.u32be()
    if size != len(data):
        raise FormatError(f"tpm {what}: response says {size} bytes, got {len(data)}")
    return tag, status, reader


def selected(indices: AbstractSet[int]) -> bytes:
    """TPML_PCR_SELECTION of these PCRs of the SHA-256 bank."""
    for index in indices:
        _check_index(index)
    bitmap = sum(1 << index for index in indices).to_bytes(PCR_COUNT // 8, "little")
    return Struct(">IHB").pack(1, TPM_ALG_SHA256, len(bitmap)) + bitmap


def _check_index(index: int) -> None:
    if not 0 <= index < PCR_COUNT:
        raise MachineError(f"tpm: pcr is {index}, want 0..{PCR_COUNT - 1}")
