"""Mirrors broker/exchange.py: the guest's side alone, every reply in a test's own hand."""

import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.broker.errors import Refusal
from strongroom.broker.exchange import Collect, Done, Exchange, Reply, Send, State
from strongroom.broker.messages import Challenge, TokenReply
from strongroom.errors import (
    FormatError,
    PolicyError,
    ProtocolError,
    StrongroomError,
    TransportError,
    VerifyError,
)
from strongroom.evidence.binding import is_reserved
from strongroom.keys.jwe import seal
from strongroom.wire.canonical import pack_json
from tests.fakes.broker import URI
from tests.fakes.silicon import silicon

NONCE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
KEY = ec.derive_private_key(21, ec.SECP256R1())
CHALLENGED = Reply(200, Challenge(NONCE).pack(), "c0ffee")
TOKEN = Reply(200, TokenReply("a.b.c").pack())
EPHEMERAL = ec.derive_private_key(22, ec.SECP256R1())
JWE = seal(b"secret", KEY.public_key(), ephemeral=EPHEMERAL, cek=bytes(32), iv=bytes(12))
RELEASED = Reply(200, pack_json(JWE.to_json()))


def exchange(until: State) -> Exchange:
    """An exchange in the state asked for."""
    made = Exchange(URI, KEY)
    if until is not State.START:
        made.start()
    if until in (State.COLLECTING, State.AWAIT_TOKEN, State.AWAIT_RESOURCE, State.DONE):
        made.receive(CHALLENGED)
    if until in (State.AWAIT_TOKEN, State.AWAIT_RESOURCE, State.DONE):
        made.evidence(silicon().report(bytes(64)), b"")
    if until in (State.AWAIT_RESOURCE, State.DONE):
        made.receive(TOKEN)
    if until is State.DONE:
        made.receive(RELEASED)
    assert made.state is until
    return made


def test_the_whole_exchange() -> None:
    made = Exchange(URI, KEY)
    hello = made.start()
    assert (hello.method, hello.path, hello.cookie) == ("POST", "/kbs/v0/auth", None)
    collect = made.receive(CHALLENGED)
    assert isinstance(collect, Collect)
    assert len(collect.report_data) == 64 and collect.report_data[48:] == bytes(16)
    assert is_reserved(collect.report_data)
    attest = made.evidence(silicon().report(collect.report_data), silicon().certificates())
    assert (attest.method, attest.path, attest.cookie) == ("POST", "/kbs/v0/attest", "c0ffee")
    assert json.loads(attest.body)["runtime-data"]["nonce"] == NONCE
    get = made.receive(TOKEN)
    assert isinstance(get, Send)
    assert (get.method, get.path, get.body, get.cookie) == ("GET", URI.path, b"", "c0ffee")
    assert made.receive(RELEASED) == Done(b"secret")


def test_the_private_key_stays_here() -> None:
    attest = exchange(State.COLLECTING).evidence(silicon().report(bytes(64)), b"")
    assert json.loads(attest.body)["runtime-data"]["tee-pubkey"].keys() == {"kty", "crv", "alg", "x", "y"}


@pytest.mark.guarantee("G7")
def test_evidence_is_asked_for_this_nonce_and_this_key_only() -> None:
    def asked(nonce: str, key: ec.EllipticCurvePrivateKey) -> bytes:
        made = Exchange(URI, key)
        made.start()
        collect = made.receive(Reply(200, Challenge(nonce).pack(), "c0ffee"))
        assert isinstance(collect, Collect)
        return collect.report_data

    other = ec.derive_private_key(23, ec.SECP256R1())
    assert len({asked(NONCE, KEY), asked(NONCE, other), asked(NONCE[::-1], KEY)}) == 3


@pytest.mark.parametrize("state", [*State])
def test_a_call_out_of_order_changes_nothing(state: State) -> None:
    made = exchange(state)
    allowed = {
        State.START: "start",
        State.AWAIT_CHALLENGE: "receive",
        State.COLLECTING: "evidence",
        State.AWAIT_TOKEN: "receive",
        State.AWAIT_RESOURCE: "receive",
    }.get(state)
    calls: dict[str, Callable[[], object]] = {
        "start": made.start,
        "receive": lambda: made.receive(CHALLENGED),
        "evidence": lambda: made.evidence(silicon().report(bytes(64)), b""),
    }
    for name, call in calls.items():
        if name != allowed:
            with pytest.raises(ProtocolError, match=f"state is {state.name}, want"):
                call()
            assert made.state is state


@pytest.mark.parametrize("state", [State.AWAIT_CHALLENGE, State.AWAIT_TOKEN, State.AWAIT_RESOURCE])
@pytest.mark.parametrize(
    ("status", "kind", "want"),
    [
        (401, "PolicyDeny", PolicyError),
        (401, "AttestationError", VerifyError),
        (503, "HTTPFailed", TransportError),
    ],
)
def test_a_refusal_is_raised(state: State, status: int, kind: str, want: type[StrongroomError]) -> None:
    with pytest.raises(want, match="of this"):
        exchange(state).receive(Reply(status, Refusal(kind, "because of this").pack()))


@pytest.mark.parametrize("state", [State.AWAIT_CHALLENGE, State.AWAIT_TOKEN, State.AWAIT_RESOURCE])
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"<html>", b'{"nonce":', b"\xff"], ids=range(7))
def test_an_answer_of_another_shape_is_refused(state: State, body: bytes) -> None:
    with pytest.raises(FormatError):
        exchange(state).receive(Reply(200, body, "c0ffee"))


def test_an_answer_over_its_size_is_refused() -> None:
    with pytest.raises(ProtocolError, match="answer is 16385 bytes, want at most 16384"):
        exchange(State.AWAIT_CHALLENGE).receive(Reply(200, b" " * 16385, "c0ffee"))


@pytest.mark.parametrize("cookie", [None, "", "a b", "a;b", "a\r\nX: y", "x" * 257, "\u00e9"])
def test_a_cookie_that_could_not_be_sent_back_is_refused(cookie: str | None) -> None:
    with pytest.raises(ProtocolError, match="no usable session cookie"):
        exchange(State.AWAIT_CHALLENGE).receive(Reply(200, Challenge(NONCE).pack(), cookie))


def test_a_broker_s_other_digest_is_refused() -> None:
    body = pack_json({"nonce": NONCE, "extra-params": {"selected-hash-algorithm": "sha512"}})
    with pytest.raises(FormatError, match="got 'sha512', want sha384"):
        exchange(State.AWAIT_CHALLENGE).receive(Reply(200, body, "c0ffee"))


def test_a_secret_for_another_key_does_not_open() -> None:
    other = ec.derive_private_key(23, ec.SECP256R1()).public_key()
    jwe = seal(b"secret", other, ephemeral=EPHEMERAL, cek=bytes(32), iv=bytes(12))
    with pytest.raises(VerifyError, match="does not unwrap"):
        exchange(State.AWAIT_RESOURCE).receive(Reply(200, pack_json(jwe.to_json())))


def test_bad_evidence_of_our_own_is_said_before_it_is_sent() -> None:
    made = exchange(State.COLLECTING)
    with pytest.raises(FormatError, match="snp report"):
        made.evidence(b"short", b"")


@pytest.mark.guarantee("G11")
def test_no_secret_is_shown() -> None:
    assert "secret" not in repr(Done(b"secret"))
    assert "c0ffee" not in repr(CHALLENGED) + repr(Send("GET", "/", 1, b"body", "c0ffee"))
