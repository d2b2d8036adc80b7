"""The `volume` credential: which sealed tree to serve, where, and what it must be."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from strongroom.errors import ConfigError
from strongroom.sealed.header import MAX_EPOCH
from strongroom.wire.canonical import JSON, parse_json

MAX_CREDENTIAL: Final = 16 * 1024  # bytes
_REQUIRED: Final = {"source", "mount", "root", "epoch"}
_ROOT: Final = re.compile(r"[0-9a-f]{64}")
_NOBODY: Final = 2**32 - 1  # the kernel's "no user"


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeConfig:
    source: Path
    mount: Path
    root: bytes  # SHA-256 of MANIFEST
    epoch: int
    uid: int = 0  # whom everything in the mount belongs to

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the credential, or raise ConfigError naming the member that is wrong."""
        raw = parse_json(data, "volume", max_bytes=MAX_CREDENTIAL)
        if not isinstance(raw, dict):
            raise ConfigError(f"volume: got {type(raw).__name__}, want an object")
        if unknown := raw.keys() - _REQUIRED - {"uid"}:
            raise ConfigError(f"volume.{min(unknown)}: unknown key")
        root = raw.get("root")
        if not isinstance(root, str) or not _ROOT.fullmatch(root):
            raise ConfigError(f"volume.root: got {root!r}, want 64 lowercase hex digits")
        return cls(
            source=_path(raw, "source"),
            mount=_path(raw, "mount"),
            root=bytes.fromhex(root),
            epoch=_whole(raw, "epoch", 1, MAX_EPOCH),
            uid=_whole(raw, "uid", 0, _NOBODY - 1) if "uid" in raw else 0,
        )


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
