"""What is asked of every subject: small questions, and streams at the pace of an engine. In turns: A B C, C B A."""

import json
import signal
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.ingress.subjects import Place, Running, Subject, running
from strongroom.errors import MachineError
from strongroom.host.run import PIPE, spawn

PACE: Final = 10_000  # microseconds between two tokens of a stream
TOKENS: Final = 100  # of one stream
TOKEN: Final = "token-of-ann"
_HEAD: Final = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
    "Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nUser-Agent: OpenAI/Python 3.5.0\r\n"
    "Content-Type: application/json\r\nAuthorization: Bearer {token}\r\nX-Stainless-Lang: python\r\n"
    "X-Stainless-Package-Version: 3.5.0\r\nX-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\n"
    "X-Stainless-Runtime: CPython\r\nX-Stainless-Runtime-Version: 3.11.2\r\nx-stainless-retry-count: 0\r\n"
    "x-stainless-read-timeout: 600\r\nContent-Length: {length}\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    connections: int
    streams: bool = False

    @property
    def counted(self) -> str:
        return "events" if self.streams else "answers"

    def question(self) -> bytes:
        """About 1.5 kB, as OpenAI's own client sends it."""
        body = {
            "model": "tiny",
            "messages": [
                {"role": "system", "content": "You are a helpful assistant. " * 10},
                {"role": "user", "content": "lorem ipsum dolor " * 60},
            ],
            "temperature": 0.7,
            "max_tokens": 256,
        }
        packed = json.dumps({**body, "stream": True} if self.streams else body).encode()
        return _HEAD.format(token=TOKEN, length=len(packed)).encode() + packed


CASES: Final = (
    Case("one client asks", 1),
    Case("16 clients ask", 16),
    Case("1 stream", 1, streams=True),
    Case("16 streams", 16, streams=True),
    Case("64 streams", 64, streams=True),
)


@dataclass(frozen=True, slots=True)
class Round:
    count: int  # answers, or events of streams
    cpu: float  # seconds, of the subject
    p50: int  # microseconds
    p99: int

    @property
    def each(self) -> float:
        """Microseconds of CPU for one."""
        return self.cpu / self.count * 1e6


@dataclass(slots=True)
class Measured:
    case: Case
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def cpu(self, subject: str) -> float:
        return statistics.median(done.each for done in self.rounds[subject])

    def to_json(self) -> Mapping[str, Any]:
        return {
            name: {
                "cpu_us": round(self.cpu(name), 1),
                "lowest": round(min(done.each for done in rounds), 1),
                "highest": round(max(done.each for done in rounds), 1),
                "p50_us": statistics.median(done.p50 for done in rounds),
                "p99_us": statistics.median(done.p99 for done in rounds),
                "count": sum(done.count for done in rounds),
            }
            for name, rounds in self.rounds.items()
        }


def measure(
    case: Case, subjects: Sequence[Subject], place: Place, binaries: Path, *, rounds: int, seconds: float
) -> Measured:
    """Every subject's rounds, after one of each that is not counted. One that does not start is left out."""
    measured = Measured(case)
    (place.work / "question").write_bytes(case.question())
    with ExitStack() as stack:
        stack.enter_context(_engine(binaries, place.engine))
        there: dict[str, Running] = {}
        for subject in subjects:
            try:
                there[subject.name] = stack.enter_context(running(subject, place))
            except MachineError as error:
                measured.absent[subject.name] = str(error)
        measured.rounds = {name: [] for name in there}
        for turn in range(rounds + 1):
            for name in there if turn % 2 else reversed(there):
                done = _round(case, there[name], place, binaries, seconds if turn else min(seconds, 0.5))
                if turn:
                    measured.rounds[name].append(done)
    return measured


def _round(case: Case, subject: Running, place: Place, binaries: Path, seconds: float) -> Round:
    command = [
        str(binaries / "load"), str(subject.port), str(case.connections), str(seconds), str(place.work / "question"),
    ]  # fmt: skip
    with spawn(command, stdout=PIPE) as load:
        if load.line(60.0) != b"connected":
            raise MachineError("bench: the clients did not connect")
        before = subject.cpu()
        load.signal(signal.SIGUSR1)
        said = json.loads(load.line(seconds + 60))
        spent = subject.cpu() - before
    counted = said[case.counted]
    if not counted["count"]:
        raise MachineError(f"bench: {case.name}: no answer in {seconds:g} s")
    return Round(counted["count"], spent, counted["p50"], counted["p99"])


@contextmanager
def _engine(binaries: Path, path: Path) -> Iterator[None]:
    path.unlink(missing_ok=True)
    with spawn([str(binaries / "engine"), str(path), str(TOKENS), str(PACE)], stdout=PIPE) as child:
        if child.line(10.0) != b"ready":
            raise MachineError("bench: the engine did not start")
        path.chmod(0o666)  # a proxy's worker may be somebody else
        yield
