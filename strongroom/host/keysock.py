"""A client of the key socket (docs/formats/keysock.md) for programs of the same machine: JSON in, JSON out.

Who asks is no part of a request: the kernel tells the other side. A refusal comes back as the error it was there, with
the sentence that names the missing rule.
"""

import socket
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from strongroom.errors import FormatError, MachineError, PolicyError, ProtocolError, TransportError
from strongroom.host.http1 import HTTPConnection, Limits, Response
from strongroom.wire.canonical import JSON, pack_json, parse_json
from strongroom.wire.line import sentence

AGENT: Final = Path("/run/strongroom/agent.sock")  # our own interface
DSTACK: Final = Path("/run/dstack.sock")
QUOTE: Final = Path("/run/strongroom/quote.sock")  # evidence alone, for everybody
TIMEOUT: Final = 35.0  # seconds for one answer; the other side gives it up after 30
MAX_ANSWER: Final = 16 << 20  # bytes
_KINDS: Final = {400: FormatError, 403: PolicyError, 413: FormatError, 503: MachineError}
_HEADERS: Final = {"content-type": "application/json", "accept": "application/json"}


def ask(path: Path, target: str, fields: Mapping[str, JSON] | None = None) -> dict[str, JSON]:
    """The object that a POST of `fields` to `target` is answered with; a GET where there are none.

    Raises PolicyError for what no rule allows, FormatError for a request it does not take, MachineError where the
    machine fails, TransportError where nobody listens at `path`, ProtocolError for any other answer.
    """
    with closing(_Stream(path)) as stream:
        connection = HTTPConnection(stream, "localhost")
        response = connection.request(
            "GET" if fields is None else "POST",
            target,
            headers=_HEADERS,
            body=b"" if fields is None else pack_json(dict(fields)),
            limits=Limits(silence=TIMEOUT, total=TIMEOUT, body=MAX_ANSWER),
        )
        return _read(response, target)


def _read(response: Response, target: str) -> dict[str, JSON]:
    answer = parse_json(response.read(), "key socket", max_bytes=MAX_ANSWER)
    if not isinstance(answer, dict):
        raise ProtocolError(f"key socket: {target} gave {type(answer).__name__}, want an object")
    if response.status == 200:
        return answer
    told = answer.get("error")
    said = sentence(told) if isinstance(told, str) else f"status {response.status} without a reason"
    if (kind := _KINDS.get(response.status)) is not None:
        raise kind(said)
    raise ProtocolError(f"key socket: {target}: status {response.status}, {said}")


class _Stream:
    """A unix socket as http1.Stream wants it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(TIMEOUT)
            self._socket.connect(str(path))
        except FileNotFoundError:
            self._socket.close()
            raise TransportError(
                f"{path}: there is no such socket, want a program inside a strongroom machine"
            ) from None
        except OSError as error:
            self._socket.close()
            raise self._lost(error) from None

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._lost(error) from None

    def recv(self, limit: int) -> bytes:
        try:
            return self._socket.recv(limit)
        except OSError as error:
            raise self._lost(error) from None

    def settimeout(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def close(self) -> None:
        self._socket.close()

    def _lost(self, error: OSError) -> TransportError:
        why = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or "failed").lower()
        return TransportError(f"{self._path}: {why}")
