"""Mirrors guest/keysock/machine.py: what cannot be replayed is not claimed, and who the machine is."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from guest.keysock.machine import Described, Machine, described
from guest.keysock.plan import Origin
from strongroom.evidence.dstack_identity import app_id
from strongroom.evidence.dstack_log import view
from strongroom.evidence.eventlog import Event, EventLog
from tests.fakes.intel import BODY, Platform
from tests.fakes.keysock import FakeTD, firmware
from tests.fakes.silicon import HOST_DATA, MEASUREMENT, silicon
from tests.unit.guest.keysock.test_plan import PLAN

LOG = EventLog((Event("userdata", bytes(32)),))


def of_td(*, followed: bool = True, log: bool = True) -> Described:
    td = FakeTD()
    if followed:
        td.extend(LOG.events[0].digest)
    plan = replace(PLAN, firmware=firmware() if log else ())
    machine = Machine.of("tdx", td.report(bytes(64)).outblob[:-16])
    return described(plan, machine, LOG, root_public=b"\2" * 33, certificate="", dmi=Path("/nonexistent"))


def test_a_td_whose_registers_follow() -> None:
    seen = of_td()
    assert seen.gaps() == () and seen.follows
    assert seen.log(LOG) == (*firmware(), *view(LOG))
    body = seen.body(LOG.extend(Event("later", b"")))
    assert body is not None and body.rtmr3 == LOG.extend(Event("later", b"")).head


def test_a_kernel_without_the_register_is_shown_as_it_is() -> None:
    seen = of_td(followed=False)
    assert not seen.follows and seen.log(LOG) == firmware()
    assert json.loads(str(seen.info(LOG).to_json()["tcb_info"]))["rtmr3"] == "0" * 96


def test_a_firmware_without_a_log_is_noticed() -> None:
    assert of_td(log=False).gaps() == (0, 1, 2)


def test_a_td_is_known_by_its_ppid() -> None:
    machine = Machine.of("tdx", Platform().quote().pack())
    assert machine.device == b"\x55" * 16 and machine.measurement == BODY.mr_td
    nameless = replace(Platform().quote(), pck_chain=b"no certificate\0").pack()
    assert Machine.of("tdx", nameless).device == b""


def test_a_snp_guest_is_known_by_its_chip() -> None:
    machine = Machine.of("snp", silicon().report(bytes(64)))
    assert (machine.measurement, machine.committed) == (MEASUREMENT, HOST_DATA)
    assert machine.device == silicon().pki.chip_id and machine.body is None


@pytest.mark.parametrize(("kind", "name"), [("broker", "kms"), ("vtpm", "tpm"), ("ephemeral", "none")])
def test_dstacks_word_for_where_keys_come_from(kind: str, name: str) -> None:
    seen = of_td()
    seen = replace(seen, plan=replace(seen.plan, origin=Origin(kind=kind), app_id=b""))
    provider = json.loads(seen.app(LOG).key_provider_info)
    assert provider["name"] == name and provider["root"] == kind
    assert seen.app_id == app_id(seen.plan.userdata_sha256)


def test_the_instance_is_this_root_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "sys_vendor").write_text("Google\n")
    seen = of_td()
    other_root = replace(seen, root_public=b"\3" * 33)
    other_machine = replace(seen, machine=replace(seen.machine, device=sha256(b"x").digest()))
    ids = {one.app(LOG).instance_id for one in (seen, other_root, other_machine)}
    assert len(ids) == 3 and all(len(one) == 20 for one in ids)
    told = described(PLAN, seen.machine, LOG, root_public=b"", certificate="", dmi=tmp_path)
    assert (told.vendor, told.product) == ("Google", "") and told.app(LOG).instance_id == b""
