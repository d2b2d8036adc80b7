"""Connections to one engine process, kept for the next request.

The engine closes one that is idle for seconds, perhaps just as it is used: then the request goes to a fresh connection,
once, if there was not a single byte of an answer and the connection had been idle for IDLE seconds. An engine that
closes a connection unheard may have begun with the request all the same: so in that one case a question may be computed
twice, never answered twice. Whatever else closes unheard is an error of the engine. Every connection was found to lead
to that process when it was made.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from sidecars.proxy.engine.answer import EngineHead
from sidecars.proxy.engine.connection import LARGE, EngineConnection, Process
from strongroom.errors import TransportError

MAX_IDLE: Final = 256  # connections
IDLE: Final = 1.0  # seconds after which an engine may have closed a connection for its idleness


class UnreachableError(TransportError):
    """No connection to the engine could be made."""


class EnginePool:
    def __init__(self, path: Path, process: Process, *, most: int = MAX_IDLE) -> None:
        self._path, self._process, self._most = path, process, most
        self._idle: list[EngineConnection] = []

    async def ask(
        self,
        target: str,
        *,
        body: bytes,
        request_id: str,
        within: float,
        sent: Callable[[], None] | None = None,
    ) -> tuple[EngineConnection, EngineHead]:
        """A connection on which the engine began to answer; it is given back, or closed.

        `sent` is called once the engine has read the request; a large one is not kept here any longer than that.
        Raises UnreachableError when there is no engine to ask, TransportError when it did not answer.
        """
        while True:
            engine, idle = await self._connection(large=len(body) > LARGE)
            try:
                engine.put("POST", target, body=body, request_id=request_id, keep=True)
                if not idle:
                    body = b""
                await engine.sent(within=within)
                if sent is not None:
                    sent()
                head = await engine.head(within=within)
            except TransportError:
                engine.close()
                if not (idle and engine.unheard):
                    raise
                self.close()  # they are as old
            except BaseException:
                engine.close()
                raise
            else:
                return engine, head

    async def _connection(self, *, large: bool) -> tuple[EngineConnection, bool]:
        """One, and whether it was idle for so long that it may be gone: never one for a large request."""
        while self._idle:
            if (engine := self._idle.pop()).reusable:
                idle = engine.rested >= IDLE
                if not (idle and large):
                    return engine, idle
                engine.close()
        try:
            return await EngineConnection.open(self._path, process=self._process), False
        except TransportError as error:
            raise UnreachableError(*error.args) from error

    def give_back(self, engine: EngineConnection) -> None:
        """Keep it for another request if it can carry one; else it ends, and with it what the engine computes."""
        if not engine.over or not engine.reusable:
            engine.close()
            return
        if len(self._idle) >= self._most:
            self._idle = [idle for idle in self._idle if idle.reusable]
            if len(self._idle) >= self._most:
                self._idle.pop(0).close()
        engine.again()
        self._idle.append(engine)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
