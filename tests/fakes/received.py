"""The real receiving door as a process of its own, beside a stub agent that lives in a thread of the test."""

import asyncio
import json
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.appraise.policy import Policy
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.host.attested import AttestedConnection, Door
from strongroom.host.run import Child, spawn
from strongroom.host.yamltext import parse_yaml
from strongroom.push.answers import ACCEPTED, Accepted
from strongroom.push.offer import spki_of
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json
from tests import ROOT
from tests.fakes.agent import Agent
from tests.fakes.served import turning
from tests.fakes.silicon import silicon

NAME = "tiny"
MODEL_KEY = bytes(range(32))


def events(provider: Ed25519PrivateKey, *, name: str = NAME) -> EventLog:
    """The log of a guest that waits for a push by this provider."""
    providers: list[JSON] = [sha256(spki_of(provider.public_key())).hexdigest()]
    engine: dict[str, JSON] = {"name": "vllm", "version": "0.32.0", "flags": [], "flags_sha256": "09" * 32}
    return (
        EventLog()
        .extend(Event("userdata", bytes(32)))
        .extend(Event("gpu", pack_json({"count": 0})))
        .extend(Event("engine", pack_json(engine)))
        .extend(Event("push", pack_json({"name": name, "key": "ephemeral", "providers": providers})))
    )


@dataclass
class Received:
    """A receiving door, which can be killed and started again."""

    directory: Path
    provider: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    others: list[Ed25519PrivateKey] = field(default_factory=list)
    max_bytes: int = 1 << 30
    model_key: bytes = MODEL_KEY
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    door: Child | None = None
    runs: int = 0

    def __post_init__(self) -> None:
        self.directory.mkdir(exist_ok=True)
        self.agent = Agent(silicon(), events(self.provider))
        self.loop = asyncio.new_event_loop()
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(self.directory / "notify"))
        self._notify.settimeout(30)
        self.statuses: list[str] = []

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def dest(self) -> Path:
        return self.directory / "pushed" / "model"

    @property
    def log(self) -> str:
        return (self.directory / f"log{self.runs}").read_text()

    @property
    def policy(self) -> Policy:
        chip = self.agent.chip
        return Policy.from_raw(
            {
                "version": 1,
                "measurements": [{"name": "test image", "value": chip.measurement.hex()}],
                "host_data": [chip.host_data.hex()],
                "insecure_simulated_roots": [chip.pki.ark_sha256.hex()],
            }
        )

    def policy_file(self) -> Path:
        chip, path = self.agent.chip, self.directory / "policy.yaml"
        policy = {
            "version": 1,
            "measurements": [{"name": "test image", "value": chip.measurement.hex()}],
            "host_data": [chip.host_data.hex()],
            "insecure_simulated_roots": [chip.pki.ark_sha256.hex()],
        }
        path.write_text(json.dumps(policy))
        assert parse_yaml(path.read_bytes(), "policy")
        return path

    def connect(self, port: int | None = None) -> AttestedConnection:
        return AttestedConnection.open(
            f"https://127.0.0.1:{port or self.port}",
            policy=self.policy,
            roots=self.policy.roots,
            now=datetime.now(UTC),
            door=Door.RECEIVING,
        )

    def config(self) -> dict[str, JSON]:
        providers: list[JSON] = [b64u(spki_of(key.public_key())) for key in (self.provider, *self.others)]
        return {
            "listen_host": "127.0.0.1",
            "listen_port": self.port,  # of its first life, when it starts again
            "evidence_socket": str(self.directory / "evidence"),
            "names": ["127.0.0.1"],
            "dest": str(self.dest),
            "name": NAME,
            "providers": providers,
            "max_bytes": self.max_bytes,
        }

    def start(self, stack: ExitStack) -> None:
        self.runs += 1
        credentials = self.directory / "credentials"
        credentials.mkdir(exist_ok=True)
        (credentials / "receive").write_bytes(pack_json(self.config()))
        (credentials / "model-key").write_bytes(self.model_key)
        log = stack.enter_context((self.directory / f"log{self.runs}").open("wb"))
        env = {"CREDENTIALS_DIRECTORY": str(credentials), "NOTIFY_SOCKET": str(self.directory / "notify")}
        env |= self.environment
        self.door = stack.enter_context(
            spawn([sys.executable, "-m", "sidecars.receive"], cwd=ROOT, env=env, stderr=log)
        )
        self.port = self._port()

    def kill(self) -> None:
        assert self.door is not None
        self.door.signal(signal.SIGKILL)
        assert self.door.wait(10) is not None

    def stop(self) -> int | None:
        """As the agent does when it has read the status; the exit code."""
        assert self.door is not None
        self.door.signal(signal.SIGTERM)
        return self.door.wait(10)

    def until_accepted(self) -> Accepted:
        """What the unit tells the agent, once it does."""
        while True:
            for line in self._notify.recv(1 << 16).decode().splitlines():
                if line.startswith("STATUS="):
                    self.statuses.append(line.removeprefix("STATUS="))
                if line.startswith(f"STATUS={ACCEPTED}"):
                    said = line.removeprefix(f"STATUS={ACCEPTED}").encode()
                    return Accepted.from_json(parse_json(said, "status"))

    def _port(self) -> int:
        assert self.door is not None
        for _ in range(600):
            if found := re.search(r"waiting for a provider on \S+ port (\d+)", self.log):
                return int(found[1])
            if self.door.wait(0.05) is not None:
                break
        raise AssertionError(f"the door did not open: {self.log}")

    def close(self) -> None:
        self._notify.close()


@contextmanager
def received(directory: Path, **settings: object) -> Iterator[tuple[Received, ExitStack]]:
    """A door that waits for a push. The stack is for starting it again."""
    behind = Received(directory, **settings)  # type: ignore[arg-type]
    with ExitStack() as stack:
        stack.callback(behind.close)
        stack.enter_context(turning(behind.loop))
        asyncio.run_coroutine_threadsafe(behind.agent.start(directory / "evidence"), behind.loop).result(30)
        stack.callback(lambda: asyncio.run_coroutine_threadsafe(behind.agent.stop(), behind.loop).result(30))
        stack.callback(shutil.rmtree, directory / "pushed", ignore_errors=True)
        behind.start(stack)
        yield behind, stack
