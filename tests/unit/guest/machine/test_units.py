"""Mirrors guest/machine/units.py, door.py, listeners.py, pci.py and netns.py where no privilege is needed."""

import os
import socket
from pathlib import Path

import pytest

from guest.machine import door, netns, pci, units
from guest.machine.listeners import inherited, wanted
from strongroom.errors import FormatError, MachineError, PolicyError, ProtocolError

SHOWN = """\
Id=strongroom-fs.service
ActiveState=failed
SubState=failed
Result=exit-code
StatusText=manifest: epoch is 1, want 2
NRestarts=0
ExecMainStatus=6
MainPID=0

Id=strongroom-engine.service
ActiveState=active
SubState=running
Result=success
StatusText=
NRestarts=2
ExecMainStatus=0
MainPID=77
"""


def test_states_are_read_in_the_order_asked() -> None:
    engine, fs = units.parse_show(SHOWN, ("strongroom-engine.service", "strongroom-fs.service"))
    assert (engine.running, engine.restarts, engine.main_pid) == (True, 2, 77)
    assert not fs.running
    assert isinstance(fs.failure(), PolicyError)
    assert str(fs.failure()).startswith("manifest: epoch is 1, want 2 (strongroom-fs.service is failed")


def test_a_unit_that_systemd_does_not_show_is_an_error() -> None:
    with pytest.raises(MachineError, match=r"said nothing of other\.service"):
        units.parse_show(SHOWN, ("other.service",))


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\ncontent-type: application/json\r\n\r\n" + body


def test_door_states_parse_or_are_refused() -> None:
    spki = b"ab" * 32
    assert door.parse(answer(b'{"state":"open","spki_sha256":"%b","requests":3}' % spki)).open
    assert not door.parse(answer(b'{"state":"certified","spki_sha256":"%b"}' % spki)).open
    for bad in (
        b"",
        answer(b"{}", b"500 x"),
        answer(b"[]"),
        answer(b'{"state":1,"spki_sha256":"%b"}' % spki),
        answer(b'{"state":"ajar","spki_sha256":"%b"}' % spki),
        answer(b'{"state":"open","spki_sha256":"\\u001b[2J"}'),
        answer(b"{"),
    ):
        with pytest.raises((ProtocolError, FormatError)):
            door.parse(bad)


def test_listeners_come_by_name_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert inherited({"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"}) == {}
    assert inherited({}) == {}
    with pytest.raises(MachineError, match="no socket called credentials"):
        wanted({}, "credentials")
    with socket.socket(socket.AF_UNIX) as held:
        monkeypatch.setattr("guest.machine.listeners._FIRST", held.fileno())
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "evidence"}
        found = inherited(environ)
        assert environ == {}
        assert wanted(found, "evidence").detach() == held.fileno()


def pci_device(root: Path, name: str, vendor: str, kind: str) -> None:
    (root / name).mkdir()
    (root / name / "vendor").write_text(f"{vendor}\n")
    (root / name / "class").write_text(f"{kind}\n")


def test_gpus_are_counted_by_vendor_and_class(tmp_path: Path) -> None:
    assert pci.nvidia_gpus(tmp_path / "no-bus") == ()
    pci_device(tmp_path, "0000:02:00.0", "0x10de", "0x030200")
    pci_device(tmp_path, "0000:01:00.0", "0x10de", "0x030000")
    pci_device(tmp_path, "0000:03:00.0", "0x10de", "0x040300")  # its audio function
    pci_device(tmp_path, "0000:04:00.0", "0x8086", "0x030000")
    assert pci.nvidia_gpus(tmp_path) == ("0000:01:00.0", "0000:02:00.0")


DEV = "Inter-|   Receive\n face |bytes\n    lo: 0 0\n"


@pytest.mark.guarantee("G9")
def test_a_second_interface_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "7" / "net").mkdir(parents=True)
    (tmp_path / "7" / "net" / "dev").write_text(DEV)
    netns.check_sealed(7, tmp_path)
    (tmp_path / "7" / "net" / "dev").write_text(DEV + "  eth0: 1 2\n")
    with pytest.raises(MachineError, match="has eth0, lo, want lo alone"):
        netns.check_sealed(7, tmp_path)
    netns.check_sealed(8, tmp_path)  # ended meanwhile: its unit tells
