"""Sealed bodies at the real door, whoever carries them: a middlebox of the test ends the TLS, reads, and meddles."""

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest

from strongroom.appraise.policy import Policy
from strongroom.cli.main import main
from strongroom.errors import (
    ConfigError,
    PolicyError,
    ProtocolError,
    StrongroomError,
    TransportError,
    VerifyError,
)
from strongroom.host.attested import AttestedConnection
from strongroom.host.exchange import Proof, ProvenExchange
from strongroom.host.sealedhttp import PATH, SealedConnection
from strongroom.host.tls import connect
from strongroom.sealedhttp.request import CONTENT_TYPE
from tests.fakes.middlebox import Middlebox
from tests.fakes.served import Served, opened, served
from tests.fakes.silicon import HOST_DATA, MEASUREMENT, silicon
from tests.fakes.vllm import WORDS

TOKEN: Final = "token-of-ann"
PROMPT: Final = "correct horse battery staple"
CHAT: Final = "/v1/chat/completions"


RULES: Final = {
    "version": 1,
    "measurements": [{"name": "test", "value": MEASUREMENT.hex()}],
    "host_data": [HOST_DATA.hex()],
    "insecure_simulated_roots": [silicon().pki.ark_sha256.hex()],
}


def policy(**change: object) -> Policy:
    return Policy.from_raw({**RULES, **change})


@dataclass
class Behind:
    """A door, and a middlebox before it."""

    door: Served
    box: Middlebox

    def connect(self, **change: object) -> SealedConnection:
        asked = policy(**change)
        return SealedConnection.open(self.box.url, policy=asked, roots=asked.roots, now=datetime.now(UTC))


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with served(tmp_path_factory.mktemp("d"), tokens={"ann": TOKEN}) as (door, _), Middlebox(door.url) as box:
        yield Behind(door, box)


@pytest.fixture(autouse=True)
def honest(behind: Behind) -> None:
    behind.box.reset()


def body(*, stream: bool = True) -> bytes:
    return json.dumps(
        {"model": "tiny", "messages": [{"role": "user", "content": PROMPT}], "stream": stream}
    ).encode()


def converse(connection: SealedConnection, *, stream: bool = True, token: str = TOKEN) -> tuple[bytes, Proof]:
    exchange = ProvenExchange(connection, path=CHAT, body=body(stream=stream), token=token)
    answer = b"".join(exchange)
    asked = policy()
    return answer, exchange.prove(policy=asked, roots=asked.roots, now=datetime.now(UTC))


@pytest.mark.guarantee("G8")
def test_the_middlebox_is_no_attested_connection(behind: Behind) -> None:
    asked = policy()
    with pytest.raises(StrongroomError):
        AttestedConnection.open(behind.box.url, policy=asked, roots=asked.roots, now=datetime.now(UTC))


@pytest.mark.guarantee("G23")
@pytest.mark.guarantee("G12")
@pytest.mark.guarantee("G14")
@pytest.mark.parametrize("stream", [True, False])
def test_nothing_readable_passes_the_middlebox(behind: Behind, stream: bool) -> None:
    with behind.connect() as connection:
        answer, proof = converse(connection, stream=stream)
        again, _ = converse(connection, stream=stream)
    assert b"choices" in answer and b"choices" in again
    assert proof.receipt.request_sha256 == sha256(body(stream=stream)).digest(), "of what was inside"
    seen = behind.box.seen
    assert PATH.encode() in seen and len(seen) > 2000
    for secret in (PROMPT, TOKEN, CHAT, "choices", "/v1/receipts", proof.receipt.id, " door", "delta"):
        assert secret.encode() not in seen, secret
    assert PROMPT not in behind.door.log and TOKEN not in behind.door.log


def test_strangers_who_announce_much_keep_nobody_out(behind: Behind) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {32 << 20}\r\n\r\n"
    strangers = [connect("127.0.0.1", behind.door.port, timeout=10) for _ in range(16)]
    try:
        for stranger in strangers:
            stranger.send(head.encode() + b"x")
        with behind.connect() as connection:
            answer, _ = converse(connection)
        assert b"choices" in answer
    finally:
        for stranger in strangers:
            stranger.close()


def test_what_has_no_body_is_sealed_too(behind: Behind) -> None:
    with behind.connect() as connection:
        bearer = {"authorization": f"Bearer {TOKEN}"}
        answer = connection.request("GET", "/v1/models", bearer)
        assert answer.status == 200 and json.loads(answer.read())["object"] == "list"
        missing = connection.request("GET", "/v1/receipts/" + "0" * 32, bearer)
        assert missing.status == 404 and json.loads(missing.read())["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/.well-known/strongroom", 404),
        ("GET", "/healthz", 404),
        ("GET", "/.well-known/strongroom/evidence?nonce=" + "0" * 64, 404),
        ("POST", PATH, 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/models?x=1", 400),
    ],
)
def test_nothing_of_the_connection_is_answered_inside(
    behind: Behind, method: str, path: str, status: int
) -> None:
    with behind.connect() as connection:
        answer = connection.request(method, path, {"authorization": f"Bearer {TOKEN}"})
        assert answer.status == status and b"error" in answer.read()


