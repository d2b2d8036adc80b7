"""Mirrors strongroom/sealed/chunks.py."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.errors import FormatError, VerifyError
from strongroom.sealed.chunks import TAG_SIZE, ChunkCipher, Chunking

KEY, OBJECT_ID = b"k" * 32, b"i" * 16
CHUNK = 1 << 16
SIZES = [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7]


@pytest.mark.parametrize("size", SIZES)
def test_chunks_cover_the_file_exactly(size: int) -> None:
    chunking = Chunking(size, 16)
    lengths = [chunking.length(index) for index in range(chunking.count)]
    assert sum(lengths) == size
    assert all(length == CHUNK for length in lengths[:-1])
    assert 0 < lengths[-1] <= CHUNK


def test_bounds() -> None:
    with pytest.raises(FormatError, match="size is 0"):
        Chunking(0, 16)
    with pytest.raises(FormatError, match="count is 4294967296"):
        Chunking(1 << 48, 16)
    for index in (-1, 2):
        with pytest.raises(FormatError, match=f"index is {index}, want 0..1"):
            Chunking(CHUNK + 1, 16).length(index)


def seal(size: int, index: int, plaintext: bytes, object_id: bytes = OBJECT_ID) -> bytearray:
    out = bytearray(len(plaintext) + TAG_SIZE)
    ChunkCipher(key=KEY, object_id=object_id, chunking=Chunking(size, 16)).seal(index, plaintext, out)
    return out


def test_a_chunk_is_plain_aes_gcm_with_this_nonce_and_data() -> None:
    aad = OBJECT_ID + (1).to_bytes(8, "big")
    inner, last = bytes(4) + aad[16:], b"\x00\x00\x00\x01" + aad[16:]
    assert seal(3 * CHUNK, 1, b"x" * 100) == AESGCM(KEY).encrypt(inner, b"x" * 100, aad)
    assert seal(2 * CHUNK, 1, b"x" * 100) == AESGCM(KEY).encrypt(last, b"x" * 100, aad)


@pytest.mark.guarantee("G4")
def test_a_chunk_opens_only_in_its_own_place() -> None:
    sealed, out = seal(3 * CHUNK, 1, b"x" * CHUNK), bytearray(CHUNK)
    cipher = ChunkCipher(key=KEY, object_id=OBJECT_ID, chunking=Chunking(3 * CHUNK, 16))
    cipher.open(1, sealed, out)
    assert out == b"x" * CHUNK
    for other in (0, 2):
        with pytest.raises(VerifyError, match=f"^chunk {other}: tag does not verify$"):
            cipher.open(other, sealed, out)
    for elsewhere in (
        ChunkCipher(key=KEY, object_id=b"j" * 16, chunking=Chunking(3 * CHUNK, 16)),  # in another file
        ChunkCipher(
            key=b"l" * 32, object_id=OBJECT_ID, chunking=Chunking(3 * CHUNK, 16)
        ),  # under another key
        ChunkCipher(
            key=KEY, object_id=OBJECT_ID, chunking=Chunking(2 * CHUNK, 16)
        ),  # in a file cut short behind it
    ):
        with pytest.raises(VerifyError):
            elsewhere.open(1, sealed, out)


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("position", [0, 1, 50, 99, 100, 107, 115])
def test_every_flipped_bit_is_found(position: int) -> None:
    sealed = seal(100, 0, b"x" * 100)
    cipher = ChunkCipher(key=KEY, object_id=OBJECT_ID, chunking=Chunking(100, 16))
    for bit in range(8):
        sealed[position] ^= 1 << bit
        with pytest.raises(VerifyError):
            cipher.open(0, sealed, bytearray(100))
        sealed[position] ^= 1 << bit
    cipher.open(0, sealed, bytearray(100))
