"""Mirrors sidecars/fs/workers/kept.py: what may be adopted, and what is given up."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecars.fs import device
from sidecars.fs.device import Terms
from sidecars.fs.mounting import TYPE, Mounted
from sidecars.fs.protocol.frames import InitFlag
from sidecars.fs.workers import kept
from sidecars.fs.workers.kept import Held, Left
from strongroom.errors import MachineError
from strongroom.host import notify

MOUNT = Path("/run/model")
MOUNTED = Mounted(24, "0:40", TYPE)
TERMS = Terms(45, InitFlag.HAS_RESEND | InitFlag.PASSTHROUGH)
NAMES = ("device", "clone", "clone", "memory", "agreement")


class Store:
    """The service manager's."""

    def __init__(self) -> None:
        self.content: list[tuple[str, int]] = []
        self.dropped: list[str] = []
        self.refused: set[str] = set()

    def keep(self, name: str, descriptor: int) -> bool:
        if name in self.refused:
            return False
        self.content.append((name, os.dup(descriptor)))
        return True

    def let_go(self, name: str) -> bool:
        self.dropped.append(name)
        return True

    def leave(self, point: Path, made: Mounted) -> None:
        if vars(kept)["find"](point) not in (None, made):
            raise MachineError("another lies there")
        self.dropped.append(f"mount {point}")

    def hand_over(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for name, descriptor in self.content:
            found.setdefault(name, []).append(os.dup(descriptor))
        return found


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    made = Store()
    monkeypatch.setattr(notify, "keep", made.keep)
    monkeypatch.setattr(notify, "let_go", made.let_go)
    monkeypatch.setattr(device, "is_connected", lambda _: True)
    monkeypatch.setattr(kept, "find", lambda _: MOUNTED)
    monkeypatch.setattr(kept, "leave", made.leave)
    yield made
    for _, descriptor in made.content:
        os.close(descriptor)


def nothing() -> int:
    return os.open(os.devnull, os.O_RDONLY)


def held(memory: bool = True) -> Held:
    return Held(nothing(), TERMS, MOUNTED, [nothing(), nothing()], nothing() if memory else None)


@pytest.mark.parametrize("memory", [True, False])
def test_what_is_kept_is_found(store: Store, memory: bool) -> None:
    first = held(memory)
    first.keep(mount=MOUNT, identity="ab")
    first.close()
    assert [name for name, _ in store.content] == [name for name in NAMES if memory or name != "memory"]
    adopted = Left.find(store.hand_over).adopt(mount=MOUNT, identity="ab")
    assert adopted is not None
    assert adopted.terms == TERMS
    assert len(adopted.clones) == 2
    assert (adopted.memory is not None) == memory
    assert store.dropped == []
    adopted.close()


@pytest.mark.parametrize(
    "other", [Mounted(25, "0:40", TYPE), Mounted(24, "0:41", TYPE), Mounted(3, "8:1", "ext4")]
)
def test_another_mount_there_is_neither_taken_for_ours_nor_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch, other: Mounted
) -> None:
    first = held()
    first.keep(mount=MOUNT, identity="ab")
    first.close()
    monkeypatch.setattr(kept, "find", lambda _: other)
    left = Left.find(store.hand_over)
    with pytest.raises(MachineError, match="another lies there"):
        left.adopt(mount=MOUNT, identity="ab")
    assert store.dropped == []
    left.let_go()
    assert store.dropped == list(kept._NAMES)


@pytest.mark.parametrize("refused", ["device", "clone", "memory", "agreement"])
def test_what_the_manager_does_not_take_is_said(store: Store, refused: str) -> None:
    store.refused.add(refused)
    first = held()
    assert not first.keep(mount=MOUNT, identity="ab")
    assert "agreement" not in [name for name, _ in store.content]
    first.close()


def test_nothing_left_is_nothing_to_give_up(store: Store) -> None:
    left = Left.find(dict)
    assert left.adopt(mount=MOUNT, identity="ab") is None
    assert store.dropped == []


@pytest.mark.parametrize(
    "change",
    [
        "identity",
        "mount",
        "device",
        "clone",
        "agreement",
        "disconnected",
        "unmounted",
        "text",
        "shape",
        "terms",
    ],
)
def test_anything_else_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    first = held()
    if change == "terms":
        first.terms = Terms(31, InitFlag.ASYNC_READ)
    first.keep(mount=MOUNT, identity="ab")
    first.close()
    if change == "disconnected":
        monkeypatch.setattr(device, "is_connected", lambda _: False)
    elif change == "unmounted":
        monkeypatch.setattr(kept, "find", lambda _: None)
    elif change in ("device", "clone", "agreement"):
        gone = [one for one in store.content if one[0] == change]
        store.content = [one for one in store.content if one[0] != change]
        for _, descriptor in gone:
            os.close(descriptor)
    elif change in ("text", "shape"):
        (agreement,) = [descriptor for name, descriptor in store.content if name == "agreement"]
        value: dict[str, Any] = json.loads(os.pread(agreement, 4096, 0))
        value["minor"] = True
        os.ftruncate(agreement, 0)
        os.pwrite(agreement, b"{" if change == "text" else json.dumps(value).encode(), 0)
    left = Left.find(store.hand_over)
    opened = [descriptor for found in left.descriptors.values() for descriptor in found]
    mount = Path("/run/other") if change == "mount" else MOUNT
    assert left.adopt(mount=mount, identity="cd" if change == "identity" else "ab") is None
    assert [name for name in store.dropped if not name.startswith("mount")] == list(kept._NAMES)
    unknown = change in ("agreement", "text", "shape")  # nobody can say where it was mounted
    assert (f"mount {MOUNT}" in store.dropped) == (not unknown)
    for descriptor in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
