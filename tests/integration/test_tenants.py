"""Tenants at the real door, as a process: certificates, limits, lines, usage, and what its metrics tell of them."""

import json
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPSConnection
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from strongroom.wire.canonical import JSON
from tests.fakes.certified import Certified
from tests.fakes.served import Served, served
from tests.integration.test_door_life import wait_for

CHAT = "/v1/chat/completions"
CID, DAN, STRANGER = Certified.make("cid"), Certified.make("dan"), Certified.make("cid")
TOKENS = {name: f"token-of-{name}" for name in ("ann", "bob", "dan", "many")}


def hashed(name: str) -> str:
    return sha256(TOKENS[name].encode()).hexdigest()


SETTINGS: dict[str, JSON] = {
    "tenants": [
        {"name": "ann", "token_sha256": hashed("ann")},
        {"name": "bob", "token_sha256": hashed("bob"), "limits": {"requests_per_minute": 1}},
        {"name": "cid", "certificate": CID.pem},
        {"name": "dan", "token_sha256": hashed("dan"), "certificate": DAN.pem},
        {"name": "many", "token_sha256": hashed("many"), "aggregator": True},
    ],
    "queue": {"places": 1, "length": 1, "seconds": 30},
}


@dataclass(frozen=True)
class Answered:
    status: int
    headers: dict[str, str]
    body: Any


def ask(
    door: Served,
    target: str,
    body: dict[str, Any] | None = None,
    *,
    token: str | None = None,
    shows: Certified | None = None,
) -> Answered:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if shows is not None:
        context.load_cert_chain(shows.write(door.directory))
    headers = {"content-type": "application/json"} if body else {}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    connection = HTTPSConnection("127.0.0.1", door.port, context=context, timeout=30)
    try:
        method, sent = ("POST", json.dumps(body)) if body else ("GET", None)
        connection.request(method, target, sent, headers)
        answer = connection.getresponse()
        named = {name.lower(): value for name, value in answer.getheaders()}
        return Answered(answer.status, named, json.loads(answer.read()))
    finally:
        connection.close()


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], **more}


def metrics(door: Served) -> dict[str, float]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(door.directory / "runtime" / "admin.sock"))
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: door\r\n\r\n")
        answer = b""
        while data := sock.recv(65536):
            answer += data
    found = re.findall(r"^strongroom_door_(\S+) (\S+)$", answer.decode(), re.MULTILINE)
    return {name: float(value) for name, value in found}


@pytest.fixture
def door(socket_dir: Path) -> Iterator[Served]:
    with served(socket_dir, settings=SETTINGS) as (behind, _):
        yield behind


def test_a_certificate_is_enough_and_a_token_beside_it_harms_nothing(door: Served) -> None:
    assert ask(door, "/v1/models", shows=CID).status == 200
    assert ask(door, "/v1/models", shows=CID, token="what a library must send").status == 200
    assert ask(door, CHAT, chat(), shows=CID).status == 200
    assert ask(door, "/v1/usage", shows=CID).body["requests"] == 1
    assert ask(door, "/v1/models").status == 401
    assert ask(door, "/v1/models", token=TOKENS["ann"]).status == 200
    assert ask(door, "/v1/models", token=TOKENS["ann"], shows=CID).status == 401


def test_who_has_both_needs_both(door: Served) -> None:
    assert ask(door, "/v1/models", token=TOKENS["dan"], shows=DAN).status == 200
    assert ask(door, "/v1/models", token=TOKENS["dan"]).status == 401
    assert ask(door, "/v1/models", shows=DAN).status == 401


def test_another_certificate_ends_the_connection(door: Served) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(door, "/healthz", shows=STRANGER)
    assert ask(door, "/healthz").status == 200


