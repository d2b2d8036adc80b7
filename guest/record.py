"""What happened at this boot: one line a stage, in a file, on the console, and in systemd's status.

`/run/strongroom/boot.json` holds no secret and no userdata, only digests, names and milliseconds:

    {"version": 1, "state": "booting|serving|failed|stopped", "measurement": hex, "words": str, "userdata_sha256": hex,
     "model": {...}, "volumes": [...],
     "stages": [{"name", "outcome": "ok|failed", "ms", "error"?}], "agent_ms": int, "engine_ms": int}
"""

import json
import time
from asyncio import CancelledError
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Final, TypeVar

from strongroom.errors import StrongroomError
from strongroom.host.notify import notify
from strongroom.wire import line

VERSION: Final = 1
ENGINE_STAGE: Final = "serve"  # its time is the engine's, not ours
PROVIDER_STAGE: Final = "receive"  # and this one's a provider's
_MAX_SENTENCE: Final = 2000  # characters; a refusal lists every reason
T = TypeVar("T")


class Record:
    """The boot record. Every change is on disk, whole, before the call returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: dict[str, Any] = {
            "version": VERSION,
            "state": "booting",
            "started_at": int(time.time()),
            "stages": [],
        }
        self._write()

    @property
    def content(self) -> dict[str, Any]:
        return self._content

    def note(self, **facts: Any) -> None:
        """Add public facts (digests, names, counts)."""
        self._content.update(facts)
        self._write()

    async def stage(self, name: str, work: Awaitable[T]) -> T:
        """The result of one boot step, timed and written down; its error is written down and raised again."""
        notify(f"STATUS={name}")
        begun = time.monotonic()
        try:
            result = await work
        except BaseException as error:
            self._stage(name, begun, sentence(error))
            raise
        self._stage(name, begun, None)
        return result

    def _stage(self, name: str, begun: float, error: str | None) -> None:
        entry: dict[str, Any] = {"name": name, "outcome": "failed" if error else "ok", "ms": _ms(begun)}
        if error:
            entry["error"] = error
        self._content["stages"].append(entry)
        stages = self._content["stages"]
        ours = sum(one["ms"] for one in stages if one["name"] not in (ENGINE_STAGE, PROVIDER_STAGE))
        engine = sum(one["ms"] for one in stages if one["name"] == ENGINE_STAGE)
        self.note(agent_ms=ours, engine_ms=engine)
        print(f"{name}: {entry['outcome']} in {entry['ms']} ms{f': {error}' if error else ''}", flush=True)

    def end(self, state: str, error: BaseException | None = None) -> None:
        """The last word on this boot; also puts the boot card on the console."""
        if error is not None:
            self._content["error"] = sentence(error)
        self.note(state=state)
        notify(f"STATUS={state}{': ' + sentence(error) if error else ''}")
        print(card(self._content), flush=True)  # the unit sends standard output to the console too

    def _write(self) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(self._content, indent=1) + "\n")
        temporary.replace(self._path)


def sentence(error: BaseException) -> str:
    """One line for a person. Only our own errors are quoted: any other could carry a value nobody meant to show."""
    if isinstance(error, StrongroomError):
        return line.sentence(str(error), most=_MAX_SENTENCE)
    if isinstance(error, CancelledError):
        return "stopped before its end"
    return f"unexpected {type(error).__name__}"


def card(content: dict[str, Any]) -> str:
    """The boot card: what a person at the console reads."""
    lines = [f"Strongroom: {content['state']}"]
    if "error" in content:
        lines.append(f"  because     {content['error']}")
    for label, key in (
        ("measurement", "measurement"),
        ("in words", "words"),
        ("userdata", "userdata_sha256"),
    ):
        if key in content:
            value = str(content[key])
            lines.append(f"  {label:<11} {value if len(value) <= 64 else value[:32] + '…' + value[-8:]}")
    if model := content.get("model"):
        lines.append(f"  {'model':<11} {model['name']}, epoch {model['epoch']}, root {model['root'][:16]}…")
    if volumes := content.get("volumes"):
        names = (f"{one['name']}{' (read only)' if one['read_only'] else ''}" for one in volumes)
        lines.append(f"  {'volumes':<11} {', '.join(names)}")
    if engine := content.get("engine"):
        lines.append(f"  {'engine':<11} {engine['name']} {engine['version']}")
    if door := content.get("door"):
        lines.append(f"  {'door':<11} port {door['port']}, key {door['spki_sha256'][:16]}…")
    if content.get("simulated"):
        lines.append("  WARNING     INSECURE-SIMULATED silicon: this proves nothing to anybody")
    lines += [
        f"    {stage['name']:<10} {stage['outcome']:<7} {stage['ms']:>7} ms" for stage in content["stages"]
    ]
    if "agent_ms" in content:
        lines.append(f"    {'agent':<10} {'':<7} {content['agent_ms']:>7} ms   (every stage but the engine)")
    return "\n".join(lines) + "\n"


def _ms(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)
