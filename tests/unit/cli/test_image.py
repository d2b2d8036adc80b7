"""Mirrors strongroom/cli/image.py, as a person runs it."""

import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from strongroom.cli.main import main
from tests.fakes.images import digest_of, entry, make_layout, tar

OURS, THEIRS = (ec.derive_private_key(n, ec.SECP256R1()) for n in (7, 9))


def write_key(
    name: str, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    fd = os.open(f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(pem)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    Path(f"{name}.pub").write_bytes(public)


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The digest of an image encrypted for OURS, in ./sealed."""
    monkeypatch.chdir(tmp_path)
    write_key("ours", OURS)
    write_key("theirs", THEIRS)
    make_layout(tmp_path / "plain", [tar([entry("a", b"x" * 5000)]), tar([entry("b", b"y")])])
    assert main(["image", "encrypt", "plain", "sealed", "--recipient", "ours.pub", "--json"]) == 0
    digest = json.loads(capsys.readouterr().out)["digest"]
    assert isinstance(digest, str)
    return digest


def test_encrypt_decrypt_unpack(sealed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["image", "decrypt", "sealed", "again", "--digest", sealed, "--key", "ours.key", "--json"]) == 0
    )
    digest = json.loads(capsys.readouterr().out)["digest"]
    assert main(["image", "unpack", "again", "from-plain", "--digest", digest]) == 0
    assert main(["image", "unpack", "sealed", "from-sealed", "--digest", sealed, "--key", "ours.key"]) == 0
    for tree in ("from-plain", "from-sealed"):
        assert Path(tree, "rootfs/a").read_bytes() == b"x" * 5000
        assert json.loads(Path(tree, "config").read_bytes())["os"] == "linux"
    out = capsys.readouterr().out
    assert "unpacked   2 layers, 2 entries\nroot       from-sealed/rootfs\n" in out
    blobs = {path.name for path in Path("plain/blobs/sha256").iterdir()}
    assert len(blobs & {path.name for path in Path("again/blobs/sha256").iterdir()}) == 3  # layers and config


def test_nothing_of_the_plaintext_is_in_the_sealed_layout(sealed: str) -> None:
    content = b"".join(path.read_bytes() for path in Path("sealed").rglob("*") if path.is_file())
    for path in Path("plain/blobs/sha256").iterdir():
        if path.read_bytes()[:2] == b"\x1f\x8b":
            assert path.read_bytes() not in content
    assert sealed.removeprefix("sha256:") in {path.name for path in Path("sealed/blobs/sha256").iterdir()}


@pytest.mark.guarantee("G11")
def test_a_key_from_a_credential(
    sealed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "credentials").mkdir()
    Path("ours.key").rename(tmp_path / "credentials" / "image-key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    words = ["image", "unpack", "sealed", "tree", "--digest", sealed, "--key"]
    assert main([*words, "credential:image-key"]) == 0
    assert main([*words, "credential:other"]) == 8
    assert "credential other: no such file" in capsys.readouterr().err


@pytest.mark.guarantee("G16")
def test_refusals_are_one_line(sealed: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_key("odd", ed25519.Ed25519PrivateKey.generate())
    Path("open.key").write_bytes(Path("ours.key").read_bytes())
    Path("open.key").chmod(0o644)
    Path("junk.key").write_bytes(b"s3cret")
    Path("junk.key").chmod(0o600)
    cases = {
        "theirs.key": (5, ": jwe: none of 1 recipients is our key"),
        "odd.key": (4, "image key: want an EC or RSA private key in PEM or DER, without a password"),
        "open.key": (3, "open.key: mode is 0644, want 0600: it holds a secret"),
        "junk.key": (4, "image key: want an EC or RSA private key in PEM or DER, without a password"),
        "none.key": (8, "none.key: no such file or directory"),
    }
    for key, (code, why) in cases.items():
        for verb in ("decrypt", "unpack"):
            assert main(["image", verb, "sealed", "dest", "--digest", sealed, "--key", key]) == code
            err = capsys.readouterr().err
            assert err.startswith("strongroom: ") and err.endswith(f"{why}\n") and err.count("\n") == 1
            assert "s3cret" not in err and not Path("dest").exists()
    assert main(["image", "unpack", "sealed", "dest", "--digest", sealed]) == 3
    assert "is encrypted, want a key" in capsys.readouterr().err
    assert main(["image", "unpack", "sealed", "dest", "--digest", "v1"]) == 3
    assert "--digest: digest is 'v1', want sha256: and 64 lowercase hex digits" in capsys.readouterr().err
    assert main(["image", "unpack", "sealed", "dest", "--digest", digest_of(b"other")]) == 5
    assert "is missing" in capsys.readouterr().err
    assert main(["image", "encrypt", "plain", "dest", "--recipient", "odd.pub"]) == 3
    assert main(["image", "encrypt", "plain", "dest", "--recipient", "ours.pub", "--tag", "v9"]) == 3
    assert "has 0 of them, want one image tagged 'v9'" in capsys.readouterr().err
    assert main(["image", "decrypt", "sealed", "plain", "--digest", sealed, "--key", "ours.key"]) == 3
    assert "plain: not empty" in capsys.readouterr().err


@pytest.mark.guarantee("G4")
def test_every_changed_byte_of_a_sealed_layout_is_noticed(
    sealed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = 0
    for path in sorted(Path("sealed/blobs/sha256").iterdir()):
        content = path.read_bytes()
        for at in range(0, len(content), 37):
            path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
            assert main(["image", "unpack", "sealed", "dest", "--digest", sealed, "--key", "ours.key"]) == 5
            counted += 1
        path.write_bytes(content)
    assert counted > 50 and not Path("dest").exists()
    capsys.readouterr()


def modes(top: str) -> set[str]:
    return {oct(path.stat().st_mode & 0o777) for path in [Path(top), *Path(top).rglob("*")]}


def test_what_is_decrypted_is_private(sealed: str) -> None:
    os.umask(before := os.umask(0o022))
    assert before == 0o022
    assert main(["image", "decrypt", "sealed", "again", "--digest", sealed, "--key", "ours.key"]) == 0
    assert modes("again") == {"0o700", "0o600"} and modes("sealed") == {"0o755", "0o644"}
    Path("there").mkdir(0o755)
    assert main(["image", "decrypt", "sealed", "there", "--digest", sealed, "--key", "ours.key"]) == 0
    assert Path("there/blobs").stat().st_mode & 0o777 == 0o700


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("existed", [True, False])
def test_nothing_stays_of_an_image_that_does_not_verify(
    sealed: str, existed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads(Path("sealed/blobs/sha256", sealed.removeprefix("sha256:")).read_bytes())
    last = Path("sealed/blobs/sha256", manifest["layers"][1]["digest"].removeprefix("sha256:"))
    data = bytearray(last.read_bytes())
    data[-1] ^= 1
    last.write_bytes(data)
    if existed:
        Path("again").mkdir()
    assert main(["image", "decrypt", "sealed", "again", "--digest", sealed, "--key", "ours.key"]) == 5
    assert "sha256" in capsys.readouterr().err
    assert Path("again").exists() == existed and (not existed or not os.listdir("again"))
