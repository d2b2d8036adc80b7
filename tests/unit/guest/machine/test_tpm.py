"""Mirrors guest/machine/tpm.py: against a real swtpm, and against responses no good TPM gives."""

import hashlib
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from struct import pack

import pytest

from demo.silicon.vtpm import vtpm
from guest.machine.tpm import TPM, TPM_RC_INITIALIZE, opened
from strongroom.errors import MachineError
from strongroom.host.run import spawn
from tests import need

DIGEST = hashlib.sha256(b"event").digest()
SELECTION = pack(">IHB", 1, 0x000B, 3) + b"\0\x80\0"  # PCR 15
NOT_SELECTED = SELECTION[:-3] + bytes(3)  # what a TPM without the bank answers
READ_BODY = pack(">I", 7) + SELECTION + pack(">IH", 1, 32) + bytes(range(32))
EXTEND_BODY = pack(">IHBH", 0, 0, 1, 0)


def response(tag: int, code: int, body: bytes = b"") -> bytes:
    return pack(">HII", tag, 10 + len(body), code) + body


READ = response(0x8001, 0, READ_BODY)
EXTEND = response(0x8002, 0, EXTEND_BODY)


class Script:
    """A channel that answers what it was told to, and remembers what it was asked."""

    def __init__(self, *responses: bytes) -> None:
        self.responses = list(responses)
        self.commands: list[bytes] = []

    def exchange(self, command: bytes) -> bytes:
        self.commands.append(command)
        return self.responses.pop(0)


@pytest.fixture
def swtpm(socket_dir: Path) -> Iterator[Path]:
    need(shutil.which("swtpm"), "there is no swtpm")
    with vtpm(socket_dir) as path:
        yield path


def test_extend_and_read_back(swtpm: Path) -> None:
    with opened(swtpm) as tpm:
        before = tpm.read(15)
        tpm.extend(15, DIGEST)
        once = tpm.read(15)
        tpm.extend(15, DIGEST)
        twice = tpm.read(15)
        assert tpm.read(14) == bytes(32)
    assert before == bytes(32)
    assert once == hashlib.sha256(before + DIGEST).digest()
    assert twice == hashlib.sha256(once + DIGEST).digest()


def test_a_second_opening_sees_the_same_registers(swtpm: Path) -> None:
    with opened(swtpm) as tpm:
        tpm.extend(0, DIGEST)
    with opened(swtpm) as tpm:
        assert tpm.read(0) == hashlib.sha256(bytes(32) + DIGEST).digest()


def test_a_register_not_ours_is_refused_with_the_return_code(swtpm: Path) -> None:
    with (
        opened(swtpm) as tpm,
        pytest.raises(MachineError, match=r"tpm pcr_extend 17: return code 0x907, want 0x0"),
    ):
        tpm.extend(17, DIGEST)


def test_a_tpm_nobody_started_is_started(socket_dir: Path) -> None:
    need(shutil.which("swtpm"), "there is no swtpm")
    server = socket_dir / "raw.sock"
    argv = ["swtpm", "socket", "--tpm2", "--flags", "not-need-init", "--tpmstate", f"dir={socket_dir}"]
    argv += ["--server", f"type=unixio,path={server}", "--log", f"file={socket_dir / 'log'}"]
    with spawn(argv) as child:
        while not server.is_socket():
            child.check()
        with opened(server) as tpm:
            tpm.extend(15, DIGEST)
            assert tpm.read(15) == hashlib.sha256(bytes(32) + DIGEST).digest()


def test_commands_are_the_bytes_of_the_specification() -> None:
    channel = Script(READ, EXTEND)
    tpm = TPM(channel)
    assert tpm.read(15) == bytes(range(32))
    tpm.extend(15, DIGEST)
    assert channel.commands[0].hex() == "8001000000140000017e" + SELECTION.hex()
    session = "00000009" + "40000009" + "0000" + "00" + "0000"
    digests = "00000001" + "000b" + DIGEST.hex()
    assert channel.commands[1].hex() == "80020000004100000182" + "0000000f" + session + digests


def test_startup_is_tried_once() -> None:
    never = response(0x8001, TPM_RC_INITIALIZE)
    channel = Script(never, response(0x8001, 0), never)
    with pytest.raises(MachineError, match="return code 0x100"):
        TPM(channel).read(15)
    assert channel.commands[1].hex() == "80010000000c00000144" + "0000"


