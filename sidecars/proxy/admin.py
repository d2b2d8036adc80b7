"""What this machine's own services may ask of the door: GET /state and GET /metrics, nothing else.

Both on a unix socket in the runtime directory. Where the plan names a port, the metrics alone are on the loopback
address as well, for collectors that know no unix sockets.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from sidecars.proxy.metrics import CONTENT_TYPE
from strongroom.errors import MachineError
from strongroom.host.door.http import ServerHTTP
from strongroom.host.door.refusal import Refusal, not_found
from strongroom.wire.canonical import JSON, pack_json

PATIENCE: Final = 2.0  # seconds for one question
LOOPBACK: Final = "127.0.0.1"
_READ: Final = 4096  # bytes

Says = Callable[[], tuple[str, bytes]]  # content type and body, made anew for each answer


async def serve_admin(
    path: Path, state: Callable[[], JSON], metrics: Callable[[], bytes] | None = None
) -> asyncio.Server:
    """A listening server. A socket file left by an earlier process goes.

    Raises MachineError when the socket cannot be made.
    """
    says: dict[str, Says] = {"/state": lambda: ("application/json", pack_json(state()))}
    if metrics is not None:
        says["/metrics"] = _metrics(metrics)
    try:
        _clear(path)
        return await asyncio.start_unix_server(partial(_answer, says), path)
    except OSError as error:
        raise MachineError(f"admin socket {path}: {(error.strerror or 'failed').lower()}") from error


async def serve_metrics(port: int, metrics: Callable[[], bytes]) -> asyncio.Server:
    """GET /metrics on the loopback address. Raises MachineError when the port cannot be had."""
    try:
        return await asyncio.start_server(partial(_answer, {"/metrics": _metrics(metrics)}), LOOPBACK, port)
    except OSError as error:
        raise MachineError(f"metrics port {port}: {(error.strerror or 'failed').lower()}") from error


def _metrics(metrics: Callable[[], bytes]) -> Says:
    return lambda: (CONTENT_TYPE, metrics())


def _clear(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _answer(
    says: Mapping[str, Says], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(await _said(says, reader))
            await writer.drain()
    except (TimeoutError, OSError):
        pass
    finally:
        writer.close()


async def _said(says: Mapping[str, Says], reader: asyncio.StreamReader) -> bytes:
    http = ServerHTTP()
    kind = "application/json"
    try:
        while (head := http.next_head()) is None:
            if not (data := await reader.read(_READ)):
                return b""
            http.feed(data)
        if head.method != "GET" or head.target not in says:
            raise not_found()
        kind, body = says[head.target]()
        status = 200
    except Refusal as refusal:
        status, body = refusal.status, refusal.body()
    headers = [("content-type", kind), ("connection", "close")]
    return http.start(status, headers, length=len(body)) + http.data(body) + http.end()
