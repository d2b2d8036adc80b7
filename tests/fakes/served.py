"""The real door as a process of its own, between a stub engine and a stub agent that live in a thread of the test."""

import asyncio
import re
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from strongroom.host.run import Child, spawn
from strongroom.wire.canonical import JSON, pack_json
from tests import ROOT
from tests.fakes.agent import Agent, Make
from tests.fakes.exchange import ENGINE, MODEL, events
from tests.fakes.silicon import silicon
from tests.fakes.vllm import VLLM

SECRET: Final = bytes(range(32))  # of the boot, from which the door has its keys


@dataclass
class Served:
    """What stands behind an open door. `do` runs work on the loop of engine and agent."""

    directory: Path
    engine: VLLM = field(default_factory=VLLM)
    agent: Agent = field(default_factory=lambda: Agent(silicon(), events()))
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    port: int = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def plan(self, tokens: dict[str, str]) -> dict[str, JSON]:
        return {
            "listen_host": "127.0.0.1",
            "listen_port": 0,
            "engine_socket": str(self.directory / "engine"),
            "evidence_socket": str(self.directory / "evidence"),
            "names": ["127.0.0.1"],
            "model": MODEL.to_json(),
            "engine": ENGINE.to_json(),
            "tenants": [
                {"name": name, "token_sha256": sha256(token.encode()).hexdigest()}
                for name, token in tokens.items()
            ],
            "cache": "tenant",
        }


@contextmanager
def served(
    directory: Path,
    *,
    tokens: dict[str, str] | None = None,
    make: Make | None = None,
    settings: dict[str, JSON] | None = None,
    engine: bool = True,
) -> Iterator[tuple[Served, Child]]:
    """An open door and its process. `tokens` are bearer tokens by tenant; none means that everyone may ask.

    `make` is what makes the agent's bundles, by default simulated AMD silicon; `settings` are more of the door's plan.
    Without `engine` no double is started: a real one listens at `directory`/engine.
    """
    behind = Served(directory, agent=Agent(silicon(), events(), make))
    (directory / "credentials").mkdir()
    (directory / "credentials" / "door").write_bytes(pack_json(behind.plan(tokens or {}) | (settings or {})))
    (directory / "credentials" / "door-secret").write_bytes(SECRET)
    (directory / "runtime").mkdir()
    with ExitStack() as stack:
        stack.enter_context(turning(behind.loop))
        if engine:
            behind.do(behind.engine.start(directory / "engine"))
            stack.callback(lambda: behind.do(behind.engine.die()))
        behind.do(behind.agent.start(directory / "evidence"))
        stack.callback(lambda: behind.do(behind.agent.stop()))
        yield behind, stack.enter_context(opened(behind))


@contextmanager
def opened(behind: Served) -> Iterator[Child]:
    """One process of the door, open. What an earlier one left in its runtime directory is there."""
    directory = behind.directory
    environment = {
        "CREDENTIALS_DIRECTORY": str(directory / "credentials"),
        "RUNTIME_DIRECTORY": str(directory / "runtime"),
    }
    command = [sys.executable, "-m", "sidecars.proxy"]
    with (directory / "log").open("wb") as log, spawn(command, cwd=ROOT, env=environment, stderr=log) as door:
        behind.port = _port(behind, door)
        yield door


@contextmanager
def turning(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(_finish(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _finish() -> None:
    """Connections that the door left behind end before their loop does."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _port(behind: Served, door: Child) -> int:
    for _ in range(600):
        if found := re.search(r"the door is open on \S+ port (\d+)", behind.log):
            return int(found[1])
        if door.wait(0.05) is not None:
            break
    raise AssertionError(f"the door did not open: {behind.log}")
