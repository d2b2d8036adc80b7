"""State for the agent, on a unix socket that only this machine's services can reach: GET /state, nothing else."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from strongroom.errors import MachineError
from strongroom.host.door.http import ServerHTTP
from strongroom.host.door.refusal import Refusal, not_found
from strongroom.wire.canonical import JSON, pack_json

PATIENCE: Final = 2.0  # seconds for one question
_READ: Final = 4096  # bytes


async def serve_admin(path: Path, state: Callable[[], JSON]) -> asyncio.Server:
    """A listening server; `state` is asked anew for each answer. A socket file left by an earlier process goes.

    Raises MachineError when the socket cannot be made.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(await _answer(reader, state))
                await writer.drain()
        except (TimeoutError, OSError):
            pass
        finally:
            writer.close()

    try:
        _clear(path)
        return await asyncio.start_unix_server(answer, path)
    except OSError as error:
        raise MachineError(f"admin socket {path}: {(error.strerror or 'failed').lower()}") from error


def _clear(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _answer(reader: asyncio.StreamReader, state: Callable[[], JSON]) -> bytes:
    http = ServerHTTP()
    try:
        while (head := http.next_head()) is None:
            if not (data := await reader.read(_READ)):
                return b""
            http.feed(data)
        if (head.method, head.target) != ("GET", "/state"):
            raise not_found()
        status, body = 200, pack_json(state())
    except Refusal as refusal:
        status, body = refusal.status, refusal.body()
    headers = [("content-type", "application/json"), ("connection", "close")]
    return http.start(status, headers, length=len(body)) + http.data(body) + http.end()
