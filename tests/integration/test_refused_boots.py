"""Boots that must end: each under a real systemd, each at its place, with one sentence, and with the machine off."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from demo.attacks import BOOTING, Attack, attempt
from demo.site import Scenario, Workshop, make_workshop, site
from tests import ROOT, need

pytestmark = [pytest.mark.systemd, pytest.mark.slow]

FOLDER = ROOT / "build" / "test-refused"
OFF = 30.0  # seconds from the last word of the record to the machine being off


@pytest.fixture(scope="module")
def workshop() -> Workshop:
    for name in ("guest", "engine"):
        need((ROOT / "build" / name / ".recipe").exists(), f"no build/{name}: run ./setup.sh all")
    return make_workshop(FOLDER)


def refused(workshop: Workshop, scenario: Scenario) -> tuple[dict[str, Any], str]:
    """The record of a boot that failed, once the machine is off, and what the console showed."""
    with site(workshop, FOLDER / "site", scenario) as made:
        record = made.wait("serving", "failed", timeout=120.0)
        assert record["state"] == "failed"
        assert made.running.child.wait(OFF) is not None, "the boot failed and the machine stayed on"
    return record, (made.folder / "guest.log").read_text("utf-8", "replace")


def failed_stage(record: dict[str, Any]) -> str:
    *before, last = record["stages"]
    assert all(stage["outcome"] == "ok" for stage in before)
    assert last["outcome"] == "failed"
    assert record["error"] == last["error"]
    assert "\n" not in record["error"]
    name: str = last["name"]
    return name


@pytest.mark.guarantee("G2")
@pytest.mark.guarantee("G3")
@pytest.mark.guarantee("G4")
@pytest.mark.guarantee("G5")
@pytest.mark.guarantee("G6")
@pytest.mark.parametrize("attack", BOOTING, ids=[attack.title for attack in BOOTING])
def test_attacks_are_refused_where_they_must_be(workshop: Workshop, attack: Attack) -> None:
    outcome = attempt(attack, workshop, FOLDER)
    assert outcome.as_wanted, outcome.refusal


USERDATA = {
    "ten megabytes": (lambda good: good + b"#" * 10_000_000, "bytes, want at most"),
    "not utf-8": (lambda good: good + b"\xff", "not UTF-8"),
    "a yaml bomb": (lambda good: good + b"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "anchor|alias"),
    "a wrong product key": (lambda good: good.replace(b"strongroom:", b"stringroom:"), "strongroom: missing"),
    "a duplicate key": (lambda good: good + b"  gpus: 1\n", "gpus"),
    "a wrong type": (lambda good: good.replace(b"gpus: 0", b"gpus: none"), "strongroom.gpus: got 'none'"),
    "a script": (lambda good: b"#!/bin/sh\n" + good, "is never run here"),
}


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize("name", USERDATA)
def test_bad_userdata_ends_the_boot_at_configure(workshop: Workshop, name: str) -> None:
    edit, sentence = USERDATA[name]
    record, _ = refused(workshop, Scenario(edit=edit))
    assert failed_stage(record) == "configure"
    assert any(word in record["error"] for word in sentence.split("|")), record["error"]


@pytest.mark.guarantee("G15")
@pytest.mark.parametrize(
    ("scenario", "sentence"),
    [
        (Scenario(broker="none", deadline_s=2), "within 2 s, last"),
        (Scenario(broker="silent", deadline_s=2), "within 2 s, last"),
        (Scenario(host_data="ab" * 32), "PolicyDeny"),
        (Scenario(wrong_ca=True), "certificate"),
    ],
    ids=["broker down", "broker silent", "broker refuses", "another broker's certificate"],
)
def test_a_broker_that_does_not_release_ends_the_boot_at_keys(
    workshop: Workshop, scenario: Scenario, sentence: str
) -> None:
    record, _ = refused(workshop, scenario)
    assert failed_stage(record) == "keys"
    assert sentence in record["error"], record["error"]
    assert record["stages"][-1]["ms"] < 10_000  # the deadline of 2 s was kept, with room for a slow machine


@pytest.mark.guarantee("G15")
def test_the_console_shows_why(workshop: Workshop) -> None:
    record, console = refused(
        workshop, Scenario(edit=lambda good: good.replace(b"version: 1", b"version: 9"))
    )
    assert failed_stage(record) == "configure"
    assert "Strongroom: failed" in console
    assert "because     strongroom.version: got 9" in console


@pytest.mark.guarantee("G1")
def test_a_guest_of_another_measurement_gets_no_key(workshop: Workshop, tmp_path: Path) -> None:
    """One changed byte in a unit file, and the golden value no longer matches."""
    record, _ = refused(workshop, Scenario(units=_changed_units(workshop, tmp_path)))
    assert failed_stage(record) == "keys"
    assert "measurement" in record["error"]


def _changed_units(workshop: Workshop, folder: Path) -> Path:
    changed = folder / "units"
    shutil.copytree(workshop.payload.units, changed)
    unit = changed / "strongroom-engine.service"
    unit.write_text(unit.read_text().replace("NoNewPrivileges=yes", "NoNewPrivileges=no"))
    return changed
