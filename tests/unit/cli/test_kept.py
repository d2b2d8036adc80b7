"""Mirrors strongroom/cli/kept.py; with servers and services it runs in tests/integration/test_collateral.py."""

from datetime import datetime
from pathlib import Path
from typing import Literal

import pytest

from strongroom.cli.kept import Kept, default_directory
from strongroom.cli.main import main
from strongroom.errors import ConfigError
from strongroom.evidence.binding import Purpose
from strongroom.host.collateral.store import Store
from strongroom.verify.lacking import LackingError
from tests.fakes.machine import Machine, policy_file
from tests.fakes.makers import World


@pytest.mark.parametrize(
    ("tee", "gpus", "options"),
    [
        ("tdx", 0, ["--tdx-platform 90c06f000000:platform"]),
        ("snp", 0, ["--snp-issuers Genoa"]),
        ("snp", 1, ["--snp-issuers Genoa", "--rim NV_GPU_DRIVER_GH100_580.95.05"]),
    ],
)
def test_what_lacks_is_told_with_the_command_that_gets_it(
    tee: Literal["snp", "tdx"], gpus: int, options: list[str], now: datetime, tmp_path: Path
) -> None:
    world = World(now, tee, gpus)
    kept = Kept(tmp_path, roots=world.roots, now=now)
    kept(world.make(purpose=Purpose.BOOT, challenge=bytes(32), key=b"key"))
    with pytest.raises(LackingError) as caught, kept.telling():
        raise LackingError("something: lacking")
    told = str(caught.value)
    assert told.startswith("something: lacking; get it with --fetch, or `strongroom collateral fill --")
    assert all(option in told for option in options) and told.endswith(f"--cache {tmp_path}`")


def test_a_store_is_used_as_it_is(now: datetime, tmp_path: Path) -> None:
    world = World(now, "tdx")
    world.fill(Store.create(tmp_path))
    kept = Kept(tmp_path, roots=world.roots, now=now)
    bundle = world.make(purpose=Purpose.BOOT, challenge=bytes(32), key=b"key")
    assert kept(bundle).collateral == world.collateral
    with pytest.raises(ConfigError, match="nowhere is no directory"):
        Kept(tmp_path / "nowhere", roots=world.roots, now=now)


def test_the_directory_is_that_of_the_collateral_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_directory() == Path("/somewhere/strongroom/collateral")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_directory().parts[-3:] == (".cache", "strongroom", "collateral")


@pytest.mark.parametrize(
    "words", [["https://a.example", "--collateral", "/a", "--collateral", "/b"], ["-", "--fetch"]]
)
def test_options_that_make_no_sense_are_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = policy_file(tmp_path, Machine())
    assert main(["verify", *words, "--policy", str(policy)]) == 3
    assert capsys.readouterr().err.count("\n") == 1
