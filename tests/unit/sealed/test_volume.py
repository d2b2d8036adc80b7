"""Mirrors strongroom/sealed/volume.py: what a MANIFEST must be, and in which order it is refused."""

from dataclasses import replace
from hashlib import sha256

import pytest

from strongroom.errors import FormatError, PolicyError, StrongroomError, VerifyError
from strongroom.sealed.header import SIZE, ManifestHeader
from strongroom.sealed.keys import VolumeKeys
from strongroom.sealed.manifest import Manifest
from strongroom.sealed.volume import Volume, open_volume, root_digest, seal_manifest
from tests.fakes.sealed import MODEL_KEY, SealedFixture, make_sealed

OTHER_KEY = bytes(32)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> SealedFixture:
    return make_sealed(tmp_path_factory.mktemp("sealed"), epoch=2)


@pytest.fixture(scope="module")
def manifest(sealed: SealedFixture) -> bytes:
    return (sealed.path / "MANIFEST").read_bytes()


def opened(data: bytes, **members: object) -> Volume:
    wanted = {"model_key": MODEL_KEY, "epoch": 2, "root": root_digest(data)} | members
    return open_volume(data, **wanted)  # type: ignore[arg-type]


def test_opens(sealed: SealedFixture, manifest: bytes) -> None:
    volume = opened(manifest, root=sealed.root)
    assert volume.manifest.name == "tiny"
    assert volume.header.epoch == 2
    assert {file.path for file in volume.manifest.objects} == sealed.objects.keys()
    objects = volume.open_objects(sealed.tags.read_bytes())
    assert volume.tags_name == sealed.tags.name
    assert [one.chunking.count for one in objects] == [4, 6, 6]


@pytest.mark.guarantee("G5")
@pytest.mark.parametrize("epoch", [1, 3])
def test_another_epoch_is_refused_before_all_else(manifest: bytes, epoch: int) -> None:
    with pytest.raises(PolicyError, match=f"^manifest: epoch is 2, want {epoch}$"):
        opened(manifest[:-1] + b"?", model_key=OTHER_KEY, root=bytes(32), epoch=epoch)


@pytest.mark.guarantee("G4")
def test_then_the_root_then_the_key_then_the_tag(sealed: SealedFixture, manifest: bytes) -> None:
    broken = manifest[:-1] + bytes([manifest[-1] ^ 1])
    with pytest.raises(VerifyError, match=f"root digest is .*, want {sealed.root.hex()}"):
        opened(broken, model_key=OTHER_KEY, root=sealed.root)
    with pytest.raises(VerifyError, match="key commitment does not match"):
        opened(broken, model_key=OTHER_KEY)
    with pytest.raises(VerifyError, match="manifest: tag does not verify"):
        opened(broken)


@pytest.mark.guarantee("G4")
def test_every_flipped_byte_is_refused_even_under_its_own_root(manifest: bytes) -> None:
    for position in range(len(manifest)):
        data = bytearray(manifest)
        data[position] ^= 1 << position % 8
        with pytest.raises(StrongroomError):
            opened(bytes(data))


def test_every_cut_is_refused(manifest: bytes) -> None:
    for length in range(len(manifest)):
        with pytest.raises(StrongroomError):
            opened(manifest[:length])
    with pytest.raises(FormatError, match=r"got 120 bytes, want 121.."):
        opened(manifest[: SIZE + 16])


@pytest.mark.guarantee("G5")
def test_an_epoch_raised_by_the_store_is_refused(manifest: bytes) -> None:
    header = ManifestHeader.parse(manifest[:SIZE])
    raised = replace(header, epoch=3).pack() + manifest[SIZE:]
    with pytest.raises(VerifyError, match="manifest: tag does not verify"):
        opened(raised, epoch=3)


@pytest.mark.guarantee("G4")
def test_hygiene_holds_for_a_sealer_with_the_key_too() -> None:
    keys = VolumeKeys(model_key=MODEL_KEY, salt=bytes(32))
    header = ManifestHeader(epoch=2, volume_id=bytes(16), salt=bytes(32), commitment=keys.commitment)
    body = b'{"entries":[{"mode":420,"mtime":0,"nanos":0,"path":"../x","type":"directory"}],"name":"m","tags_sha256":"'
    body += b"00" * 32 + b'"}'

    class Hostile(Manifest):
        def pack(self) -> bytes:
            return body

    data = seal_manifest(header, keys, Hostile(name="m", entries=(), tags_sha256=bytes(32)))
    with pytest.raises(FormatError, match=r"has a part '..'"):
        opened(data)


@pytest.mark.guarantee("G4")
def test_tags_are_pinned(sealed: SealedFixture, manifest: bytes) -> None:
    volume, tags = opened(manifest), sealed.tags.read_bytes()
    for other in (b"", tags[:-1], tags + b"\0", tags[:-16]):
        with pytest.raises(VerifyError, match=f"^tags: {len(other)} bytes, want {len(tags)}$"):
            volume.open_objects(other)
    swapped = tags[16:32] + tags[:16] + tags[32:]
    with pytest.raises(VerifyError, match=f"^tags: digest is {sha256(swapped).hexdigest()}, want "):
        volume.open_objects(swapped)


@pytest.mark.guarantee("G11")
def test_no_key_in_repr(sealed: SealedFixture, manifest: bytes) -> None:
    volume = opened(manifest)
    text = repr(volume) + repr(volume.open_objects(sealed.tags.read_bytes()))
    assert "VolumeKeys" not in text
    assert "AESGCM" not in text
    assert "ChunkCipher" not in text
    assert "key" not in text
