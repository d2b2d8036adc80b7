"""Mirrors strongroom/sealed/gocryptfs/content.py and batch.py."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

from strongroom.errors import FormatError, VerifyError
from strongroom.sealed.gocryptfs.batch import BLOCKS, Batch
from strongroom.sealed.gocryptfs.config import Cipher
from strongroom.sealed.gocryptfs.content import BLOCK, ContentCipher
from tests.fakes.sealed import pattern

FILE_ID = bytes(range(1, 17))
KEYS = {Cipher.AES_GCM: b"k" * 32, Cipher.AES_SIV: bytes(range(64)), Cipher.XCHACHA: b"x" * 32}
CIPHERS = list(Cipher)


def made(cipher: Cipher = Cipher.AES_GCM) -> ContentCipher:
    return ContentCipher(KEYS[cipher], cipher)


def nonces(cipher: ContentCipher, count: int) -> bytes:
    return b"".join((n + 1).to_bytes(cipher.nonce_size, "big") for n in range(count))


def seal(cipher: ContentCipher, plain: bytes, first: int = 0) -> bytearray:
    count = -(-len(plain) // BLOCK)
    out = bytearray(len(plain) + count * cipher.overhead)
    assert cipher.seal_blocks(
        FILE_ID, first, memoryview(plain), memoryview(out), nonces(cipher, count)
    ) == len(out)
    return out


def opened(cipher: ContentCipher, sealed: bytes | bytearray, first: int = 0) -> bytes:
    out = bytearray(len(sealed))
    size = cipher.open_blocks(FILE_ID, first, memoryview(sealed), memoryview(out))
    return bytes(out[:size])


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 257 * BLOCK + 1, 600 * BLOCK])
def test_what_is_sealed_comes_back(cipher: Cipher, size: int) -> None:
    content, plain = made(cipher), pattern(size)
    sealed = seal(content, plain, 7)
    assert opened(content, sealed, 7) == plain
    assert content.plain_size(len(sealed) + content.header_size) == size
    assert content.cipher_size(size) == len(sealed) + content.header_size


def test_a_block_is_what_the_format_says() -> None:
    aad = (9).to_bytes(8, "big") + FILE_ID
    gcm, siv = made(), made(Cipher.AES_SIV)
    nonce = nonces(gcm, 1)
    assert seal(gcm, b"text", 9) == nonce + AESGCM(KEYS[Cipher.AES_GCM]).encrypt(nonce, b"text", aad)
    assert seal(siv, b"text", 9) == nonce + AESSIV(KEYS[Cipher.AES_SIV]).encrypt(b"text", [aad, nonce])
    assert [made(cipher).overhead for cipher in CIPHERS] == [32, 32, 40]
    assert [made(cipher).sealed_block for cipher in CIPHERS] == [4128, 4128, 4136]


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("cipher", CIPHERS)
def test_a_block_opens_only_in_its_own_place(cipher: Cipher) -> None:
    content = made(cipher)
    sealed = seal(content, b"x" * 2 * BLOCK)
    block = content.sealed_block
    with pytest.raises(VerifyError, match=r"^block 1: tag does not verify$"):
        opened(content, sealed, 1)
    with pytest.raises(VerifyError, match=r"^block 0: "):
        opened(content, sealed[block:] + sealed[:block])
    with pytest.raises(VerifyError, match=r"^block 0: "):
        content.open_blocks(b"j" * 16, 0, memoryview(sealed), memoryview(bytearray(2 * BLOCK)))


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("cipher", CIPHERS)
def test_every_flipped_bit_is_found(cipher: Cipher) -> None:
    content = made(cipher)
    sealed = seal(content, b"x" * 20)
    for position in range(len(sealed)):
        for bit in range(8):
            sealed[position] ^= 1 << bit
            with pytest.raises(VerifyError):
                opened(content, sealed)
            sealed[position] ^= 1 << bit
    assert opened(content, sealed) == b"x" * 20


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("cipher", CIPHERS)
def test_every_cut_is_found_but_one_at_a_block(cipher: Cipher) -> None:
    content = made(cipher)
    sealed = seal(content, b"x" * (BLOCK + 30))
    for length in range(1, len(sealed)):
        if length == content.sealed_block:  # what only a side manifest can tell
            assert opened(content, sealed[:length]) == b"x" * BLOCK
        else:
            with pytest.raises((VerifyError, FormatError)):
                opened(content, sealed[:length])


def test_zeros_are_a_hole_only_as_a_whole_block() -> None:
    content = made()
    sealed = seal(content, b"x" * (3 * BLOCK + 10))
    size = content.sealed_block
    sealed[size : 2 * size] = bytes(size)
    assert opened(content, sealed) == b"x" * BLOCK + bytes(BLOCK) + b"x" * (BLOCK + 10)
    sealed[2 * size - 1] = 1
    with pytest.raises(VerifyError, match=r"^block 1: "):
        opened(content, sealed)
    with pytest.raises(VerifyError, match=r"^block 0: "):
        opened(content, bytes(50))


def test_a_nonce_of_zeros_is_refused() -> None:
    content, out = made(), bytearray(36)
    content.seal_blocks(FILE_ID, 0, memoryview(b"text"), memoryview(out), bytes(16))
    with pytest.raises(VerifyError, match=r"^block 0: "):
        opened(content, out)
    two = bytearray(2 * content.sealed_block)
    content.seal_blocks(FILE_ID, 0, memoryview(b"x" * 2 * BLOCK), memoryview(two), b"n" * 16 + bytes(16))
    batch, room = Batch(content), memoryview(bytearray(2 * BLOCK))
    batch.room(0, 2)[:] = two
    for read in (
        lambda: opened(content, two),
        lambda: batch.open(FILE_ID, 0, 0, 2, [room[:BLOCK], room[BLOCK:]]),
    ):
        with pytest.raises(VerifyError, match=r"^block 1: "):
            read()


@pytest.mark.parametrize("cipher", CIPHERS)
def test_sizes(cipher: Cipher) -> None:
    content = made(cipher)
    assert content.plain_size(0) == content.plain_size(18) == content.cipher_size(0) == 0
    for size in (1, 17, 18 + 1, 18 + content.overhead, 18 + content.sealed_block + content.overhead):
        with pytest.raises(FormatError, match=f"object of {size} bytes: its last block is cut"):
            content.plain_size(size)
    for size in range(1, 3 * BLOCK, 97):
        assert content.plain_size(content.cipher_size(size)) == size
    for wrong in (-1, (1 << 60) + 1):
        with pytest.raises(FormatError, match=r"want 0\.\."):
            content.cipher_size(wrong)


def test_headers() -> None:
    header = ContentCipher.new_header(FILE_ID)
    assert header == b"\0\2" + FILE_ID
    assert ContentCipher.parse_header(memoryview(header)) == FILE_ID
    for wrong in (b"", header[:-1], header + b"\0", b"\0\1" + FILE_ID, b"\0\2" + bytes(16), bytes(18)):
        with pytest.raises(FormatError, match=r"^file (header|id): "):
            ContentCipher.parse_header(wrong)


def test_seal_wants_room_and_nonces() -> None:
    content, plain = made(), memoryview(b"x" * 5000)
    for room, keys in ((5063, 32), (5064, 31), (5064, 48)):
        with pytest.raises(FormatError, match=r"^seal: "):
            content.seal_blocks(FILE_ID, 0, plain, memoryview(bytearray(room)), bytes(keys))


def test_what_belongs_to_no_file() -> None:
    content = made()
    alone = content.seal_alone(b"target", b"n" * 16)
    assert alone == b"n" * 16 + AESGCM(KEYS[Cipher.AES_GCM]).encrypt(b"n" * 16, b"target", bytes(8))
    assert content.open_alone(alone, "link") == b"target"
    for length in range(len(alone)):
        with pytest.raises((VerifyError, FormatError), match=r"^link: "):
            content.open_alone(alone[:length], "link")
    with pytest.raises(FormatError, match="nonce is 12 bytes"):
        content.seal_alone(b"target", b"n" * 12)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_a_batch_opens_the_same(cipher: Cipher) -> None:
    content, plain = made(cipher), pattern(20 * BLOCK + 9)
    sealed = seal(content, plain, 512)
    batch, out = Batch(content), memoryview(bytearray(BLOCKS * BLOCK))
    outs = [out[at : at + BLOCK] for at in range(0, len(out), BLOCK)]
    rest = 9 + content.overhead
    batch.room(0, 20, rest)[:] = sealed
    batch.open(FILE_ID, 512, 3, 20, outs)
    assert out[: 17 * BLOCK] == plain[3 * BLOCK : 20 * BLOCK]
    size = content.sealed_block
    blocks = [bytes(sealed[at : at + size]) for at in range(0, len(sealed), size)]
    siv = cipher is Cipher.AES_SIV
    wanted = [block[:32] if siv else block[: content.nonce_size] + block[-16:] for block in blocks]
    assert batch.pins(0, 20, rest) == b"".join(wanted)
    assert batch.pins(4, 6) == b"".join(wanted[4:6])
    batch.room(7, 8)[50] ^= 1
    with pytest.raises(VerifyError, match=r"^block 519: "):
        batch.open(FILE_ID, 512, 0, 20, outs)
    batch.room(7, 8)[:] = bytes(size)
    batch.open(FILE_ID, 512, 0, 20, outs)
    assert out[7 * BLOCK : 8 * BLOCK] == bytes(BLOCK)
    assert batch.pins(7, 8) == bytes(content.overhead)
