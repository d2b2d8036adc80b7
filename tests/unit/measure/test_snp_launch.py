"""Mirrors strongroom/measure/snp_launch.py; figures of real firmware are among the vectors (tests/test_vectors.py)."""

from hashlib import sha256, sha384

import pytest

from strongroom.errors import ConfigError, FormatError
from strongroom.measure.ovmf import OVMF, PAGE
from strongroom.measure.snp_launch import VMM, KernelHashes, launch_digest
from tests.unit.measure.test_ovmf import METADATA, SECTIONS, image

FIRMWARE = OVMF.parse(image())
HASHES = KernelHashes.of(b"kernel", b"initrd", "quiet")


def extended(digest: bytes, kind: int, gpa: int, page: bytes | None) -> bytes:
    """PAGE_INFO, written out once more."""
    contents = bytes(48) if page is None else sha384(page).digest()
    info = digest + contents + b"\x70\x00" + bytes((kind,)) + bytes(5) + gpa.to_bytes(8, "little")
    return sha384(info).digest()


def digest(**changes: object) -> bytes:
    arguments: dict[str, object] = {"vcpus": 1, "cpu_signature": 0x800F12, "hashes": HASHES} | changes
    return launch_digest(FIRMWARE, **arguments)  # type: ignore[arg-type]


def test_the_pages_before_the_first_vcpu_by_hand() -> None:
    value = bytes(48)
    for n in range(2):
        value = extended(value, 1, FIRMWARE.gpa + n * PAGE, FIRMWARE.image[n * PAGE :][:PAGE])
    firmware_alone = value
    for gpa in (0x80_0000, 0x80_1000):
        value = extended(value, 3, gpa, None)
    value = extended(value, 5, 0x80_2000, None)
    value = extended(value, 6, 0x80_3000, None)
    value = extended(value, 1, 0x81_0000, HASHES.page(0x400))
    # From here on the same vCPU page is added to both.
    bare = OVMF.parse(image(without=METADATA))
    after = launch_digest(bare, vcpus=1, cpu_signature=0x800F12, firmware_digest=value)
    assert digest() == after == digest(firmware_digest=firmware_alone)


def test_the_page_of_hashes() -> None:
    page = HASHES.page(16)
    assert len(page) == PAGE and page[:16] == bytes(16)
    for content in (b"kernel", b"initrd", b"quiet\0"):
        assert sha256(content).digest() in page
    with pytest.raises(FormatError, match="leaves no room"):
        HASHES.page(PAGE - 100)


def test_everything_that_differs_gives_another_digest() -> None:
    found = [
        digest(),
        digest(vcpus=2),
        digest(cpu_signature=0x800F13),
        digest(features=0x21),
        digest(hashes=None),
        digest(hashes=KernelHashes.of(b"kernel", b"initrd", "quiet debug")),
        digest(vmm=VMM.EC2),
        digest(vmm=VMM.GCE),
        digest(firmware_digest=bytes(48)),
    ]
    assert len(set(found)) == len(found) and {len(value) for value in found} == {48}


def test_other_vcpus_start_where_the_firmware_says() -> None:
    moved = OVMF(
        image=FIRMWARE.image, sections=SECTIONS, hashes_gpa=FIRMWARE.hashes_gpa, reset_eip=0xFFFF_0000
    )
    same = launch_digest(moved, vcpus=1, cpu_signature=0x800F12, hashes=HASHES)
    other = launch_digest(moved, vcpus=2, cpu_signature=0x800F12, hashes=HASHES)
    assert same == digest() and other != digest(vcpus=2)


@pytest.mark.parametrize("vcpus", [0, -1, 5000])
def test_a_number_of_vcpus_nobody_has(vcpus: int) -> None:
    with pytest.raises(ConfigError, match=r"want 1\.\.4096"):
        digest(vcpus=vcpus)


def test_firmware_without_a_place_for_hashes() -> None:
    bare = OVMF.parse(image(without=METADATA))
    with pytest.raises(FormatError, match="no place for kernel hashes"):
        launch_digest(bare, vcpus=1, cpu_signature=0, hashes=HASHES)
    assert launch_digest(bare, vcpus=1, cpu_signature=0)


def test_metadata_that_promises_hashes_and_no_address() -> None:
    lost = OVMF(image=FIRMWARE.image, sections=SECTIONS, hashes_gpa=None, reset_eip=FIRMWARE.reset_eip)
    with pytest.raises(FormatError, match="does not say where"):
        launch_digest(lost, vcpus=1, cpu_signature=0, hashes=HASHES)
