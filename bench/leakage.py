"""How well the lengths of tokens can be read off the sizes of a stream's records, and what it costs to hide them.

Whoever sees the wire sees how long each record is. An engine sends a token at a time, in an event that is otherwise the
same: so sizes are lengths. The one who guesses here is the best there can be: for every size it knows how often which
lengths stand behind it, learnt from this very text, and says the likeliest. "read" is the share of tokens whose length
it has right; "blind" is what saying the commonest length always would have. Words of our documents stand for tokens.

python -m bench.leakage
"""

import asyncio
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from sidecars.proxy.engine.garbage import GarbageWatch
from sidecars.proxy.fields import Question
from sidecars.proxy.metrics import Metrics
from sidecars.proxy.plan import StreamPlan
from sidecars.proxy.routes import Route
from sidecars.proxy.stream import Stream
from strongroom.cli.terminal import table
from strongroom.host.door.reply import Reply
from tests.fakes import book as fake

ROOT: Final = Path(__file__).resolve().parents[1]
PACE: Final = 10  # milliseconds between two tokens
TOKENS: Final = 20_000
_WORD: Final = re.compile(r" ?[A-Za-z]+| ?[0-9]+|[^\sA-Za-z0-9]|\s+")
SETTINGS: Final = ((0, 0), (16, 0), (64, 0), (256, 0), (0, 100), (64, 100), (256, 100))  # pad, batch_ms


class _Wire:
    """Notes how many bytes go into each record. TLS adds the same to every one."""

    reaches, congested, stalled = True, False, False

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def start(self, status: int, content_type: str, headers: Iterable[tuple[str, str]]) -> None: ...

    def send(self, data: bytes) -> None:
        self.sizes.append(len(b"%x\r\n%b\r\n" % (len(data), data)))


@dataclass(frozen=True, slots=True)
class Leak:
    pad: int
    batch_ms: int
    read: float
    blind: float
    size: int  # bytes on the wire

    def to_json(self) -> dict[str, Any]:
        return {
            "pad": self.pad, "batch_ms": self.batch_ms, "read": round(self.read, 4), "blind": round(self.blind, 4),
            "bytes": self.size,
        }  # fmt: skip


def words(most: int = TOKENS) -> list[str]:
    text = "\n".join(path.read_text() for path in sorted((ROOT / "docs").rglob("*.md")))
    return _WORD.findall(text)[:most]


def event(word: str) -> bytes:
    """As the engine sends it."""
    choice = {"index": 0, "delta": {"content": word}, "logprobs": None, "finish_reason": None}
    chunk = {"id": f"chatcmpl-{0:032x}", "object": "chat.completion.chunk", "created": 1, "choices": [choice]}
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


async def sizes(groups: Sequence[bytes], plan: StreamPlan) -> list[int]:
    """Of the records of one stream, whose events come in these groups."""
    wire, book = _Wire(), fake.book()
    witness = book.witness(
        id="0" * 32, route=Route.CHAT, tenant=fake.tenant(book.plan), received=b"", forwarded=b"", stream=True
    )
    watch = GarbageWatch(Route.CHAT, Question({}, "", stream=True))
    stream = Stream(cast("Reply", wire), witness, watch, Metrics(), plan)
    stream.start(())
    for group in groups:
        stream.take(group)
    stream.close()
    return wire.sizes


def leak(tokens: Sequence[str], pad: int, batch_ms: int) -> Leak:
    together = max(1, batch_ms // PACE)
    groups = [tokens[at : at + together] for at in range(0, len(tokens), together)]
    found = asyncio.run(sizes([b"".join(map(event, group)) for group in groups], StreamPlan(pad=pad)))
    behind = defaultdict[int, Counter[tuple[int, ...]]](Counter)
    for size, group in zip(found, groups, strict=True):
        behind[size][tuple(len(event(token)) for token in group)] += 1
    right = 0
    for lengths in behind.values():
        guess = [Counter(place).most_common(1)[0][0] for place in zip(*lengths.elements(), strict=False)]
        right += sum(
            count * sum(one == other for one, other in zip(guess, group, strict=False))
            for group, count in lengths.items()
        )
    commonest = Counter(len(event(token)) for token in tokens).most_common(1)[0][1]
    return Leak(pad, batch_ms, right / len(tokens), commonest / len(tokens), sum(found))


def main() -> int:
    tokens = words()
    leaks = [leak(tokens, pad, batch_ms) for pad, batch_ms in SETTINGS]
    rows = [
        (
            str(one.pad),
            str(one.batch_ms),
            f"{one.read:.1%}",
            f"{one.blind:.1%}",
            f"{one.size / leaks[0].size:.2f}",
        )
        for one in leaks
    ]
    print(table([("pad", "batch_ms", "read", "blind", "bytes"), *rows]))
    print(
        json.dumps({"bench": "leakage", "tokens": len(tokens), "settings": [one.to_json() for one in leaks]})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
