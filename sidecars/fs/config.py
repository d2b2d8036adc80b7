"""The `volume` credential: which sealed tree to serve, where, how, and what it must be."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self, TypeVar

from strongroom.errors import ConfigError
from strongroom.sealed.header import MAX_EPOCH
from strongroom.wire.canonical import JSON, parse_json

MAX_CREDENTIAL: Final = 16 * 1024  # bytes
MAX_WORKERS: Final = 16  # each has a place in the service manager's descriptor store
_REQUIRED: Final = {"source", "mount", "root", "epoch"}
_OPTIONAL: Final = {"uid", "format", "side", "mode", "workers", "memory", "writable"}
_ROOT: Final = re.compile(r"[0-9a-f]{64}")
_NOBODY: Final = 2**32 - 1  # the kernel's "no user"
_MAX_MEMORY: Final = 1 << 50  # bytes

E = TypeVar("E", bound=StrEnum)


class Format(StrEnum):
    SEALED = "sealed"
    GOCRYPTFS = "gocryptfs"


class Mode(StrEnum):
    AUTO = "auto"  # in memory where all of it fits, else read on demand
    STREAM = "stream"  # read on demand
    RESIDENT = "resident"  # as many of the first files in memory as fit


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeConfig:
    """`root` and `epoch` pin the content: of a gocryptfs volume by its side manifest, where it has one."""

    source: Path
    mount: Path
    root: bytes | None  # SHA-256 of MANIFEST, or of the side manifest
    epoch: int | None
    uid: int = 0  # whom everything in the mount belongs to
    format: Format = Format.SEALED
    side: Path | None = None  # the side manifest of a gocryptfs volume
    mode: Mode = Mode.AUTO
    workers: int = 2
    memory: int | None = None  # bytes that files read ahead may take; None: what is available
    writable: bool = False

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the credential, or raise ConfigError naming the member that is wrong."""
        raw = parse_json(data, "volume", max_bytes=MAX_CREDENTIAL)
        if not isinstance(raw, dict):
            raise ConfigError(f"volume: got {type(raw).__name__}, want an object")
        if unknown := raw.keys() - _REQUIRED - _OPTIONAL:
            raise ConfigError(f"volume.{min(unknown)}: unknown key")
        form, writable = _one_of(raw, "format", Format, Format.SEALED), raw.get("writable", False)
        if type(writable) is not bool or (writable and form is not Format.GOCRYPTFS):
            raise ConfigError(f"volume.writable: got {writable!r}, want true only for format gocryptfs")
        pinned = form is Format.SEALED or bool(raw.keys() & {"root", "epoch", "side"})
        if writable and pinned:
            raise ConfigError(
                "volume.writable: got true with a root, epoch or side, want none: its content changes"
            )
        if "side" in raw and form is Format.SEALED:
            raise ConfigError("volume.side: got one, want it only for format gocryptfs")
        return cls(
            source=_path(raw, "source"),
            mount=_path(raw, "mount"),
            root=_root(raw) if pinned else None,
            epoch=_whole(raw, "epoch", 1, MAX_EPOCH) if pinned else None,
            uid=_whole(raw, "uid", 0, _NOBODY - 1) if "uid" in raw else 0,
            format=form,
            side=_path(raw, "side") if pinned and form is Format.GOCRYPTFS else None,
            mode=_one_of(raw, "mode", Mode, Mode.AUTO),
            workers=_whole(raw, "workers", 1, MAX_WORKERS) if "workers" in raw else default_workers(),
            memory=_whole(raw, "memory", 0, _MAX_MEMORY) if "memory" in raw else None,
            writable=writable,
        )


def default_workers() -> int:
    """One for each processor up to eight, and two at least: one that waits for the store must not stop all."""
    return max(2, min(8, len(os.sched_getaffinity(0))))


def _root(raw: Mapping[str, JSON]) -> bytes:
    root = raw.get("root")
    if not isinstance(root, str) or not _ROOT.fullmatch(root):
        raise ConfigError(f"volume.root: got {root!r}, want 64 lowercase hex digits")
    return bytes.fromhex(root)


def _one_of(raw: Mapping[str, JSON], key: str, kind: type[E], default: E) -> E:
    value = raw.get(key, default.value)
    if value not in [member.value for member in kind]:
        raise ConfigError(f"volume.{key}: got {value!r}, want {' or '.join(kind)}")
    return kind(str(value))


def _path(raw: Mapping[str, JSON], key: str) -> Path:
    value = raw.get(key)
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value or ".." in Path(value).parts:
        raise ConfigError(f"volume.{key}: got {value!r}, want an absolute path without ..")
    return Path(value)


def _whole(raw: Mapping[str, JSON], key: str, low: int, high: int) -> int:
    value = raw.get(key)
    if type(value) is not int or not low <= value <= high:  # bool is an int: type() on purpose
        raise ConfigError(f"volume.{key}: got {value!r}, want a whole number {low}..{high}")
    return value
