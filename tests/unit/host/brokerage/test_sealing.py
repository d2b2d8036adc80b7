"""Mirrors host/brokerage/sealing.py."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.errors import FormatError, VerifyError
from strongroom.host.brokerage.sealing import Seal
from strongroom.host.secret import Secret
from strongroom.wire.framing import enc

ROOT = bytes(range(32))


def seal(root: bytes = ROOT) -> Seal:
    return Seal(Secret(root))


def test_what_was_sealed_opens() -> None:
    record = seal().seal("resource", b"context", b"secret")
    assert seal().open("resource", b"context", record) == b"secret"
    assert b"secret" not in record and record != seal().seal("resource", b"context", b"secret")


def test_the_record_is_what_the_document_says() -> None:
    """Opened by hand, with the library alone."""
    record = seal().seal("resource", b"context", b"secret")

    def derived(info: bytes) -> bytes:
        return HKDF(SHA256(), length=32, salt=None, info=b"strongroom/broker/v1 " + info).derive(ROOT)

    assert (record[:1], record[1:9]) == (b"\x01", derived(b"id")[:8])
    aad = enc(b"strongroom/broker/v1") + enc(b"resource") + enc(b"context")
    assert AESGCM(derived(b"seal resource")).decrypt(record[9:21], record[21:], aad) == b"secret"


@pytest.mark.guarantee("G11")
@pytest.mark.parametrize(("purpose", "context"), [("session", b"context"), ("resource", b"other")])
def test_it_opens_in_its_place_alone(purpose: str, context: bytes) -> None:
    record = seal().seal("resource", b"context", b"secret")
    with pytest.raises(VerifyError, match="changed since it was sealed, or moved"):
        seal().open(purpose, context, record)


def test_every_flipped_bit_and_every_cut_is_refused() -> None:
    record = seal().seal("resource", b"", b"secret")
    for place in range(len(record)):
        for bit in range(8):
            changed = bytearray(record)
            changed[place] ^= 1 << bit
            with pytest.raises(VerifyError):
                seal().open("resource", b"", bytes(changed))
        with pytest.raises(VerifyError):
            seal().open("resource", b"", record[:place])


def test_another_root_key_opens_nothing() -> None:
    record = seal().seal("resource", b"", b"secret")
    with pytest.raises(VerifyError, match="sealed under another root key"):
        seal(bytes(32)).open("resource", b"", record)
    assert seal().mac("rules", b"x") != seal(bytes(32)).mac("rules", b"x") != seal().mac("rule", b"sx")


def test_a_root_key_has_its_size_and_no_words() -> None:
    with pytest.raises(FormatError, match="root key: 31 bytes, want 32"):
        seal(bytes(31))
    assert ROOT.hex() not in repr(seal())
