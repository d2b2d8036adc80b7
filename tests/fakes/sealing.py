"""Sealing in a test: a plan of a small tree, sealed with defaults, and what was sealed."""

import os
from pathlib import Path
from typing import Any

import pytest

from strongroom.host.sealed.objects import SealingObject
from strongroom.host.sealed.sealing import Manner, Plan, Release, Sealed, seal_tree
from strongroom.host.sealed.tree import SealedStore
from tests.fakes.sealed import MODEL_KEY

RELEASE = Release(model_key=MODEL_KEY, epoch=1, chunk_log2=16)
NEXT = Release(model_key=bytes(range(1, 33)), epoch=2, chunk_log2=16)


def nothing(_: object) -> None:
    pass


def seal(plan: Plan, dest: Path, release: Release = RELEASE, **options: Any) -> Sealed:
    defaults: dict[str, Any] = {"entropy": os.urandom, "keep": nothing, "manner": Manner(workers=2)}
    return seal_tree(plan, dest, release, **defaults | options)


def make_plan(source: Path) -> Plan:
    return Plan.make(source, name="tiny", dereference=False, entropy=os.urandom)


def contents(source: Path) -> dict[str, bytes]:
    files = [path for path in source.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(source)): path.read_bytes() for path in files}


def names(dest: Path) -> list[str]:
    return sorted(path.name for path in dest.iterdir())


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


class Cut(Exception):  # noqa: N818 - no error: what a test does
    """What ends a seal in these tests."""


def cut_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `count` objects come to an end."""
    left, finish = [count], SealingObject.finish

    def cutting(job: SealingObject) -> None:
        if not left[0]:
            raise Cut
        left[0] -= 1
        finish(job)

    monkeypatch.setattr(SealingObject, "finish", cutting)


def update(source: Path, dest: Path, first: bytes, release: Release = NEXT, **options: Any) -> Sealed:
    with SealedStore.open(dest, model_key=MODEL_KEY, epoch=1, root=first) as before:
        return seal(make_plan(source), dest, release, before=before, **options)
