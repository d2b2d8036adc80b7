"""Mirrors guest/userdata.py and guest/machine/iso9660.py. Images come from pycdlib, a second implementation."""

import hashlib
import io
import os
from contextlib import suppress
from pathlib import Path

import pycdlib
import pytest

from guest.userdata import MAX_BYTES, read_seed
from strongroom.errors import ConfigError, FormatError, MachineError

CONTENT = b"#cloud-config\nstrongroom: {}\n"


def iso(files: dict[str, bytes], label: str = "cidata", *, joliet: bool = True) -> bytes:
    image = pycdlib.PyCdlib()
    image.new(interchange_level=4, vol_ident=label, joliet=3 if joliet else None)
    for name, content in files.items():
        image.add_fp(
            io.BytesIO(content), len(content), f"/{name}", joliet_path=f"/{name}" if joliet else None
        )
    out = io.BytesIO()
    image.write_fp(out)
    image.close()
    return out.getvalue()


def test_directory_seed_is_read_and_hashed(tmp_path: Path) -> None:
    (tmp_path / "user-data").write_bytes(CONTENT)
    (tmp_path / "vendor-data").write_bytes(b"#!/bin/sh\nid\n")
    found = read_seed(tmp_path)
    assert found.raw == CONTENT
    assert found.sha256 == hashlib.sha256(CONTENT).digest()
    assert "strongroom" not in repr(found)


@pytest.mark.parametrize("joliet", [True, False])
@pytest.mark.parametrize("label", ["cidata", "CIDATA"])
def test_iso_seed_is_read(tmp_path: Path, label: str, joliet: bool) -> None:
    path = tmp_path / "seed.iso"
    path.write_bytes(iso({"meta-data": b"instance-id: x\n", "user-data": CONTENT}, label, joliet=joliet))
    assert read_seed(path).raw == CONTENT


def test_missing_seed_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no user-data"):
        read_seed(tmp_path)
    with pytest.raises(ConfigError, match="has no user-data"):
        read_seed(tmp_path / "nowhere")
    (tmp_path / "seed.iso").write_bytes(iso({"meta-data": b"x"}))
    with pytest.raises(ConfigError, match="no file user-data"):
        read_seed(tmp_path / "seed.iso")


def test_other_volumes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "seed.iso").write_bytes(iso({"user-data": CONTENT}, "config-2"))
    with pytest.raises(ConfigError, match="volume is called 'config-2', want 'cidata'"):
        read_seed(tmp_path / "seed.iso")


@pytest.mark.guarantee("G16")
def test_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "user-data").write_bytes(b"x" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="want at most"):
        read_seed(tmp_path)
    (tmp_path / "seed.iso").write_bytes(iso({"user-data": b"x" * (MAX_BYTES + 1)}))
    with pytest.raises(ConfigError, match="want at most"):
        read_seed(tmp_path / "seed.iso")


def test_links_out_of_the_seed_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "user-data").symlink_to("/etc/passwd")
    with pytest.raises(Exception, match="cannot read"):
        read_seed(tmp_path)


@pytest.mark.guarantee("G16")
def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "user-data")
    with pytest.raises(ConfigError, match="file type 0o10000, want user-data in a file"):
        read_seed(tmp_path)
    with pytest.raises(ConfigError, match="file type 0o10000"):
        read_seed(tmp_path / "user-data")
    with pytest.raises(ConfigError, match="file type 0o20000"):
        read_seed(Path("/dev/null"))
    (tmp_path / "user-data").unlink()
    (tmp_path / "user-data").mkdir()
    with pytest.raises(MachineError, match="cannot read"):
        read_seed(tmp_path)


def test_every_flipped_sector_byte_is_read_whole_or_refused(tmp_path: Path) -> None:
    """A hostile image may hide the file; it can never make the reader fail otherwise or read past a bound."""
    good, path = iso({"user-data": CONTENT}), tmp_path / "seed.iso"
    descriptors = range(16 * 2048, 16 * 2048 + 200)
    root = range(good.index(b"CD001") + 150, good.index(b"CD001") + 190)
    for at in (*descriptors, *root, *range(len(good) - 24 * 2048, len(good), 997)):
        bad = bytearray(good)
        bad[at] ^= 0xFF
        path.write_bytes(bad)
        with suppress(ConfigError, FormatError):
            read_seed(path)


@pytest.mark.parametrize("sectors", range(24))
def test_cut_images_are_refused(tmp_path: Path, sectors: int) -> None:
    path = tmp_path / "seed.iso"
    path.write_bytes(iso({"user-data": CONTENT})[: sectors * 2048])
    with pytest.raises((FormatError, ConfigError)):
        read_seed(path)
