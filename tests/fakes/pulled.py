"""A small tree in a store on loopback, and whoever pulls it from there."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from strongroom.host.fetch import Pin
from strongroom.host.pull.credentials import Credentials
from strongroom.host.pull.pull import Begin, Pulled, Rules, pull
from strongroom.host.pull.web import Web
from strongroom.host.secret import Secret
from strongroom.sealed.index import Index
from tests.fakes.stores import Request, Store

QUICK = Rules(idle_s=2.0, tries=4, first_pause_s=0.01)
OBJECTS = {f"{n:032x}": bytes([n]) * (70_000 + n) for n in range(1, 6)}
MANIFEST = b"a manifest that nobody here can read" * 10
ROOT = sha256(MANIFEST).digest()
TAGS = b"tags" * 100
INDEX = Index(
    root=ROOT,
    manifest_size=len(MANIFEST),
    tags_sha256=sha256(TAGS).digest(),
    tags_size=len(TAGS),
    objects={name: len(content) for name, content in OBJECTS.items()},
)
FIRST = f"objects/{1:032x}"
TREE = {
    "MANIFEST": MANIFEST,
    "INDEX": INDEX.pack(),
    INDEX.tags_name: TAGS,
    **{f"objects/{name}": content for name, content in OBJECTS.items()},
}

Stage = tuple[str, int, list[int]]  # what is done, to how many bytes, and how many were done each time


@dataclass
class Site:
    """A store with a tree below /m/, and whoever pulls from it."""

    store: Store
    pin: Pin
    dest: Path

    def pull(
        self, *, rules: Rules = QUICK, root: bytes = ROOT, token: str | None = None, **more: Any
    ) -> Pulled:
        source = Web(f"{self.store.url}/m", token)
        return asyncio.run(pull(source, self.dest, pin=self.pin, root=root, rules=rules, **more))

    def asked(self, name: str) -> list[Request]:
        return self.store.asked(f"/m/{name}")


def here(dest: Path) -> dict[str, bytes]:
    return {str(path.relative_to(dest)): path.read_bytes() for path in dest.rglob("*") if path.is_file()}


def begin(stages: list[Stage]) -> Begin:
    """Notes how far each stage is."""

    def note(what: str, total: int) -> Callable[[int], None]:
        stages.append((what, total, []))
        return stages[-1][2].append

    return note


def credentials(**values: str) -> Credentials:
    return Credentials({name: Secret(value.encode()) for name, value in values.items()})