def test_the_token_decides_inside(behind: Behind) -> None:
    with behind.connect() as connection, pytest.raises(ConfigError, match="401"):
        converse(connection, token="wrong")
    assert b"401" not in behind.box.seen


@pytest.mark.guarantee("G7")
def test_a_request_that_is_sent_again_is_not_answered(behind: Behind) -> None:
    with behind.connect() as connection:
        converse(connection, stream=False)
        sealed = behind.box.requests[-2].body
        asked = len(behind.door.engine.asked)
        statuses = [behind.box.send(sealed) for _ in range(2)]
    assert statuses == [(200, True), (200, True)]  # 409, for whoever could read it
    assert len(behind.door.engine.asked) == asked


@pytest.mark.parametrize("offset", [-3600, -301, 302, 3600])
def test_a_request_of_another_time_is_not_answered(behind: Behind, offset: int) -> None:
    with behind.connect() as connection:
        clock = connection._clock
        connection._clock = lambda: clock() + offset
        with pytest.raises(ConfigError, match="more than 300 s from this machine's"):
            converse(connection)


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("at", [0, 1, 40, 1200, -1])
def test_a_changed_request_is_refused_in_one_sentence(behind: Behind, at: int) -> None:
    behind.box.change_request = lambda raw: _flip(raw, at)
    with (
        behind.connect() as connection,
        pytest.raises((ConfigError, TransportError), match=r"http status 4|no longer"),
    ):
        converse(connection)


@pytest.mark.guarantee("G23")
@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("meddle", [lambda raw: raw[:-1], lambda raw: raw[:-25], lambda raw: raw[:40],
                                    lambda raw: _flip(raw, 80), lambda raw: _flip(raw, -1), lambda raw: raw + b"\0",
                                    lambda raw: b""])  # fmt: skip
def test_a_changed_answer_is_seen(behind: Behind, stream: bool, meddle: Callable[[bytes], bytes]) -> None:
    with behind.connect() as connection:
        behind.box.change_answer = meddle
        with pytest.raises((VerifyError, ProtocolError, StrongroomError)):
            converse(connection, stream=stream)


def test_an_answer_of_the_middlebox_is_none(behind: Behind) -> None:
    with behind.connect() as connection:
        behind.box.says = (200, "application/json", b'{"choices":[]}')
        with pytest.raises(ProtocolError, match="the answer is not sealed"):
            converse(connection)


@pytest.mark.guarantee("G8")
def test_another_key_has_no_evidence(behind: Behind) -> None:
    def swap(raw: bytes) -> bytes:
        value = json.loads(raw)
        value["key"] = value["key"][:-20] + "A" * 20
        return json.dumps(value).encode()

    behind.box.change_answer = swap
    with pytest.raises((VerifyError, StrongroomError), match=r"report_data|sealed key"):
        behind.connect()


@pytest.mark.guarantee("G7")
def test_evidence_of_before_is_refused(behind: Behind) -> None:
    behind.connect().close()
    before = behind.box.answers[-1]
    behind.box.change_answer = lambda raw: before
    with pytest.raises(VerifyError, match="challenge"):
        behind.connect()


def test_a_policy_decides(behind: Behind) -> None:
    with pytest.raises(PolicyError, match="refused"):
        behind.connect(measurements=[{"name": "other", "value": "00" * 48}])
    assert not [request for request in behind.box.requests if request.method == "POST"]


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_chat_seals_what_it_asks(
    behind: Behind, tmp_path: Path, capsys: pytest.CaptureFixture[str], stream: str
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "policy.yaml").write_text(json.dumps(RULES))
    words = [
        "--policy",
        str(tmp_path / "policy.yaml"),
        "--token-file",
        str(tmp_path / "token"),
        "--sealed",
        stream,
    ]
    assert main(["chat", behind.box.url, PROMPT, *words]) == 0
    out, err = capsys.readouterr()
    assert out == "".join(WORDS) + "\n" and "sealed bodies" in err and "receipt ok" in err
    assert PROMPT.encode() not in behind.box.seen
    assert main(["chat", behind.box.url, PROMPT, *words, "--json"]) == 0
    server = json.loads(capsys.readouterr().out)["server"]
    assert (
        server["accepted"] and len(server["sealed_key_sha256"]) == 64 and "certificate_sha256" not in server
    )


@pytest.mark.guarantee("G7")
def test_what_was_sealed_to_an_earlier_door_opens_nowhere(tmp_path: Path) -> None:
    with served(tmp_path, tokens={"ann": TOKEN}) as (door, process), Middlebox(door.url) as box:
        behind = Behind(door, box)
        with behind.connect() as connection:
            converse(connection, stream=False)
            process.signal(signal.SIGKILL)
            process.wait(10)
            with opened(door):
                box.upstream = door.url
                with pytest.raises(TransportError, match="no longer in use"):
                    converse(connection)
                with behind.connect() as fresh:
                    converse(fresh)


def _flip(raw: bytes, at: int) -> bytes:
    changed = bytearray(raw)
    changed[at] ^= 1
    return bytes(changed)
