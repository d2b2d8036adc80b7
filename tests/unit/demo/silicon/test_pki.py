"""Mirrors demo/silicon/pki.py."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

from demo.silicon.mint import CURRENT_TCB
from demo.silicon.pki import kept_pki
from strongroom.errors import MachineError
from strongroom.evidence.snp import TCB
from tests.fakes.silicon import KEPT, NOT_BEFORE, pki

OTHER = TCB(bootloader=10, tee=0, snp=23, microcode=0x90)


def common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def extension(certificate: x509.Certificate, arc: str) -> bytes:
    oid = ObjectIdentifier(f"1.3.6.1.4.1.3704.1.{arc}")
    found = certificate.extensions.get_extension_for_oid(oid).value
    assert isinstance(found, x509.UnrecognizedExtension)
    return found.value


@pytest.mark.guarantee("G18")
def test_every_name_warns() -> None:
    made = pki()
    names = [common_name(c) for c in (made.ark, made.ask, made.vcek(CURRENT_TCB))]
    assert names == ["INSECURE-SIMULATED-ARK", "INSECURE-SIMULATED-ASK", "INSECURE-SIMULATED-VCEK"]
    assert not any("Advanced Micro Devices" in c.subject.rfc4514_string() for c in (made.ark, made.ask))


def test_the_chain_has_amds_shape() -> None:
    made = pki()
    for key in (made.ark_key, made.ask_key):
        assert isinstance(key, rsa.RSAPrivateKey)
        assert key.key_size == 4096
    vcek = made.vcek(CURRENT_TCB)
    vcek.verify_directly_issued_by(made.ask)
    made.ask.verify_directly_issued_by(made.ark)
    made.ark.verify_directly_issued_by(made.ark)
    years = [(c.not_valid_after_utc - c.not_valid_before_utc).days // 365 for c in (made.ark, made.ask, vcek)]
    assert years == [25, 25, 7]


def test_the_leaf_says_product_levels_and_chip() -> None:
    made = pki()
    vcek = made.vcek(OTHER)
    assert extension(vcek, "1").hex() == "020100"
    assert extension(vcek, "2") == b"\x16\x05Genoa"
    assert extension(vcek, "3.1").hex() == "02010a"
    assert extension(vcek, "3.3").hex() == "020117"
    assert extension(vcek, "3.8").hex() == "02020090"  # DER: 0x90 needs a zero before it
    assert extension(vcek, "4") == made.chip_id
    assert len(made.chip_id) == 64


def test_the_leaf_key_belongs_to_chip_and_levels() -> None:
    made = pki()
    numbers = [made.vcek_key(tcb).private_numbers() for tcb in (CURRENT_TCB, CURRENT_TCB, OTHER)]
    assert numbers[0] == numbers[1] != numbers[2]
    assert made.vcek(OTHER).public_key() == made.vcek_key(OTHER).public_key()


def test_a_level_this_product_does_not_have_is_refused() -> None:
    with pytest.raises(MachineError, match="fmc is 1, want none on Genoa"):
        pki().vcek(TCB(bootloader=1, tee=1, snp=1, microcode=1, fmc=1))


def test_what_is_kept_is_used_again_and_is_ours_alone() -> None:
    again = kept_pki(KEPT, datetime(2026, 1, 1, tzinfo=UTC))
    assert again.ark == pki().ark
    assert again.chip_secret == pki().chip_secret
    assert {stat.S_IMODE(path.stat().st_mode) for path in KEPT.iterdir()} == {0o600}
    assert stat.S_IMODE(KEPT.stat().st_mode) == 0o700
    assert again.ark.not_valid_before_utc == NOT_BEFORE


def test_secrets_are_not_shown() -> None:
    made = pki()
    shown = repr(made)
    assert made.chip_secret.hex() not in shown
    assert repr(made.chip_secret) not in shown
    assert "PrivateKey" not in shown


@pytest.mark.parametrize("broken", [None, b"", b"not a key"])
def test_a_broken_state_is_told(tmp_path: Path, broken: bytes | None) -> None:
    state = tmp_path / "pki"
    state.mkdir()
    if broken is not None:
        (state / "ark.key").write_bytes(broken)
    with pytest.raises(MachineError, match="cannot be read, remove it to start anew"):
        kept_pki(state, datetime(2026, 1, 1, tzinfo=UTC))
