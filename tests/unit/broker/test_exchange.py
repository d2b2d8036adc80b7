"""Mirrors broker/exchange.py and broker/dialect.py: the guest's side alone, every reply in a test's own hand."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.broker.dialect import CURRENT, DIALECTS, dialect_of
from strongroom.broker.ear import Lifetime
from strongroom.broker.errors import Refusal, SessionLostError
from strongroom.broker.exchange import Admission, Collect, Exchange, Reply, Send, State
from strongroom.broker.messages import Challenge, TokenReply
from strongroom.errors import (
    ConfigError,
    FormatError,
    PolicyError,
    ProtocolError,
    StrongroomError,
    TransportError,
    VerifyError,
)
from strongroom.evidence.binding import is_reserved, kbs_digest, kbs_report_data
from strongroom.evidence.initdata import InitData
from strongroom.evidence.kbs import CompositeEvidence
from strongroom.evidence.kbs_json import pack_additional
from strongroom.keys.jwe import seal
from strongroom.keys.jwk import pack_jwk
from strongroom.wire.canonical import b64u, pack_json
from tests.fakes.broker import URI
from tests.fakes.composite import GPU, LOG
from tests.fakes.kbs import MACHINES, Machine

NONCE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
KEY = ec.derive_private_key(21, ec.SECP256R1())
JWK = pack_jwk(KEY.public_key())
CHALLENGED = Reply(200, Challenge(NONCE).pack(), "c0ffee")
TOKEN = Reply(200, TokenReply("a.b.c").pack())
EPHEMERAL = ec.derive_private_key(22, ec.SECP256R1())
JWE = seal(b"secret", KEY.public_key(), ephemeral=EPHEMERAL, cek=bytes(32), iv=bytes(12))
RELEASED = Reply(200, pack_json(JWE.to_json()))
EVIDENCE = CompositeEvidence(primary=Machine().primary(bytes(48)))
INIT_DATA = InitData.parse('algorithm = "sha256"\nversion = "0.1.0"\n[data]\n"aa.toml" = ""\n')


def exchange(until: State, **options: Any) -> Exchange:
    """An exchange in the state asked for."""
    made = Exchange("snp", KEY, **options)
    if until is not State.START:
        made.start()
    if until in (State.COLLECTING, State.AWAIT_TOKEN, State.DONE):
        made.receive(CHALLENGED)
    if until in (State.AWAIT_TOKEN, State.DONE):
        made.evidence(EVIDENCE)
    if until is State.DONE:
        made.receive(TOKEN)
    assert made.state is until
    return made


def admission(token: str = "a.b.c") -> Admission:
    got = exchange(State.AWAIT_TOKEN).receive(Reply(200, TokenReply(token).pack()))
    assert isinstance(got, Admission)
    return got


def collect(challenge: Challenge | None = None, **options: Any) -> Collect:
    made = Exchange("snp", KEY, **options)
    made.start()
    asked = made.receive(Reply(200, (challenge or Challenge(NONCE)).pack(), "c0ffee"))
    assert isinstance(asked, Collect)
    return asked


def answered(state: State, reply: Reply) -> object:
    """What a guest in that state makes of an answer; once admitted, of one about a resource."""
    if state is State.DONE:
        return admission().open(admission().ask(URI), reply)
    return exchange(state).receive(reply)


def test_the_whole_exchange() -> None:
    made = Exchange("snp", KEY)
    hello = made.start()
    assert (hello.method, hello.path, hello.cookie) == ("POST", "/kbs/v0/auth", None)
    asked = made.receive(CHALLENGED)
    assert isinstance(asked, Collect) and is_reserved(kbs_report_data(asked.digest()))
    attest = made.evidence(Machine()(asked))
    assert (attest.method, attest.path, attest.cookie) == ("POST", "/kbs/v0/attest", "c0ffee")
    assert json.loads(attest.body)["runtime-data"]["nonce"] == NONCE
    got = made.receive(TOKEN)
    assert isinstance(got, Admission)
    for _ in range(2):  # as many resources as one likes
        get = got.ask(URI)
        assert (get.method, get.path, get.body, get.cookie) == ("GET", URI.path, b"", "c0ffee")
        assert got.open(get, RELEASED) == b"secret"
    assert got.ask(URI, version=3).path == f"{URI.path}?version=3"


def test_the_private_key_stays_here() -> None:
    attest = exchange(State.COLLECTING).evidence(EVIDENCE)
    assert json.loads(attest.body)["runtime-data"]["tee-pubkey"].keys() == {"kty", "crv", "alg", "x", "y"}


@pytest.mark.guarantee("G7")
def test_evidence_is_asked_for_this_nonce_and_this_key_only() -> None:
    def asked(nonce: str, key: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
        made = Exchange("snp", key)
        made.start()
        got = made.receive(Reply(200, Challenge(nonce).pack(), "c0ffee"))
        assert isinstance(got, Collect)
        return got.device_nonce, got.digest()

    other = ec.derive_private_key(23, ec.SECP256R1())
    seen = [asked(NONCE, KEY), asked(NONCE, other), asked(NONCE[::-1], KEY)]
    assert len({nonce for nonce, _ in seen}) == len({digest for _, digest in seen}) == 3


def test_the_digests_are_over_what_is_sent() -> None:
    made = Exchange("snp", KEY)
    made.start()
    asked = made.receive(Reply(200, Challenge(NONCE, takes_events=True).pack(), "c0ffee"))
    assert isinstance(asked, Collect)
    assert asked.device_nonce == kbs_digest({"nonce": NONCE, "tee-pubkey": JWK})[:32]
    evidence = Machine(devices=[GPU], events=LOG)(asked)
    sent = json.loads(made.evidence(evidence).body)
    additional = sent["tee-evidence"]["additional_evidence"]
    assert json.loads(additional).keys() == {"nvidia", "strongroom"}
    members = {"additional-evidence": additional, "nonce": NONCE, "tee-pubkey": JWK}
    assert asked.digest(evidence.gpus, evidence.events) == kbs_digest(members)
    report = sent["tee-evidence"]["primary_evidence"]["attestation_report"]["report_data"]
    assert bytes(report) == kbs_digest(members) + bytes(16)


def test_the_event_log_is_for_brokers_that_ask_for_it() -> None:
    assert not collect().takes_events
    assert collect(Challenge(NONCE, takes_events=True)).takes_events
    assert Machine(events=LOG)(collect()).events is None


def test_a_broker_selects_only_what_was_offered() -> None:
    sha512 = Challenge(NONCE, "sha512")
    with pytest.raises(FormatError, match="got 'sha512', want sha384"):
        collect(sha512)
    asked = collect(sha512, hashes=("sha384", "sha512"))
    assert asked.digest() == kbs_digest(
        {"additional-evidence": "", "nonce": NONCE, "tee-pubkey": JWK}, "sha512"
    )
    assert Machine()(asked).primary.report  # a report of the hardware holds 64 bytes
    assert json.loads(Exchange("snp", KEY, hashes=("sha512",)).start().body)["extra-params"] == {
        "supported-hash-algorithms": ["sha512"]
    }


def test_init_data_goes_along_as_it_is() -> None:
    body = json.loads(exchange(State.COLLECTING, init_data=INIT_DATA).evidence(EVIDENCE).body)
    assert body["init-data"] == {"format": "toml", "body": INIT_DATA.text}


@pytest.mark.parametrize("tee", MACHINES)
@pytest.mark.parametrize("version", [*DIALECTS])
def test_every_machine_speaks_every_dialect_it_knows(tee: Any, version: str) -> None:
    machine = Machine(tee, devices=() if version == "0.2.0" else [GPU])
    made = Exchange(tee, KEY, dialect=DIALECTS[version])
    hello = json.loads(made.start().body)
    assert (hello["version"], hello["tee"]) == (version, tee.replace("-", "") if version < "0.4.0" else tee)
    asked = made.receive(CHALLENGED)
    assert isinstance(asked, Collect)
    if (tee, version) == ("tpm", "0.2.0"):
        with pytest.raises(FormatError, match="tee tpm is not known to this version"):
            made.evidence(machine(asked))
        return
    body = json.loads(made.evidence(machine(asked)).body)
    if version == "0.4.0":
        assert body.keys() == {"init-data", "runtime-data", "tee-evidence"}
    else:
        assert body.keys() == {"tee-pubkey", "tee-evidence"}
    if version == "0.2.0":
        assert asked.digest() == kbs_digest({"nonce": NONCE, "tee-pubkey": JWK})
        assert "primary_evidence" not in body["tee-evidence"]
    else:
        assert json.loads(body["tee-evidence"]["additional_evidence"]).keys() == {"nvidia"}


def test_the_shapes_of_old_evidence() -> None:
    made = exchange(State.COLLECTING, dialect=DIALECTS["0.2.0"])
    snp = json.loads(made.evidence(EVIDENCE).body)["tee-evidence"]["attestation_report"]
    assert {"_reserved_1", "current_build", "committed_major", "_author_key_en"} <= snp.keys()
    assert not {"cpuid_fam_id", "key_info", "current", "committed"} & snp.keys()
    assert len(snp["_reserved_4"]) == 168 and snp["reported_tcb"]["_reserved"] == [0] * 4
    assert sum(len(part) for part in snp["signature"].values()) == 512
    raw = Machine("az-snp-vtpm")
    azure = Exchange("az-snp-vtpm", KEY, dialect=DIALECTS["0.2.0"])
    azure.start()
    asked = azure.receive(CHALLENGED)
    assert isinstance(asked, Collect)
    evidence = raw(asked)
    old = json.loads(azure.evidence(evidence).body)["tee-evidence"]
    assert old.keys() == {"quote", "report", "vcek"}
    assert bytes(old["report"]) == evidence.primary.report
    assert evidence.primary.tpm is not None and bytes(old["quote"]["message"]) == evidence.primary.tpm.attest
    assert old["vcek"].startswith("-----BEGIN CERTIFICATE-----\n")


def test_devices_are_not_left_out_in_silence() -> None:
    gpus = Machine(devices=[GPU]).gpus(collect())
    made = exchange(State.COLLECTING, dialect=DIALECTS["0.2.0"])
    with pytest.raises(ProtocolError, match=r"1 gpus, want none: a broker of protocol 0\.2\.0"):
        made.evidence(CompositeEvidence(primary=EVIDENCE.primary, gpus=gpus))


def test_a_version_nobody_speaks_is_refused() -> None:
    assert dialect_of("0.4.0") is CURRENT
    with pytest.raises(ConfigError, match=r"got '0.1.1', want one of 0.2.0, 0.3.0, 0.4.0"):
        dialect_of("0.1.1")


@pytest.mark.parametrize("state", [*State])
def test_a_call_out_of_order_changes_nothing(state: State) -> None:
    made = exchange(state)
    allowed = {
        State.START: "start",
        State.AWAIT_CHALLENGE: "receive",
        State.COLLECTING: "evidence",
        State.AWAIT_TOKEN: "receive",
    }.get(state)
    calls: dict[str, Callable[[], object]] = {
        "start": made.start,
        "receive": lambda: made.receive(CHALLENGED),
        "evidence": lambda: made.evidence(EVIDENCE),
    }
    for name, call in calls.items():
        if name != allowed:
            with pytest.raises(ProtocolError, match=f"state is {state.name}, want"):
                call()
            assert made.state is state


@pytest.mark.parametrize("state", [State.AWAIT_CHALLENGE, State.AWAIT_TOKEN, State.DONE])
@pytest.mark.parametrize(
    ("status", "kind", "want"),
    [
        (401, "PolicyDeny", PolicyError),
        (401, "AttestationError", VerifyError),
        (401, "TokenVerifierError", SessionLostError),
        (503, "HTTPFailed", TransportError),
    ],
)
def test_a_refusal_is_raised(state: State, status: int, kind: str, want: type[StrongroomError]) -> None:
    refused = Reply(status, Refusal(kind, "because of this").pack())
    with pytest.raises(want, match="of this"):
        answered(state, refused)


@pytest.mark.parametrize("state", [State.AWAIT_CHALLENGE, State.AWAIT_TOKEN, State.DONE])
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"<html>", b'{"nonce":', b"\xff"], ids=range(7))
def test_an_answer_of_another_shape_is_refused(state: State, body: bytes) -> None:
    with pytest.raises(FormatError):
        answered(state, Reply(200, body, "c0ffee"))


def test_an_answer_over_its_size_is_refused() -> None:
    with pytest.raises(ProtocolError, match="answer is 16385 bytes, want at most 16384"):
        exchange(State.AWAIT_CHALLENGE).receive(Reply(200, b" " * 16385, "c0ffee"))


@pytest.mark.parametrize("cookie", [None, "", "a b", "a;b", "a\r\nX: y", "x" * 257, "\u00e9"])
def test_a_cookie_that_could_not_be_sent_back_is_refused(cookie: str | None) -> None:
    with pytest.raises(ProtocolError, match="no usable session cookie"):
        exchange(State.AWAIT_CHALLENGE).receive(Reply(200, Challenge(NONCE).pack(), cookie))


def test_a_secret_for_another_key_does_not_open() -> None:
    other = ec.derive_private_key(23, ec.SECP256R1()).public_key()
    jwe = seal(b"secret", other, ephemeral=EPHEMERAL, cek=bytes(32), iv=bytes(12))
    with pytest.raises(VerifyError, match="does not unwrap"):
        admission().open(admission().ask(URI), Reply(200, pack_json(jwe.to_json())))


def test_evidence_of_another_kind_than_was_told_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="tee is tdx, and the broker was told snp"):
        exchange(State.COLLECTING).evidence(CompositeEvidence(primary=Machine("tdx").primary(bytes(48))))


def jwt(**claims: object) -> str:
    return f"e30.{b64u(json.dumps(claims).encode())}.c2ln"


@pytest.mark.parametrize(
    ("token", "want"),
    [
        ("a.b.c", None),
        ("opaque", None),
        ("e30.e30.c2ln", None),
        (jwt(exp=300, iat=100), Lifetime(100, 300)),
        (jwt(exp=300.5, nbf=1.5), Lifetime(None, 300)),
        (jwt(exp=True), None),
        (jwt(exp="300"), None),
        (jwt(exp=1 << 50), None),
    ],
)
def test_a_token_says_how_long_it_lives_or_does_not(token: str, want: Lifetime | None) -> None:
    assert admission(token).lifetime == want


@pytest.mark.guarantee("G11")
def test_no_secret_is_shown() -> None:
    assert "a.b.c" not in repr(admission())
    assert "c0ffee" not in repr(CHALLENGED) + repr(Send("GET", "/", 1, b"body", "c0ffee")) + repr(admission())


def test_additional_evidence_is_text_and_empty_without_devices() -> None:
    assert pack_additional((), None) == ""
    gpus = Machine(devices=[GPU]).gpus(collect())
    device = json.loads(pack_additional(gpus, None))["nvidia"]["device_evidence_list"][0]
    assert (device["arch"], device["uuid"]) == ("HOPPER", "unknown")
    assert base64.b64decode(device["evidence"]) == gpus[0].report
    assert base64.b64decode(device["certificate"]).startswith(b"-----BEGIN CERTIFICATE-----\n")
