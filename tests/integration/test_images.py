"""Encrypted container images exchanged with skopeo and umoci, in both directions, and run."""

import os
import re
import shutil
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from strongroom.cli.main import main
from strongroom.host.images.layout import Layout
from strongroom.host.run import run
from strongroom.keys.jwk import PrivateKey
from tests import need
from tests.fakes.images import entry, make_layout, tar

KEYS: dict[str, PrivateKey] = {
    "p256": ec.derive_private_key(7, ec.SECP256R1()),
    "p521": ec.derive_private_key(9, ec.SECP521R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
}
LAYERS = [
    tar([entry("bin/hello", b"#!/bin/sh\necho hello\n", mode=0o755), entry("etc/old", b"old")]),
    tar([entry("etc/.wh.old"), entry("etc/new", os.urandom(3 << 20))]),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    need(shutil.which("skopeo") and shutil.which("umoci"), "no skopeo and umoci: apt install skopeo umoci")
    for name, key in KEYS.items():
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.key").write_bytes(pem)
        (tmp_path / f"{name}.key").chmod(0o600)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.pub").write_bytes(public)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def skopeo(*words: str) -> None:
    run(["skopeo", "--insecure-policy", "copy", "--quiet", *words])


def layers(layout: str) -> list[tuple[str, str]]:
    with Layout.open(Path(layout)) as opened:
        image = opened.image(opened.find("v1"))
        return [(layer.media_type, layer.digest) for layer in image.layers]


def digest(layout: str) -> str:
    with Layout.open(Path(layout)) as opened:
        return opened.find("v1")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("names", [["p256"], ["p521"], ["rsa"], ["rsa", "p256"]])
def test_skopeo_encrypts_and_we_decrypt(place: Path, names: list[str], zipped: bool) -> None:
    make_layout(place / "plain", LAYERS, zipped=zipped)
    skopeo(*(f"--encryption-key=jwe:{name}.pub" for name in names), "oci:plain:v1", "oci:sealed:v1")
    assert all(kind.endswith("+encrypted") for kind, _ in layers("sealed"))
    for name in names:
        assert (
            main(["image", "decrypt", "sealed", name, "--digest", digest("sealed"), "--key", f"{name}.key"])
            == 0
        )
        skopeo(f"--decryption-key={name}.key", "oci:sealed:v1", f"oci:{name}-theirs:v1")
        assert layers(name) == layers(f"{name}-theirs")
        skopeo(f"oci:{name}:v1", f"oci:{name}-copied:v1")  # skopeo verifies every digest
        run(["umoci", "raw", "unpack", "--rootless", "--image", f"{name}:v1", f"{name}-tree"])
        assert not Path(f"{name}-tree/etc/old").exists()


@pytest.mark.parametrize("names", [["p256"], ["p521"], ["rsa"], ["rsa", "p256"]])
def test_we_encrypt_and_skopeo_decrypts(place: Path, names: list[str]) -> None:
    make_layout(place / "plain", LAYERS)
    recipients = [word for name in names for word in ("--recipient", f"{name}.pub")]
    assert main(["image", "encrypt", "plain", "sealed", "--tag", "v1", *recipients]) == 0
    assert {kind for kind, _ in layers("sealed")} == {"application/vnd.oci.image.layer.v1.tar+gzip+encrypted"}
    for name in names:
        skopeo(f"--decryption-key={name}.key", "oci:sealed:v1", f"oci:{name}:v1")
        assert layers(name) == layers("plain")


def test_umoci_and_we_unpack_the_same_tree(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need(os.geteuid() == 0, "owners are kept for root alone")
    base = tar(
        [
            entry("usr/bin/su", b"x", mode=0o4755, uid=0),
            entry("home/me", b"mine", uid=1000, gid=1000, mode=0o600),
            entry("lib", type=b"2", linkname="usr/lib"),
            entry("usr/lib/a", b"a"),
            entry("usr/lib/b", type=b"1", linkname="usr/lib/a"),
            entry("gone/1", b"1"),
            entry("opaque/1", b"1"),
        ]
    )
    upper = tar(
        [entry(".wh.gone"), entry("opaque/2", b"2"), entry("opaque/.wh..wh..opq"), entry("usr/lib/c", b"c")]
    )
    make_layout(place / "plain", [base, upper])
    run(["umoci", "raw", "unpack", "--image", "plain:v1", "theirs"])
    assert main(["image", "unpack", "plain", "ours", "--digest", digest("plain")]) == 0
    assert f"root       {Path('ours/rootfs')}" in capsys.readouterr().out
    assert tree(Path("ours/rootfs")) == tree(Path("theirs"))


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        mode = status.st_mode if "." not in str(path.suffix) else 0
        folder = stat.S_ISDIR(status.st_mode)  # directories no layer lists are made as either likes
        found[str(path.relative_to(root))] = (
            content,
            stat.S_IFMT(mode) if folder else mode,
            status.st_uid,
            status.st_nlink if not folder else 0,
        )
    return found


def test_an_encrypted_image_runs(place: Path) -> None:
    """From skopeo's encrypted layout to a process whose root is the tree."""
    need(os.geteuid() == 0, "chroot needs root")
    shell = [Path("/bin/sh").resolve(), *libraries(Path("/bin/sh"))]
    files = [entry(str(path)[1:], path.read_bytes(), mode=0o755) for path in shell]
    links = [entry("bin/sh", type=b"2", linkname=str(shell[0]))] if shell[0] != Path("/bin/sh") else []
    make_layout(place / "plain", [tar([*files, *links]), *LAYERS])
    skopeo("--encryption-key=jwe:p256.pub", "oci:plain:v1", "oci:sealed:v1")
    assert main(["image", "unpack", "sealed", "app", "--digest", digest("sealed"), "--key", "p256.key"]) == 0
    root = place / "app" / "rootfs"
    assert run(["chroot", root, "/bin/hello"]).stdout == b"hello\n"
    assert run(["chroot", root, "/bin/sh", "-c", "test ! -e /etc/old && echo /*"]).stdout.startswith(b"/bin ")


def libraries(program: Path) -> list[Path]:
    said = run(["ldd", program]).stdout.decode()
    return [Path(match) for match in re.findall(r"(/\S+) \(0x", said)]
