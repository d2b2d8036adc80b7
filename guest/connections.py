"""The agent's local sockets: a task and a time limit for every connection, so that no peer holds up another."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from guest.record import sentence

MAX_OPEN: Final = 64  # connections at a time; who comes later waits in the kernel's queue

Answer = Callable[[socket.socket, object], Awaitable[None]]
"""Given a connection that does not block, and its peer's address."""


async def serve_each(listener: socket.socket, answer: Answer, *, within: float) -> None:
    """Answer until cancelled, `within` seconds each. What goes wrong with one connection ends that one alone."""
    loop, free = asyncio.get_running_loop(), asyncio.Semaphore(MAX_OPEN)
    listener.setblocking(False)
    async with asyncio.TaskGroup() as group:
        while True:
            await free.acquire()
            connection, address = await loop.sock_accept(listener)
            task = group.create_task(_one(connection, address, answer, within))
            task.add_done_callback(lambda _: free.release())


async def _one(connection: socket.socket, address: object, answer: Answer, within: float) -> None:
    with connection:
        connection.setblocking(False)
        try:
            async with asyncio.timeout(within):
                await answer(connection, address)
        except OSError:
            pass  # it left, or it was too slow: TimeoutError is one
        except Exception as error:  # noqa: BLE001  whatever one peer provoked, the others are still answered
            print(sentence(error), flush=True)
