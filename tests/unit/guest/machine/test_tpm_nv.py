"""Mirrors guest/machine/tpm_nv.py, over a real swtpm."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from struct import pack

import pytest

from demo.silicon.vtpm import vtpm
from demo.silicon.vtpm_authority import define
from guest.machine.tpm import TPM, opened
from guest.machine.tpm_nv import is_there, keep, read_index, remove
from guest.machine.tpm_quote import attestation_key, read_public
from strongroom.errors import MachineError
from tests import need
from tests.unit.guest.machine.test_tpm_quote import Cut

INDEX = 0x01C10000
LASTING = 0x81027372
CONTENT = bytes(range(256)) * 6


@pytest.fixture
def tpm(socket_dir: Path) -> Iterator[TPM]:
    need(shutil.which("swtpm"), "there is no swtpm")
    with vtpm(socket_dir) as path, opened(path) as tpm:
        yield tpm


@pytest.mark.parametrize("size", [1, 511, 512, 513, 1536])
def test_an_index_is_read_to_its_last_byte(tpm: TPM, size: int) -> None:
    assert read_index(tpm, INDEX) is None
    define(tpm, INDEX, CONTENT[:size])
    assert read_index(tpm, INDEX) == CONTENT[:size]
    assert read_index(tpm, INDEX - 1) is None  # the next one above it is not it


def test_a_key_is_kept_under_a_handle_until_it_is_removed(tpm: TPM) -> None:
    with attestation_key(tpm) as key:
        keep(tpm, key.handle, LASTING)
        public = key.public
    assert is_there(tpm, LASTING) and not is_there(tpm, LASTING - 1)
    assert read_public(tpm, LASTING) == public
    remove(tpm, LASTING)
    assert not is_there(tpm, LASTING)


@pytest.mark.parametrize("code", [0x17A, 0x169, 0x14E])
def test_answers_are_read_to_their_last_byte(tpm: TPM, code: int) -> None:
    define(tpm, INDEX, CONTENT[:60])
    assert read_index(TPM(Cut(tpm, code, 4096)), INDEX) == CONTENT[:60]
    for keep_ in range(9):
        with pytest.raises(MachineError, match=r"^tpm (get_capability|nv_read)"):
            read_index(TPM(Cut(tpm, code, keep_)), INDEX)


class Lying:
    """A channel that changes the attributes an index has, or how large it says it is."""

    def __init__(self, tpm: TPM, old: bytes, new: bytes) -> None:
        self._channel, self._old, self._new = tpm._channel, old, new

    def exchange(self, command: bytes) -> bytes:
        answer = self._channel.exchange(command)
        return answer.replace(self._old, self._new, 1) if command[6:10] == pack(">I", 0x169) else answer


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (pack(">I", INDEX), pack(">I", INDEX + 1), "answers for 0x01c10001"),
        (pack(">H", 0x000B) + b"\x20\x06", pack(">H", 0x000B) + b"\x20\x00", "want it readable"),
        (pack(">HH", 0, 60), pack(">HH", 0, 0xFFFF), "65535 bytes, want at most 8192"),
        (pack(">HH", 0, 60), pack(">HH", 0, 61), "return code"),
    ],
)
def test_what_an_index_says_of_itself_is_bounded(tpm: TPM, old: bytes, new: bytes, match: str) -> None:
    define(tpm, INDEX, CONTENT[:60])
    with pytest.raises(MachineError, match=match):
        read_index(TPM(Lying(tpm, old, new)), INDEX)