def test_a_limit_is_a_tenants_own_and_so_is_its_usage(door: Served) -> None:
    assert ask(door, CHAT, chat(), token=TOKENS["bob"]).status == 200
    refused = ask(door, CHAT, chat(), token=TOKENS["bob"])
    assert (refused.status, refused.body["error"]["code"]) == (429, "too_many_requests")
    assert 50 <= int(refused.headers["retry-after"]) <= 60
    assert ask(door, CHAT, chat(), token=TOKENS["ann"]).status == 200
    usage = ask(door, "/v1/usage", token=TOKENS["bob"]).body
    assert (usage["requests"], usage["refused"]) == (1, 1)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, len(door.engine.says))
    assert usage["left"]["requests"] == 0
    assert ask(door, "/v1/usage", token=TOKENS["dan"], shows=DAN).body["total_tokens"] == 0


def test_a_request_for_more_answers_than_there_are_places_is_refused(door: Served) -> None:
    refused = ask(door, CHAT, chat(n=2), token=TOKENS["ann"])
    assert (refused.status, refused.body["error"]["code"]) == (400, "too_many_answers")
    assert refused.body["error"]["message"] == "the request is for 2 answers at once, want at most 1"
    assert door.engine.asked == []
    assert ask(door, CHAT, chat(n=1), token=TOKENS["ann"]).status == 200


def test_who_comes_too_much_waits_in_line_and_then_is_refused(door: Served) -> None:
    door.engine.stall_after = 1
    answers: list[int] = []

    def stream(name: str) -> None:
        with_stream = ask_raw(door, chat(stream=True), TOKENS[name])
        answers.append(with_stream)

    first = Thread(target=stream, args=("ann",))
    first.start()
    wait_for(lambda: metrics(door)["completions_running"] == 1)
    second = Thread(target=stream, args=("many",))
    second.start()
    wait_for(lambda: metrics(door)["completions_waiting"] == 1)
    assert ask(door, CHAT, chat(), token=TOKENS["many"]).status == 429
    assert len(door.engine.asked) == 1
    door.loop.call_soon_threadsafe(door.engine.go.set)
    first.join()
    second.join()
    assert answers == [200, 200]
    counted = metrics(door)
    assert counted['refused_total{reason="queue_full"}'] == 1
    assert (counted["completions_running"], counted["completions_waiting"]) == (0, 0)


def ask_raw(door: Served, body: dict[str, Any], token: str) -> int:
    """Reads a stream to its end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = HTTPSConnection("127.0.0.1", door.port, context=context, timeout=30)
    try:
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        connection.request("POST", CHAT, json.dumps(body), headers)
        answer = connection.getresponse()
        assert answer.read().endswith(b"data: [DONE]\n\n")
        return answer.status
    finally:
        connection.close()


@pytest.mark.guarantee("G13")
def test_an_aggregators_people_have_salts_of_their_own(door: Served) -> None:
    for more in ({"user": "x"}, {"user": "x"}, {"user": "y"}, {}, {}, {"cache_salt": "x"}):
        assert ask(door, CHAT, chat(**more), token=TOKENS["many"]).status == 200
    for more in ({"user": "x"}, {"user": "y"}, {}):
        assert ask(door, CHAT, chat(**more), token=TOKENS["ann"]).status == 200
    salts = [asked.body["cache_salt"] for asked in door.engine.asked]
    many, ann = salts[:6], salts[6:]
    assert many[0] == many[1] and len(set(many)) == 5
    assert len(set(ann)) == 1 and not set(ann) & set(many)
    assert all("user" not in asked.body for asked in door.engine.asked)


@pytest.mark.guarantee("G14")
def test_metrics_tell_numbers_and_nobody(door: Served) -> None:
    ask(door, CHAT, chat(), token=TOKENS["ann"])
    ask_raw(door, chat(stream=True), TOKENS["ann"])
    ask(door, "/nowhere")
    counted = metrics(door)
    assert counted[f'requests_total{{route="{CHAT}",status="200"}}'] == 2
    assert counted['requests_total{route="-",status="404"}'] == 1
    assert counted["completions_total"] == 2
    assert counted["first_token_seconds_count"] == 1
    assert counted['state{state="open"}'] == 1
    assert counted["evidence_age_seconds"] >= 0
    assert counted['body_bytes_total{direction="received"}'] > 0
    assert not [name for name in counted if "ann" in name or "nowhere" in name or "hello" in name]
