"""An open door: a stub engine before it, simulated silicon behind the agent's socket, clients over real TLS."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

import h11
import pytest

from sidecars.proxy.door import Door
from sidecars.proxy.plan import Plan
from strongroom.appraise.policy import Policy
from strongroom.evidence.eventlog import EventLog
from strongroom.host.tls import TLSStream, connect
from strongroom.receipts.keys import DoorKeys
from tests.fakes.agent import Agent
from tests.fakes.exchange import ENGINE, MODEL, events
from tests.fakes.served import SECRET
from tests.fakes.silicon import HOST_DATA, MEASUREMENT, roots, silicon
from tests.fakes.vllm import VLLM

CHIP: Final = silicon()
ROOTS: Final = roots(CHIP)
MARKER: Final = "correct horse battery staple"
TOKENS: Final = {"ann": "token-of-ann", "bob": "token-of-bob"}
JSON_TYPE: Final = {"content-type": "application/json"}
POST: Final = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer token-of-ann\r\n"
_T = TypeVar("_T")


def policy() -> Policy:
    return Policy.from_raw(
        {
            "version": 1,
            "measurements": [{"name": "test", "value": MEASUREMENT.hex()}],
            "host_data": [HOST_DATA.hex()],
            "insecure_simulated_roots": [CHIP.pki.ark_sha256.hex()],
        }
    )


class House:
    """Door, engine and agent on one event loop in a thread of its own."""

    def __init__(self, directory: Path, *, tenants: bool = True, log: EventLog | None = None) -> None:
        self.directory = directory
        self.engine = VLLM()
        self.agent = Agent(CHIP, log or events())
        self.credential = self._credential(tenants)
        self.door = Door(Plan.parse(self.credential), DoorKeys.from_secret(SECRET), directory=directory)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._life: Any = None
        self.do(self.agent.start(directory / "evidence.sock"))

    def _credential(self, tenants: bool) -> bytes:
        value = {
            "listen_host": "127.0.0.1",
            "listen_port": 0,
            "engine_socket": str(self.directory / "engine.sock"),
            "evidence_socket": str(self.directory / "evidence.sock"),
            "names": ["door.example", "127.0.0.1"],
            "model": MODEL.to_json(),
            "engine": ENGINE.to_json(),
            "tenants": [
                {"name": name, "token_sha256": sha256(token.encode()).hexdigest()}
                for name, token in TOKENS.items()
                if tenants
            ],
            "cache": "tenant",
        }
        return json.dumps(value).encode()

    def do(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def start_engine(self) -> None:
        self.do(self.engine.start(self.directory / "engine.sock"))

    def start_door(self, *, until: str = "open") -> None:
        self._life = asyncio.run_coroutine_threadsafe(self.door.run(), self._loop)
        wait_for(lambda: self.door.state == until or self._life.done())

    def exit_code(self) -> int:
        code = self._life.result(30)
        assert isinstance(code, int)
        return code

    def close(self) -> None:
        if self._life is not None and not self._life.done():
            self._life.cancel()
            wait_for(lambda: self.door.state in {"closed", "certified", "starting"})
        self.do(self.engine.die())
        self.do(self.agent.stop())
        self.do(_settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def dial(self) -> TLSStream:
        assert self.door.port is not None
        return connect("127.0.0.1", self.door.port, timeout=10)


async def _settle() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.sleep(0.01)


def wait_for(ready: Callable[[], bool]) -> None:
    for _ in range(1000):
        if ready():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen within ten seconds")


@contextmanager
def house_in(directory: Path, *, tenants: bool = True) -> Iterator[House]:
    house = House(directory, tenants=tenants)
    try:
        house.start_engine()
        house.start_door()
        yield house
    finally:
        house.close()


class Client:
    """A plain HTTP client that keeps body bytes exactly as they came."""

    def __init__(self, stream: TLSStream, tenant: str | None = "ann") -> None:
        self.stream, self.tenant = stream, tenant
        self._h11 = h11.Connection(h11.CLIENT)

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        self.begin(method, target, body, headers)
        status, found = self.head()
        return status, found, b"".join(self.body())

    def begin(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        lines = {"host": "door", **(headers or {})}
        if self.tenant is not None:
            lines["authorization"] = f"Bearer {TOKENS.get(self.tenant, self.tenant)}"
        if body:
            lines |= {**JSON_TYPE, "content-length": str(len(body))}
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        out = self._h11.send(h11.Request(method=method, target=target, headers=list(lines.items()))) or b""
        if body:
            out += self._h11.send(h11.Data(data=body)) or b""
        self.stream.send(out + (self._h11.send(h11.EndOfMessage()) or b""))

    def head(self) -> tuple[int, dict[str, str]]:
        event = self._event()
        assert isinstance(event, h11.Response)
        return event.status_code, {k.decode(): v.decode() for k, v in event.headers}

    def body(self) -> Iterator[bytes]:
        while isinstance(event := self._event(), h11.Data):
            yield bytes(event.data)
        assert isinstance(event, h11.EndOfMessage)

    def _event(self) -> Any:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(self.stream.recv())
        return event


def chat(prompt: str = "hello", **fields: Any) -> bytes:
    message = {"role": "user", "content": prompt}
    return json.dumps({"model": "tiny", "messages": [message], **fields}).encode()


def places_of(tenant: str, house: House) -> int:
    service = house.door._service
    assert service is not None
    return service.admission._accounts[tenant].concurrent
