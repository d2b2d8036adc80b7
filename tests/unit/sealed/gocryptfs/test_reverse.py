"""Mirrors strongroom/sealed/gocryptfs/reverse.py. What the real program derives is in the integration test."""

from hashlib import sha256

from strongroom.sealed.gocryptfs.reverse import Purpose, block_nonce, derive


def test_ivs_come_from_path_and_purpose() -> None:
    assert derive(b"a/b", Purpose.FILE_ID) == sha256(b"a/b\0FILEID").digest()[:16]
    assert len({derive(b"", purpose) for purpose in Purpose}) == len(Purpose)


def test_the_low_half_counts_and_wraps() -> None:
    assert block_nonce(bytes(16), 258) == bytes(14) + b"\x01\x02"
    assert block_nonce(b"h" * 8 + b"\xff" * 8, 1) == b"h" * 8 + bytes(8)
