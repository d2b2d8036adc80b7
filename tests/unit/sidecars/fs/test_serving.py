"""Mirrors sidecars/fs/serving.py: what the service manager keeps, or does not."""

import os
from pathlib import Path
from typing import Any

import pytest

from sidecars.fs import device, serving
from sidecars.fs.config import VolumeConfig
from sidecars.fs.device import Terms
from sidecars.fs.mounting import TYPE, Mounted
from sidecars.fs.protocol.frames import InitFlag
from sidecars.fs.workers.kept import Held
from strongroom.host import notify

CONFIG = VolumeConfig(source=Path("/s"), mount=Path("/m"), root=None, epoch=None, workers=2)


@pytest.mark.parametrize("adopted", [True, False])
@pytest.mark.parametrize("refused", [None, "device", "clone"])
def test_half_of_what_is_kept_is_let_go_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], adopted: bool, refused: str | None
) -> None:
    dropped: list[str] = []
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.setattr(notify, "keep", lambda name, _: name != refused)
    monkeypatch.setattr(notify, "let_go", dropped.append)
    monkeypatch.setattr(device, "clone", os.dup)
    here: Any = os.open(os.devnull, os.O_RDONLY)
    held = Held(here, Terms(45, InitFlag.HAS_RESEND), Mounted(24, "0:40", TYPE))
    serving._keep(held, CONFIG, "ab", adopted=adopted)
    held.close()
    assert len(held.clones) == 2
    lost = refused is not None and (not adopted or refused == "clone")
    assert ("agreement" in dropped) == lost
    assert ("did not take our descriptors" in capsys.readouterr().err) == lost
