"""Mirrors guest/machine/tpm_seal.py: a real swtpm keeps a secret over boots, and from other programs."""

import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from demo.silicon.vtpm import vtpm
from guest.machine.tpm import TPM, opened
from guest.machine.tpm_nv import is_there, keep, read_index, write_index
from guest.machine.tpm_quote import attestation_key
from guest.machine.tpm_seal import BIRTH, HANDLE, PROGRAMS, _seal, kept_secret, policy_digest
from strongroom.errors import MachineError, PolicyError
from tests import need

FIRST, SECOND = b"\1" * 32, b"\2" * 32
DIGEST = sha256(b"another kernel").digest()


@pytest.fixture
def folder(socket_dir: Path) -> Path:
    need(shutil.which("swtpm"), "there is no swtpm")
    return socket_dir


@pytest.fixture
def tpm(folder: Path) -> Iterator[TPM]:
    with vtpm(folder) as path, opened(path) as tpm:
        yield tpm


def test_the_first_secret_stays(tpm: TPM) -> None:
    assert kept_secret(tpm, FIRST) == FIRST
    assert kept_secret(tpm, SECOND) == FIRST


def test_it_outlives_the_boot(folder: Path) -> None:
    for new in (FIRST, SECOND):
        with vtpm(folder) as path, opened(path) as tpm:
            assert kept_secret(tpm, new) == FIRST


def test_every_register_of_a_program_guards_it(folder: Path) -> None:
    with vtpm(folder) as path, opened(path) as tpm:
        assert kept_secret(tpm, FIRST) == FIRST
    for pcr in sorted(PROGRAMS):
        with vtpm(folder) as path, opened(path) as tpm:  # every boot begins at zero
            tpm.extend(pcr, DIGEST)
            with pytest.raises(PolicyError, match="sealed by other programs"):
                kept_secret(tpm, SECOND)
            assert is_there(tpm, HANDLE)
    with vtpm(folder) as path, opened(path) as tpm:
        assert kept_secret(tpm, SECOND) == FIRST


def test_what_moves_at_run_time_does_not(tpm: TPM) -> None:
    assert kept_secret(tpm, FIRST) == FIRST
    for pcr in (1, 8, 10, 15):
        tpm.extend(pcr, DIGEST)
    assert kept_secret(tpm, SECOND) == FIRST


@pytest.fixture
def planted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TPM]:
    """A TPM whose earlier system knew which registers ours would find, and sealed its own secret for us."""
    with vtpm(folder) as path, opened(path) as tpm:
        ours = policy_digest(tpm)
    with vtpm(folder) as path, opened(path) as tpm:
        tpm.extend(4, DIGEST)
        with monkeypatch.context() as patch:
            patch.setattr("guest.machine.tpm_seal.policy_digest", lambda _: ours)
            _seal(tpm, FIRST, HANDLE)
    with vtpm(folder) as path, opened(path) as tpm:
        yield tpm


@pytest.mark.guarantee("G20")
def test_what_another_system_left_for_us_is_refused(planted: TPM) -> None:
    with pytest.raises(PolicyError, match="made while other programs ran"):
        kept_secret(planted, SECOND)
    write_index(planted, BIRTH, b"\0\1x")
    with pytest.raises(MachineError, match="certify_creation"):
        kept_secret(planted, SECOND)


@pytest.mark.guarantee("G20")
def test_a_ticket_is_good_for_one_secret(planted: TPM) -> None:
    """Neither a ticket of ours with the secret of another, nor what no ticket says, is believed."""
    _seal(planted, SECOND, HANDLE + 1)
    assert kept_secret(planted, SECOND, handle=HANDLE + 1) == SECOND
    with pytest.raises(PolicyError, match="another secret's making"):
        kept_secret(planted, SECOND)
    kept = read_index(planted, BIRTH) or b""
    values = kept.index(bytes.fromhex("0020"))
    write_index(planted, BIRTH, kept[: values + 2] + bytes(32) + kept[values + 34 :])
    with pytest.raises(PolicyError, match="another secret's making"):
        kept_secret(planted, SECOND, handle=HANDLE + 1)


def test_a_secret_without_a_ticket_is_refused(tpm: TPM, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept_secret(tpm, FIRST) == FIRST
    monkeypatch.setattr("guest.machine.tpm_seal.BIRTH", BIRTH + 1)
    with pytest.raises(PolicyError, match="nothing says which programs"):
        kept_secret(tpm, FIRST)


def test_a_password_opens_nothing(tpm: TPM) -> None:
    assert kept_secret(tpm, FIRST) == FIRST
    with pytest.raises(MachineError, match="return code 0x12f"):  # TPM_RC_AUTH_UNAVAILABLE
        tpm.authorised(0x15E, HANDLE.to_bytes(4, "big"), b"", "unseal")


def test_nothing_is_left_open(tpm: TPM) -> None:
    for _ in range(8):  # a TPM has room for three sessions and three objects
        assert kept_secret(tpm, FIRST) == FIRST
    tpm.extend(0, DIGEST)
    for _ in range(8):
        with pytest.raises(PolicyError):
            kept_secret(tpm, FIRST)


def test_something_else_under_the_handle_is_told(tpm: TPM) -> None:
    with attestation_key(tpm) as key:
        keep(tpm, key.handle, HANDLE)
    with pytest.raises(PolicyError, match="sealed by other programs"):
        kept_secret(tpm, FIRST)


@pytest.mark.parametrize("secret", [b"", bytes(129)])
def test_what_no_tpm_takes_is_refused_before_it_is_asked(tpm: TPM, secret: bytes) -> None:
    with pytest.raises(MachineError, match=r"want 1\.\.128"):
        kept_secret(tpm, secret)
    assert not is_there(tpm, HANDLE)
