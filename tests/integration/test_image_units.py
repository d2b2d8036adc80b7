"""The two units of docs/guides/container-images.md under a real systemd: an encrypted image becomes a unit's root.

They are taken from the guide as they stand there, but for the digest, and for where our program is.
"""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from demo.container import Bind, Container, container
from demo.network import cable
from strongroom.cli.main import main
from strongroom.host.images.layout import Layout
from tests import ROOT
from tests.fakes.images import entry, make_layout, tar
from tests.integration.test_images import libraries

pytestmark = [pytest.mark.systemd, pytest.mark.slow, pytest.mark.usefixtures("systemd_host")]

GUIDE = ROOT / "docs/guides/container-images.md"
BACK = 60.0  # seconds
HERE = {"/usr/bin/strongroom ": "/srv/venv/bin/python -m strongroom ", "/run/keys/": "/srv/keys/"}
ROOT_NAMES = {
    "/bin",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
}
APP = """\
#!/bin/sh
echo "root:" /*
while read -r name value rest; do
    case $name in Uid:|NoNewPrivs:) echo "$name $value" ;; esac
done < /proc/self/status
"""
TARGET = """\
[Unit]
Description=A machine that runs one application
Requires=basic.target
Wants=app.service
After=basic.target
AllowIsolate=yes
"""


def guide_units() -> dict[str, str]:
    blocks = re.findall(r"```ini\n# (\S+)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert [name for name, _ in blocks] == ["app-image.service", "app.service"]
    return dict(blocks)


def make_units(folder: Path, digest: str) -> Path:
    units = folder / "units"
    units.mkdir()
    for name, text in guide_units().items():
        written, _ = re.subn(r"sha256:\S+", digest, text)
        for there, here in HERE.items():
            assert there in text or name == "app.service"
            written = written.replace(there, here)
        (units / name).write_text(written)
    assert digest in (units / "app-image.service").read_text()
    (units / "app-image.service.d").mkdir()
    (units / "app-image.service.d" / "here.conf").write_text("[Service]\nEnvironment=PYTHONPATH=/srv/code\n")
    (units / "strongroom.target").write_text(TARGET)
    return units


def make_image(folder: Path) -> str:
    """An encrypted image with a shell and the application, and the key to it; the result is its digest."""
    key = ec.derive_private_key(7, ec.SECP256R1())
    (folder / "keys").mkdir()
    (folder / "keys" / "app").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "app.pub").write_bytes(public)
    shell = [Path("/bin/sh").resolve(), *libraries(Path("/bin/sh"))]
    files = [entry(str(path)[1:], path.read_bytes(), mode=0o755) for path in shell]
    links = [entry("bin/sh", type=b"2", linkname=str(shell[0]))] if shell[0] != Path("/bin/sh") else []
    make_layout(
        folder / "plain", [tar([*files, *links]), tar([entry("usr/bin/app", APP.encode(), mode=0o755)])]
    )
    sealed = folder / "images" / "app-encrypted"
    sealed.parent.mkdir()
    words = ["image", "encrypt", folder / "plain", sealed, "--tag", "v1", "--recipient", folder / "app.pub"]
    assert main(list(map(str, words))) == 0
    with Layout.open(sealed) as layout:
        return layout.find("v1")


@contextmanager
def machine(folder: Path, units: Path) -> Iterator[Container]:
    binds = [
        Bind(units, "/etc/systemd/system"),
        Bind(folder / "images", "/srv/images"),
        Bind(folder / "keys", "/srv/keys"),
        Bind(ROOT / "strongroom", "/srv/code/strongroom"),
        Bind(Path(sys.prefix), "/srv/venv"),
    ]
    with (
        (folder / "guest.log").open("wb") as log,
        cable() as wire,
        container(folder, name="image", namespace=wire.namespace, binds=binds, log=log) as guest,
    ):
        deadline = time.monotonic() + BACK
        while b"Reached target strongroom.target" not in (folder / "guest.log").read_bytes():
            assert guest.alive
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield guest


def shown(guest: Container, unit: str) -> dict[str, str]:
    done = guest.run("systemctl", "show", "-p", "ActiveState,Result,ExecMainStatus", unit, check=False)
    return dict(line.partition("=")[::2] for line in done.stdout.decode().splitlines())


def until_ended(guest: Container, unit: str) -> str:
    """What it said, when it has run or failed."""
    deadline = time.monotonic() + BACK
    while True:
        journal = guest.journal("-o", "cat", "-u", unit)
        if re.search("Deactivated successfully|Failed with result|Dependency failed", journal):
            return journal
        assert guest.alive
        assert time.monotonic() < deadline, guest.journal()
        time.sleep(0.1)


def test_a_unit_has_the_image_as_its_root(tmp_path: Path) -> None:
    digest = make_image(tmp_path)
    with machine(tmp_path, make_units(tmp_path, digest)) as guest:
        said = until_ended(guest, "app.service").splitlines()
        assert shown(guest, "app-image.service")["ActiveState"] == "active", guest.journal()
        (root,) = [line for line in said if line.startswith("root:")]
        assert {"/bin", "/usr"} <= set(root.split()[1:]) <= ROOT_NAMES
        assert {"Uid: 1000", "NoNewPrivs: 1"} <= set(said)
        assert guest.run("stat", "-c", "%a", "/run/app-image").stdout.strip() == b"700"
        guest.run("systemctl", "stop", "app-image.service")
        assert guest.run("test", "-e", "/run/app-image", check=False).status == 1


def test_without_the_right_image_nothing_runs(tmp_path: Path) -> None:
    digest = make_image(tmp_path)
    other = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    with machine(tmp_path, make_units(tmp_path, other)) as guest:
        assert "Dependency failed" in until_ended(guest, "app.service")
        assert shown(guest, "app-image.service")["ExecMainStatus"] == "5"
        assert guest.run("test", "-e", "/run/app-image", check=False).status == 1
