"""Mirrors broker/desk.py: the broker's side, with a guest joined to it and no socket between."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from strongroom.broker.audit import START, Outcome
from strongroom.broker.desk import Answer, Desk
from strongroom.broker.exchange import Send
from strongroom.broker.messages import Attestation, Challenge, Request, runtime_data
from strongroom.broker.rate import Rate
from strongroom.broker.resource import ResourceURI
from strongroom.broker.sessions import Sessions
from strongroom.errors import PolicyError, VerifyError
from strongroom.evidence.binding import kbs_digest, kbs_report_data
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.snp_json import to_kbs
from strongroom.keys.jwe import JWE, open_sealed
from strongroom.keys.jwk import PrivateKey, pack_jwk
from strongroom.wire.canonical import b64u
from tests.fakes.broker import NOW, URI, VOLUME, CountedRandomness, Guest, ToldKeeper, desk
from tests.fakes.silicon import silicon

KEY = ec.derive_private_key(21, ec.SECP256R1())
PEER = "192.0.2.1"


def detail(answer: Answer) -> str:
    return str(json.loads(answer.body)["detail"])


def kind(answer: Answer) -> str:
    return str(json.loads(answer.body)["type"]).rpartition("/")[2]


def begin(at: Desk) -> tuple[str, str]:
    """Cookie and nonce of a new session."""
    answer = at.auth(Request("snp").pack(), peer=PEER, now=NOW)
    assert answer.cookie is not None
    return answer.cookie, Challenge.parse(answer.body).nonce


def attestation(nonce: str, key: PrivateKey = KEY) -> Attestation:
    jwk = pack_jwk(key.public_key())
    report = silicon().report(kbs_report_data(kbs_digest(runtime_data(nonce, jwk, ""))))
    table = CertificateTable.parse(silicon().certificates())
    return Attestation(nonce=nonce, tee_pubkey=jwk, primary=to_kbs(report, table))


def attest(at: Desk, body: bytes, cookie: str | None) -> Answer:
    return at.attest(body, peer=PEER, cookie=cookie, now=NOW)


def get(at: Desk, path: str = URI.path, *, cookie: str | None = None, bearer: str | None = None) -> Answer:
    return at.get(path, peer=PEER, cookie=cookie, bearer=bearer, now=NOW)


def attested(at: Desk) -> str:
    cookie, nonce = begin(at)
    assert attest(at, attestation(nonce).pack(), cookie).status == 200
    return cookie


def outcome(answer: Answer) -> Outcome:
    assert answer.audit is not None
    return answer.audit.outcome


@pytest.mark.guarantee("G1")
def test_a_guest_obtains_its_key() -> None:
    keeper = ToldKeeper()
    guest = Guest.on(silicon())
    assert guest.obtain(desk(keeper)) == VOLUME.pack()
    assert [len(keeper.verified), keeper.judged] == [1, [URI]]
    assert [a.audit and a.audit.outcome for a in guest.answers] == [None, Outcome.ATTESTED, Outcome.RELEASED]


@pytest.mark.guarantee("G18")
def test_simulated_silicon_is_marked_from_the_start() -> None:
    guest = Guest.on(silicon())
    guest.obtain(desk(ToldKeeper(simulated=True)))
    assert guest.answers[1].audit is not None
    assert guest.answers[1].audit.rule == "evidence is of INSECURE-SIMULATED silicon"


@pytest.mark.guarantee("G1")
def test_a_denied_guest_hears_every_reason() -> None:
    keeper = ToldKeeper(reasons=("measurement is 00, want good", "debug is on, want off"))
    guest = Guest.on(silicon())
    want = "PolicyDeny: kbs:///default/model/llama: measurement is 00, want good; debug is on, want off"
    with pytest.raises(PolicyError, match=want):
        guest.obtain(desk(keeper))
    audit = guest.answers[-1].audit
    assert audit is not None and audit.outcome is Outcome.DENIED
    assert audit.rule == "policy 00: measurement is 00, want good; debug is on, want off"


@pytest.mark.guarantee("G1")
def test_forged_evidence_gets_no_session() -> None:
    keeper = ToldKeeper(forged="snp report: the signature is not the chip's")
    guest = Guest.on(silicon())
    at = desk(keeper)
    with pytest.raises(VerifyError, match="Attest failed: snp report: the signature is not the chip's"):
        guest.obtain(at)
    assert outcome(guest.answers[-1]) is Outcome.REFUSED
    assert kind(get(at, cookie=guest.sent[-1].cookie)) == "TokenNotFound"
    assert keeper.judged == []


def test_a_resource_that_is_not_there_is_named() -> None:
    missing = ResourceURI.parse("kbs:///default/model/gone")
    guest = Guest.on(silicon(), uri=missing)
    with pytest.raises(
        PolicyError, match="PluginInternalError: resource kbs:///default/model/gone does not exist"
    ):
        guest.obtain(desk(ToldKeeper()))
    assert guest.answers[-1].status == 401
    assert outcome(guest.answers[-1]) is Outcome.DENIED


@pytest.mark.guarantee("G7")
def test_evidence_replayed_in_another_session_is_refused() -> None:
    keeper = ToldKeeper()
    at = desk(keeper)
    guest = Guest.on(silicon(), key=KEY)
    guest.obtain(at)
    recorded = guest.sent[1]
    cookie, _ = begin(at)
    answer = attest(at, recorded.body, cookie)
    assert (answer.status, kind(answer)) == (401, "AttestationError")
    assert "nonce is not this session's" in detail(answer)
    assert len(keeper.verified) == 1  # never even looked at


@pytest.mark.guarantee("G7")
def test_a_nonce_is_good_for_one_attempt() -> None:
    at = desk(ToldKeeper())
    cookie, nonce = begin(at)
    assert attest(at, b"{}", cookie).status == 401
    answer = attest(at, attestation(nonce).pack(), cookie)
    assert answer.status == 401
    assert "no such session" in detail(answer)


@pytest.mark.guarantee("G7")
def test_an_attested_session_keeps_its_first_evidence_and_key() -> None:
    keeper = ToldKeeper()
    at = desk(keeper)
    cookie, nonce = begin(at)
    first = attest(at, attestation(nonce).pack(), cookie)
    thief = ec.derive_private_key(666, ec.SECP256R1())
    second = attest(at, attestation(nonce, thief).pack(), cookie)
    assert second.body == first.body
    assert len(keeper.verified) == 1
    sealed = JWE.from_json(json.loads(get(at, cookie=cookie).body))
    assert open_sealed(sealed, KEY) == VOLUME.pack()
    with pytest.raises(VerifyError):
        open_sealed(sealed, thief)


@pytest.mark.guarantee("G7")
def test_the_digest_is_over_this_session_s_key() -> None:
    keeper = ToldKeeper()
    at = desk(keeper)
    cookie, nonce = begin(at)
    thief = pack_jwk(ec.derive_private_key(666, ec.SECP256R1()).public_key())
    attest(at, replace(attestation(nonce), tee_pubkey=thief).pack(), cookie)
    proof = keeper.verified[0]
    report = SNPReport.parse(proof.evidence.primary.report)
    assert report.report_data != kbs_report_data(proof.digests.primary)  # which is what verify_kbs refuses


def test_a_secret_is_sealed_to_the_key_of_the_evidence_anew_each_time() -> None:
    at = desk(ToldKeeper())
    cookie = attested(at)
    first, second = (JWE.from_json(json.loads(get(at, cookie=cookie).body)) for _ in range(2))
    assert first != second and first.iv != second.iv
    assert open_sealed(first, KEY) == open_sealed(second, KEY) == VOLUME.pack()


@pytest.mark.parametrize(
    "key",
    [ec.derive_private_key(5, ec.SECP521R1()), rsa.generate_private_key(65537, 2048)],
    ids=["P-521", "RSA"],
)
def test_the_guest_s_kind_of_key_is_the_guest_s_choice(key: PrivateKey) -> None:
    at = desk(ToldKeeper())
    cookie, nonce = begin(at)
    assert attest(at, attestation(nonce, key).pack(), cookie).status == 200
    assert open_sealed(JWE.from_json(json.loads(get(at, cookie=cookie).body)), key) == VOLUME.pack()


def test_a_token_stands_for_its_session() -> None:
    at = desk(ToldKeeper())
    cookie, nonce = begin(at)
    token = json.loads(attest(at, attestation(nonce).pack(), cookie).body)["token"]
    assert get(at, bearer=token).status == 200
    for other in (None, "", "a.b.c", token[:-4] + "AAAA"):
        assert kind(get(at, bearer=other)) == "TokenNotFound"
    assert kind(Desk(ToldKeeper(), CountedRandomness(), KEY).get(
        URI.path, peer=PEER, cookie=None, bearer=token, now=NOW)) == "TokenNotFound"  # another broker's  # fmt: skip


def test_a_session_ends_after_five_minutes() -> None:
    at = desk(ToldKeeper())
    cookie = attested(at)
    late = NOW + timedelta(minutes=5)
    assert kind(at.get(URI.path, peer=PEER, cookie=cookie, bearer=None, now=late)) == "TokenNotFound"


def test_a_token_that_ended_before_its_session_is_refused() -> None:
    at = Desk(ToldKeeper(), CountedRandomness(), KEY, sessions=Sessions(life=timedelta(minutes=9)))
    cookie = attested(at)
    late = NOW + timedelta(minutes=6)
    assert kind(at.get(URI.path, peer=PEER, cookie=cookie, bearer=None, now=late)) == "TokenVerifierError"


@pytest.mark.parametrize(
    ("path", "status", "want"),
    [
        ("/kbs/v0/resource/a/b", 401, "PluginInternalError"),
        ("/kbs/v0/resource/a/b/c/d", 401, "PluginInternalError"),
        ("/kbs/v0/resource/a/../c", 401, "PluginInternalError"),
        ("/kbs/v0/resource/a/b/%2e%2e", 401, "PluginInternalError"),
        ("/kbs/v0/resource", 401, "PluginInternalError"),
        ("/kbs/v0/nebula-ca/x", 404, "PluginNotFound"),
        ("/kbs/v0/", 404, "InvalidRequestPath"),
        ("/kbs/v0", 404, "InvalidRequestPath"),
        ("/", 404, "InvalidRequestPath"),
        ("/kbs/v1/resource/a/b/c", 404, "InvalidRequestPath"),
    ],
)
def test_another_path_is_refused(path: str, status: int, want: str) -> None:
    at = desk(ToldKeeper())
    answer = get(at, path, cookie=attested(at))
    assert (answer.status, kind(answer)) == (status, want)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b'{"version":"0.3.0","tee":"snp","extra-params":""}', "expect =0.4.0 while the request is 0.3.0"),
        (b'{"version":"0.4.0","tee":"sample","extra-params":""}', "tee is sample, want one of snp, tdx, "),
        (b'{"version":"0.4.0","tee":"nvidia","extra-params":""}', "tee is nvidia, want one of"),
        (
            b'{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":["sm3"]}}',
            "support sha384",
        ),
        (b" " * 20_000, "at most 16384"),
        (b'{"version":"0.4.0","tee":"\\u001b[2J\\n","extra-params":""}', "tee is [2J , want one of"),
        (b'{"version":"0.4.0","a\\nb":0}', "request.a b: unknown member"),
    ],
    ids=["empty", "version", "sample", "nvidia", "hash", "long", "controls", "line break"],
)
def test_a_request_is_refused_with_its_reason(body: bytes, why: str) -> None:
    answer = desk(ToldKeeper()).auth(body, peer=PEER, now=NOW)
    assert (answer.status, kind(answer), answer.cookie) == (401, "AttestationError", None)
    assert detail(answer).startswith("RCAR handshake Auth failed: ") and why in detail(answer)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"nonce": "another"}, "nonce is not this session's"),
        ({"additional": '{"nvidia":{}}'}, "additional_evidence.nvidia: no device_evidence_list"),
        ({"additional": '{"sampledevice":{}}'}, "additional_evidence: unknown key 'sampledevice'"),
        ({"tee_pubkey": {"kty": "EC"}}, "tee-pubkey"),
        ({"tee_pubkey": {"kty": "RSA", "alg": "RSA1_5", "n": "AA", "e": "AQAB"}}, "want RSA-OAEP-256"),
        ({"primary": {"svn": "1", "report_data": ""}}, "snp evidence"),
        ({"primary": None}, "snp evidence"),
    ],
)
def test_an_attestation_is_refused_with_its_reason(change: dict[str, Any], why: str) -> None:
    keeper = ToldKeeper()
    at = desk(keeper)
    cookie, nonce = begin(at)
    answer = attest(at, replace(attestation(nonce), **change).pack(), cookie)
    assert (answer.status, kind(answer), outcome(answer)) == (401, "AttestationError", Outcome.REFUSED)
    assert why in detail(answer)
    assert keeper.verified == []


@pytest.mark.parametrize("cookie", [None, "", "unknown"])
def test_an_attestation_without_a_session_is_refused(cookie: str | None) -> None:
    answer = attest(desk(ToldKeeper()), b"{}", cookie)
    assert (answer.status, outcome(answer)) == (401, Outcome.TURNED_AWAY)
    assert "no such session" in detail(answer)


def test_an_address_may_not_begin_too_often() -> None:
    at = Desk(ToldKeeper(), CountedRandomness(), KEY, rate=Rate(per_second=1, burst=2))
    codes = [at.auth(Request("snp").pack(), peer=PEER, now=NOW).status for _ in range(3)]
    assert codes == [200, 200, 429]
    assert at.auth(Request("snp").pack(), peer="192.0.2.2", now=NOW).status == 200


def test_open_sessions_are_bounded() -> None:
    at = Desk(ToldKeeper(), CountedRandomness(), KEY, sessions=Sessions(max_sessions=1))
    cookie = attested(at)
    assert at.auth(Request("snp").pack(), peer=PEER, now=NOW).status == 503
    assert get(at, cookie=cookie).status == 200


def test_a_policy_that_cannot_be_read_releases_nothing() -> None:
    class Broken(ToldKeeper):
        def judge(self, *_: object) -> None:
            raise PolicyError("policy of kbs:///default/model/llama: /srv/secret-path is broken")

    at = desk(Broken())
    answer = get(at, cookie=attested(at))
    assert kind(answer) == "PolicyEngineError"
    assert "secret-path" not in detail(answer)
    assert answer.audit is not None and "secret-path" in answer.audit.rule


@pytest.mark.parametrize("step", ["/auth", "/attest"])
def test_a_cut_request_never_releases(step: str) -> None:
    def cut(send: Send) -> Send:
        return replace(send, body=send.body[:-1]) if send.path.endswith(step) else send

    with pytest.raises(VerifyError):
        Guest.on(silicon()).obtain(desk(ToldKeeper()), tamper=cut)


@pytest.mark.guarantee("G11")
def test_nothing_the_broker_shows_holds_a_secret() -> None:
    keeper = ToldKeeper()
    at = desk(keeper)
    guest = Guest.on(silicon())
    guest.obtain(at)
    cookie = guest.answers[0].cookie
    lines = "".join(a.audit.line(START).decode() for a in guest.answers if a.audit)
    shown = f"{guest.answers!r} {keeper.verified!r} {lines}"
    assert b64u(VOLUME.key) not in shown and str(VOLUME.key) not in shown
    assert cookie is not None and cookie not in shown


@pytest.mark.guarantee("G11")
def test_nothing_is_attested_before_its_line_is_kept() -> None:
    at = desk(ToldKeeper())
    cookie, nonce = begin(at)
    session = at.begin_attempt(cookie, peer=PEER, now=NOW)
    assert not isinstance(session, Answer)
    assert attest(at, attestation(nonce).pack(), cookie).status == 503  # one attempt at a time
    examined = at.examine(session, attestation(nonce).pack(), peer=PEER, now=NOW)
    assert examined.answer.audit is not None and kind(get(at, cookie=cookie)) == "TokenNotFound"
    at.abandon(session)  # the line could not be kept
    assert kind(get(at, cookie=cookie)) == "TokenNotFound"
    assert attest(at, attestation(nonce).pack(), cookie).status == 200
    assert get(at, cookie=cookie).status == 200


def test_a_session_is_kept_without_what_its_sender_put_between() -> None:
    at = desk(ToldKeeper())
    cookie, nonce = begin(at)
    body = attestation(nonce).pack()
    assert attest(at, body + b" " * 500_000, cookie).status == 200
    assert len(at.suspend(NOW)[0]) < 3 * len(body)


def test_a_body_of_many_values_is_refused_before_it_is_read() -> None:
    at = desk(ToldKeeper())
    cookie, _ = begin(at)
    answer = attest(at, b'{"init-data":[' + b"[]," * 200_000 + b"[]]}", cookie)
    assert answer.status == 401 and "more than" in detail(answer)
