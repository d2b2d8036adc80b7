"""Mirrors sidecars/fs/config.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from sidecars.fs.config import VolumeConfig
from strongroom.errors import ConfigError, FormatError

GOOD: dict[str, Any] = {"source": "/srv/sealed", "mount": "/run/model", "root": "ab" * 32, "epoch": 3}


def parse(**members: Any) -> VolumeConfig:
    return VolumeConfig.parse(json.dumps(GOOD | members).encode())


def test_parse() -> None:
    assert parse() == VolumeConfig(
        source=Path("/srv/sealed"), mount=Path("/run/model"), root=b"\xab" * 32, epoch=3, uid=0
    )
    assert parse(uid=1000).uid == 1000


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
