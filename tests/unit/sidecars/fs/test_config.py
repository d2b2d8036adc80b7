"""Mirrors sidecars/fs/config.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from sidecars.fs.config import MAX_WORKERS, Format, Mode, VolumeConfig, default_workers
from strongroom.errors import ConfigError, FormatError

BARE: dict[str, Any] = {"source": "/srv/cipher", "mount": "/run/state", "format": "gocryptfs"}
GOOD: dict[str, Any] = {"source": "/srv/sealed", "mount": "/run/model", "root": "ab" * 32, "epoch": 3}


def parse(**members: Any) -> VolumeConfig:
    return VolumeConfig.parse(json.dumps(GOOD | members).encode())


def test_parse() -> None:
    assert parse() == VolumeConfig(
        source=Path("/srv/sealed"),
        mount=Path("/run/model"),
        root=b"\xab" * 32,
        epoch=3,
        uid=0,
        format=Format.SEALED,
        side=None,
        mode=Mode.AUTO,
        workers=default_workers(),
        memory=None,
        writable=False,
    )
    given = parse(uid=1000, mode="resident", workers=3, memory=1 << 40)
    assert (given.uid, given.mode, given.workers, given.memory) == (1000, Mode.RESIDENT, 3, 1 << 40)
    assert 2 <= default_workers() <= MAX_WORKERS


def test_parse_gocryptfs() -> None:
    pinned = parse(format="gocryptfs", side="/srv/side")
    assert (pinned.format, pinned.side, pinned.root, pinned.epoch) == (
        Format.GOCRYPTFS,
        Path("/srv/side"),
        b"\xab" * 32,
        3,
    )
    bare = VolumeConfig.parse(json.dumps(BARE).encode())
    assert (bare.side, bare.root, bare.epoch, bare.writable) == (None, None, None, False)
    assert VolumeConfig.parse(json.dumps(BARE | {"writable": True}).encode()).writable


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"more": 1}, "volume.more: unknown key"),
        ({"root": "ab"}, "volume.root: got 'ab', want 64 lowercase hex digits"),
        ({"root": None}, "volume.root"),
        ({"root": "AB" * 32}, "volume.root"),
        ({"source": "relative"}, "volume.source: got 'relative', want an absolute path"),
        ({"mount": "/run/../etc"}, "volume.mount"),
        ({"mount": 7}, "volume.mount"),
        ({"epoch": "3"}, "volume.epoch: got '3', want a whole number"),
        ({"epoch": True}, "volume.epoch: got True"),
        ({"epoch": 0}, "volume.epoch: got 0"),
        ({"uid": -1}, "volume.uid: got -1"),
        ({"uid": 2**32 - 1}, "volume.uid"),
        ({"format": "zip"}, "volume.format: got 'zip', want sealed or gocryptfs"),
        ({"format": ["sealed"]}, "volume.format: got"),
        ({"mode": "fast"}, "volume.mode: got 'fast', want auto or stream or resident"),
        ({"workers": 0}, "volume.workers: got 0, want a whole number 1..16"),
        ({"workers": 17}, "volume.workers: got 17"),
        ({"memory": -1}, "volume.memory: got -1"),
        ({"side": "/srv/side"}, "volume.side: got one, want it only for format gocryptfs"),
        ({"format": "gocryptfs"}, "volume.side: got None, want an absolute path"),
        ({"format": "gocryptfs", "side": "side"}, "volume.side: got 'side'"),
        ({"writable": True}, "volume.writable: got True, want true only for format gocryptfs"),
        ({"writable": 1, "format": "gocryptfs"}, "volume.writable: got 1"),
        ({"writable": True, "format": "gocryptfs"}, "volume.writable: got true with a root"),
    ],
)
def test_rejects_and_says_why(members: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse(**members)


def test_other_json_is_refused() -> None:
    with pytest.raises(ConfigError, match="got list, want an object"):
        VolumeConfig.parse(b"[]")
    with pytest.raises(FormatError, match=r"^volume: "):
        VolumeConfig.parse(b"{")
