"""Mirrors guest/machine/tpm_quote.py: a real swtpm makes, our verifier and tpm2-tools judge."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from struct import pack

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from demo.silicon.vtpm import vtpm
from guest.machine.tpm import TPM, opened
from guest.machine.tpm_quote import attestation_key, kept_key, read_public
from strongroom.errors import MachineError, VerifyError
from strongroom.evidence.tpm import Hash, TPMPublic, TPMQuote, TPMSignature
from strongroom.evidence.vtpm import TPMEvidence
from strongroom.host.run import run
from strongroom.verify.tpm import TPMClaims, public_key, verify_quote
from tests import need

NONCE = bytes(range(32))
DIGEST = hashlib.sha256(b"event").digest()


@pytest.fixture
def tpm(socket_dir: Path) -> Iterator[TPM]:
    need(shutil.which("swtpm"), "there is no swtpm")
    with vtpm(socket_dir) as path, opened(path) as tpm:
        yield tpm


def verified(evidence: TPMEvidence, nonce: bytes, wanted: frozenset[int]) -> TPMClaims:
    return verify_quote(
        TPMQuote.parse(evidence.attest),
        TPMSignature.parse(evidence.signature),
        key=TPMPublic.parse(evidence.public),
        nonce=nonce,
        pcrs=evidence.values,
        bank=Hash.SHA256,
        wanted=wanted,
    )


def test_a_quote_verifies_and_says_what_the_registers_hold(tpm: TPM) -> None:
    tpm.extend(15, DIGEST)
    with attestation_key(tpm) as key:
        evidence = key.quote(NONCE, {0, 15, 23})
    claims = verified(evidence, NONCE, frozenset({0, 15, 23}))
    assert claims.pcrs[15] == hashlib.sha256(bytes(32) + DIGEST).digest()
    with pytest.raises(VerifyError):
        verified(evidence, bytes(32), frozenset({0, 15, 23}))


def test_a_quote_satisfies_another_implementation(tpm: TPM, tmp_path: Path) -> None:
    need(shutil.which("tpm2_checkquote"), "there is no tpm2_checkquote")
    with attestation_key(tpm) as key:
        evidence = key.quote(NONCE, {15})
    pem = public_key(TPMPublic.parse(evidence.public)).public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    for name, content in (("key", pem), ("attest", evidence.attest), ("signature", evidence.signature)):
        (tmp_path / name).write_bytes(content)
    argv = ["tpm2_checkquote", "-u", "key", "-m", "attest", "-s", "signature", "-g", "sha256", "-q"]
    assert run([*argv, NONCE.hex()], cwd=tmp_path).status == 0
    assert run([*argv, bytes(32).hex()], cwd=tmp_path, check=False).status != 0


def test_the_key_is_the_same_each_time_and_nothing_is_left_in_the_tpm(tpm: TPM) -> None:
    keys = set()
    for _ in range(5):  # more than a TPM has room for at once
        with attestation_key(tpm) as key:
            assert read_public(tpm, key.handle) == key.public
            keys.add(key.public)
    assert len(keys) == 1
    with pytest.raises(MachineError, match="tpm read_public 0x80000000: return code"):
        read_public(tpm, 0x80000000)


def test_a_key_under_a_handle_is_used_as_it_is(tpm: TPM) -> None:
    with attestation_key(tpm) as key:
        evidence = kept_key(tpm, key.handle).quote(NONCE, {7})
    verified(evidence, NONCE, frozenset({7}))


@pytest.mark.parametrize(("nonce", "pcrs"), [(b"", {1}), (bytes(65), {1}), (NONCE, set[int]())])
def test_a_quote_is_over_a_nonce_and_some_registers(tpm: TPM, nonce: bytes, pcrs: set[int]) -> None:
    with attestation_key(tpm) as key, pytest.raises(MachineError, match=r"want 1\.\.64 over some"):
        key.quote(nonce, pcrs)


def test_registers_are_those_a_tpm_has(tpm: TPM) -> None:
    with attestation_key(tpm) as key, pytest.raises(MachineError, match=r"pcr is 24, want 0\.\.23"):
        key.quote(NONCE, {24})


def test_an_error_inside_the_context_stays_its_own(tpm: TPM) -> None:
    with pytest.raises(KeyError), attestation_key(tpm):
        raise KeyError


class Between:
    """A channel to a real TPM that changes what goes by."""

    def __init__(self, tpm: TPM, *, moves: int = 0, replace: tuple[bytes, bytes] = (b"", b"")) -> None:
        self._channel, self._tpm = tpm._channel, tpm
        self._moves, self._replace = moves, replace

    def exchange(self, command: bytes) -> bytes:
        answer = self._channel.exchange(command)
        if command[6:10] == pack(">I", 0x158):
            if self._moves:
                self._moves -= 1
                self._tpm.extend(15, DIGEST)
            if self._replace[0]:
                answer = answer.replace(*self._replace)
        return answer


def test_registers_that_move_are_quoted_again(tpm: TPM) -> None:
    with attestation_key(TPM(Between(tpm, moves=2))) as key:
        verified(key.quote(NONCE, {15}), NONCE, frozenset({15}))
    with (
        attestation_key(TPM(Between(tpm, moves=3))) as key,
        pytest.raises(MachineError, match="a pcr moved during each of 3 quotes"),
    ):
        key.quote(NONCE, {15})


def test_a_quote_over_another_nonce_is_told(tpm: TPM) -> None:
    with (
        attestation_key(TPM(Between(tpm, replace=(NONCE, NONCE[::-1])))) as key,
        pytest.raises(MachineError, match="answers another nonce than it was asked with"),
    ):
        key.quote(NONCE, {15})


class Cut:
    """A channel whose answers to one command lack their end, under a size that does not tell."""

    def __init__(self, tpm: TPM, code: int, keep: int) -> None:
        self._channel, self._code, self._keep = tpm._channel, pack(">I", code), keep

    def exchange(self, command: bytes) -> bytes:
        answer = self._channel.exchange(command)
        if command[6:10] != self._code:
            return answer
        cut = answer[: 10 + self._keep]
        return cut[:2] + pack(">I", len(cut)) + cut[6:]


@pytest.mark.parametrize("code", [0x131, 0x158, 0x173])
def test_answers_are_read_to_their_last_byte(tpm: TPM, code: int) -> None:
    def all_of(channel: TPM) -> None:
        with attestation_key(channel) as key:
            key.quote(NONCE, {15})
            read_public(channel, key.handle)

    all_of(TPM(Cut(tpm, code, 4096)))
    for keep in range(0, 130, 7):  # the shortest of these answers is longer
        with pytest.raises(MachineError, match=r"^tpm (create_primary|quote|read_public)"):
            all_of(TPM(Cut(tpm, code, keep)))
