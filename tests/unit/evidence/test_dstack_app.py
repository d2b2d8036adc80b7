"""Mirrors strongroom/evidence/dstack_app.py."""

import json
from typing import Any

import pytest

from strongroom.errors import FormatError, StrongroomError
from strongroom.evidence.dstack_app import TCB, AppInfo, Info
from strongroom.evidence.dstack_log import view
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.wire.messagepack import MessagePack, pack_messagepack, parse_messagepack

APP = AppInfo(
    app_id=bytes([1]) * 20,
    compose_hash=bytes([2]) * 32,
    instance_id=b"",
    device_id=bytes([4]) * 32,
    mr_system=bytes([5]) * 32,
    mr_aggregated=bytes([6]) * 32,
    os_image_hash=b"",
    key_provider_info=b'{"name":"none","id":""}',
    init_script_hashes=(bytes([7]) * 32,),
)
LOG = view(EventLog((Event("boot-done", b"{}"),)))
TEE: dict[str, Any] = {"tee": {"kind": "snp"}}
INFO = Info(app=APP, tcb=TCB(event_log=LOG, app_compose='{"name":"é"}', more=TEE), app_name="a")


def test_app_info_is_a_list_in_order() -> None:
    value: Any = parse_messagepack(APP.pack(), "x")
    assert (len(value), value[0], value[7]) == (9, APP.app_id, APP.key_provider_info)
    assert AppInfo.parse(APP.pack()) == APP
    older = AppInfo.parse(pack_messagepack(value[:8]))
    assert older.init_script_hashes is None
    assert AppInfo.parse(older.pack()) == older


def test_every_cut_is_refused() -> None:
    packed = APP.pack()
    for n in range(len(packed)):
        with pytest.raises(StrongroomError):
            AppInfo.parse(packed[:n])


@pytest.mark.parametrize(
    ("at", "item"), [(0, "text"), (4, b""), (1, bytes(31)), (8, b""), (8, ["text"]), (3, None)]
)
def test_a_wrong_item_is_refused(at: int, item: MessagePack) -> None:
    value: Any = parse_messagepack(APP.pack(), "x")
    with pytest.raises(FormatError, match=r"^app info: "):
        AppInfo.parse(pack_messagepack([*value[:at], item, *value[at + 1 :]]))


def test_info_as_released_clients_want_it() -> None:
    value: Any = INFO.to_json()
    tcb = json.loads(value["tcb_info"])
    assert value["tcb_info"].isascii()
    assert tcb["mrtd"] == tcb["rtmr3"] == "00" * 48
    assert (tcb["app_compose"], tcb["tee"]) == ('{"name":"é"}', {"kind": "snp"})
    assert tcb["event_log"][0]["digest"] == LOG[0].digest.hex()
    assert json.loads(value["key_provider_info"]) == {"name": "none", "id": ""}
    assert all(isinstance(member, str) for member in value.values())


def test_outside_it_shows_less() -> None:
    value = INFO.to_json(public=False)
    assert value["tcb_info"] == value["vm_config"] == ""
    assert value["compose_hash"] == "02" * 32
    shown = INFO.to_json_v1()
    assert "tcb_info" not in shown and "app_cert" not in shown
    hidden = INFO.to_json_v1(public=False)
    assert {name for name in shown if shown[name] != hidden[name]} == {"app_compose", "key_provider_info"}


def test_our_members_never_replace_theirs() -> None:
    tcb = TCB(app_compose="", more={"mrtd": "evil"})
    assert json.loads(tcb.text(APP))["mrtd"] == "00" * 48


def test_a_register_is_48_bytes() -> None:
    with pytest.raises(FormatError, match="register"):
        TCB(mrtd=bytes(47), app_compose="")
