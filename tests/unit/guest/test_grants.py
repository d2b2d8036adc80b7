"""Mirrors guest/grants.py and guest/peers.py, over real sockets."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from guest.grants import Grants
from guest.peers import credentials, unit_in
from strongroom.errors import PolicyError

ADDRESS = b"\0fecaa8311f7bd675/unit/strongroom-fs.service/model-key"
KEY = bytes(range(32))
FS, ENGINE = "strongroom-fs.service", "strongroom-engine.service"


def granted() -> Grants:
    grants = Grants()
    grants.grant("strongroom-fs.service", "model-key", KEY)
    return grants


def test_a_unit_gets_what_it_was_granted() -> None:
    assert granted().take(ADDRESS, 0, FS).reveal() == KEY


@pytest.mark.guarantee("G11")
@pytest.mark.parametrize(
    ("address", "uid", "unit", "sentence"),
    [
        (ADDRESS, 0, "strongroom-netns.service", "asked in the name of strongroom-fs.service"),
        (ADDRESS, 1000, FS, "uid 1000"),
        (
            ADDRESS.replace(b"fs", b"engine"),
            0,
            ENGINE,
            "strongroom-engine.service was never granted model-key",
        ),
        (ADDRESS.replace(b"model-key", b"other"), 0, FS, "never granted other"),
        (ADDRESS[1:], 0, FS, "no abstract address"),
        ("", 0, FS, "no abstract address"),
        (b"\0x/unit/strongroom-fs.service/model-key/more", 0, FS, "another shape"),
        (b"\0x/path/strongroom-fs.service/model-key", 0, FS, "another shape"),
        (b"\0", 0, FS, "another shape"),
    ],
)
def test_everybody_else_gets_nothing(address: object, uid: int, unit: str, sentence: str) -> None:
    with pytest.raises(PolicyError, match=sentence) as caught:
        granted().take(address, uid, unit)
    assert KEY.hex() not in str(caught.value)


def test_wiped_grants_are_gone() -> None:
    grants = granted()
    grants.wipe()
    with pytest.raises(PolicyError, match="never granted"):
        grants.take(ADDRESS, 0, FS)


@pytest.mark.guarantee("G11")
def test_no_repr_shows_a_credential() -> None:
    assert KEY.hex() not in repr(granted().__dict__)
    assert repr(KEY)[2:-1] not in repr(granted().__dict__)


@pytest.mark.skipif(os.geteuid() != 0, reason="systemd connects as root, and so must this test")
def test_serves_the_way_systemd_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd binds its end to an abstract address that names unit and credential, then reads to the end."""

    monkeypatch.setattr("guest.grants.unit_of", lambda connection: FS)

    async def exchange() -> tuple[bytes, bytes]:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "credentials.sock"))
        listener.listen()
        task = asyncio.create_task(granted().serve(listener))
        found = [await asyncio.to_thread(ask, a) for a in (ADDRESS, ADDRESS.replace(b"fs", b"engine"))]
        task.cancel()
        listener.close()
        return found[0], found[1]

    def ask(address: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as systemd:
            systemd.bind(address)
            systemd.connect(str(tmp_path / "credentials.sock"))
            systemd.settimeout(5)
            return b"".join(iter(lambda: systemd.recv(4096), b""))

    assert asyncio.run(exchange()) == (KEY, b"")


def test_units_are_read_from_the_unified_hierarchy() -> None:
    text = "8:pids:/\n0::/system.slice/strongroom-proxy.service\n"
    assert unit_in(text, 1) == "strongroom-proxy.service"
    assert unit_in("0::/system.slice/strongroom-proxy.service/sub\n", 1) == "strongroom-proxy.service"
    for other in (
        "0::/system.slice/docker-0.scope/system.slice/strongroom-proxy.service\n",
        "0::/docker/0/strongroom-proxy.service\n",
        "",
        "0::/\n",
        "0::/init.scope\n",
        "1:name=systemd:/system.slice/strongroom-proxy.service\n",
    ):
        with pytest.raises(PolicyError, match="no service unit"):
            unit_in(other, 1)


@pytest.mark.guarantee("G8")
def test_a_name_chosen_below_a_delegated_unit_is_no_unit() -> None:
    unit = unit_in("0::/user.slice/user@1000.service/app.slice/strongroom-proxy.service\n", 1)
    assert unit == "user@1000.service"
    assert unit_in("0::/system.slice/a.service/strongroom-proxy.service\n", 1) == "a.service"


def test_peer_credentials_come_from_the_kernel() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert credentials(here) == (os.getpid(), os.getuid(), os.getgid())


@pytest.mark.skipif(os.geteuid() != 0, reason="systemd connects as root, and so must this test")
@pytest.mark.parametrize("expected", [True, False])
def test_an_expected_unit_waits_for_its_grant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: bool
) -> None:
    """Somebody's connection may start it before the boot has come that far. Nobody else is kept waiting."""
    monkeypatch.setattr("guest.grants.unit_of", lambda connection: FS)

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as systemd:
            systemd.bind(ADDRESS)
            systemd.connect(str(tmp_path / "credentials.sock"))
            systemd.settimeout(5)
            return b"".join(iter(lambda: systemd.recv(4096), b""))

    async def exchange() -> bytes:
        grants = Grants(FS) if expected else Grants()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "credentials.sock"))
            listener.listen()
            task = asyncio.create_task(grants.serve(listener))
            asking = asyncio.create_task(asyncio.to_thread(ask))
            await asyncio.sleep(0.1)
            grants.grant(FS, "another", b"x")
            await asyncio.sleep(0.1)
            assert asking.done() is not expected
            grants.grant(FS, "model-key", KEY)
            found = await asking
            task.cancel()
        return found

    assert asyncio.run(exchange()) == (KEY if expected else b"")