@pytest.mark.parametrize("code", [0x908, 0x90A, 0x922])
def test_a_tpm_that_is_busy_with_itself_is_asked_again(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("guest.machine.tpm.time.sleep", pauses.append)
    assert TPM(Script(*[response(0x8001, code)] * 8, READ)).read(15) == bytes(range(32))
    assert len(pauses) == 8
    with pytest.raises(MachineError, match=f"return code 0x{code:x}, want 0x0"):
        TPM(Script(*[response(0x8001, code)] * 9)).read(15)


@pytest.mark.parametrize("n", range(len(READ) - 10))
def test_a_read_response_is_read_to_its_last_byte(n: int) -> None:
    for broken in (READ[: 10 + n], response(0x8001, 0, READ_BODY[:n])):
        with pytest.raises(MachineError, match="tpm pcr_read 15"):
            TPM(Script(broken)).read(15)


@pytest.mark.parametrize("n", range(len(EXTEND) - 10))
def test_an_extend_response_is_read_to_its_last_byte(n: int) -> None:
    with pytest.raises(MachineError, match="tpm pcr_extend 15"):
        TPM(Script(response(0x8002, 0, EXTEND_BODY[:n]))).extend(15, DIGEST)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "0 bytes left"),
        (READ[:9], "3 bytes left"),
        (READ + b"\0", "says 62 bytes, got 63"),
        (response(0x8001, 0, READ_BODY + b"\0"), "1 bytes left over"),
        (response(0x8002, 0, READ_BODY), "response tag is 0x8002, want 0x8001"),
        (response(0x8001, 0, pack(">I", 7) + NOT_SELECTED + bytes(4)), "no sha-256 bank"),
        (response(0x8001, 0, READ_BODY.replace(b"\0\x80\0", b"\x80\0\0", 1)), "no sha-256 bank"),
        (response(0x8001, 0, READ_BODY.replace(pack(">IH", 1, 32), pack(">IH", 2, 32))), "2 digests, want 1"),
        (
            response(0x8001, 0, READ_BODY.replace(pack(">IH", 1, 32), pack(">IH", 1, 20))),
            "digest is 20 bytes",
        ),
        (response(0x8001, 0x921), "return code 0x921, want 0x0"),
    ],
)
def test_a_read_response_that_is_wrong_is_told(answer: bytes, why: str) -> None:
    with pytest.raises(MachineError, match=why):
        TPM(Script(answer)).read(15)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (response(0x8002, 0, pack(">I", 1) + b"\0" * 6), "1 bytes of parameters, want none"),
        (response(0x8002, 0, EXTEND_BODY + b"\0"), "1 bytes left over"),
        (response(0x8001, 0), "response tag is 0x8001"),
        (response(0x8001, 0x98E), "return code 0x98e"),
    ],
)
def test_an_extend_response_that_is_wrong_is_told(answer: bytes, why: str) -> None:
    with pytest.raises(MachineError, match=why):
        TPM(Script(answer)).extend(15, DIGEST)


@pytest.mark.parametrize("index", [-1, 24])
def test_there_are_24_registers(index: int) -> None:
    for call in (lambda: TPM(Script()).read(index), lambda: TPM(Script()).extend(index, DIGEST)):
        with pytest.raises(MachineError, match=f"pcr is {index}, want 0..23"):
            call()


def test_only_a_sha256_digest_extends() -> None:
    with pytest.raises(MachineError, match="digest is 20 bytes, want 32"):
        TPM(Script()).extend(15, bytes(20))


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"", "closed after 0 bytes, want 10"),
        (READ[:20], "closed after 10 bytes, want 52"),
        (pack(">HII", 0x8001, 9, 0), "response of 9 bytes, want 10..4096"),
        (pack(">HII", 0x8001, 4097, 0), "response of 4097 bytes"),
    ],
)
def test_a_socket_that_stops_or_lies_is_told(socket_dir: Path, sent: bytes, why: str) -> None:
    path = socket_dir / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()

        def answer() -> None:
            with listener.accept()[0] as peer:
                peer.recv(64)
                peer.sendall(sent)

        thread = threading.Thread(target=answer)
        thread.start()
        with opened(path) as tpm, pytest.raises(MachineError, match=why):
            tpm.read(15)
        thread.join()


def test_what_is_no_tpm_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, why in (
        (tmp_path / "absent", "absent: no such file or directory"),
        (tmp_path / "file", "neither a device nor a socket"),
    ):
        with pytest.raises(MachineError, match=why), opened(path):
            pass


def test_a_device_that_is_no_tpm_is_told() -> None:
    with opened(Path("/dev/null")) as tpm, pytest.raises(MachineError, match="pcr_read 15: 0 bytes left"):
        tpm.read(15)


def test_an_error_of_the_caller_stays_its_own(swtpm: Path) -> None:
    with pytest.raises(KeyError), opened(swtpm):
        raise KeyError
