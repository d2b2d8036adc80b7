"""Mirrors host/release.py: a guest on one side of a real TLS connection, a desk on the other."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from strongroom.broker.errors import Refusal
from strongroom.broker.exchange import Collect
from strongroom.broker.messages import Challenge
from strongroom.broker.resource import ResourceURI
from strongroom.cli.broker_certificate import TLSCertificate
from strongroom.errors import (
    ConfigError,
    FormatError,
    MachineError,
    PolicyError,
    ProtocolError,
    StrongroomError,
    TransportError,
    VerifyError,
)
from strongroom.evidence.kbs import CompositeEvidence
from strongroom.host import release
from strongroom.host.fetch import Pin
from strongroom.host.release import BrokerSession, ReleasedKey, Speaking, release_key
from strongroom.wire.canonical import b64u, unb64u
from tests.fakes import misbehaving as does
from tests.fakes.broker import URI, VOLUME, ToldKeeper, desk, respond_with
from tests.fakes.https import Heard, Respond, certificate, listening, ok
from tests.fakes.kbs import Machine
from tests.fakes.misbehaving import Misbehaving, serving

T = TypeVar("T")

AUTH = b"POST /kbs/v0/auth "


@pytest.fixture
def served(tmp_path: Path) -> TLSCertificate:
    return certificate(tmp_path)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "_FIRST_PAUSE", 0.001)


async def collect(asked: Collect) -> CompositeEvidence:
    return Machine()(asked)


heard: list[Heard] = []


def obtain(
    directory: Path,
    respond: Respond,
    *,
    deadline_s: float = 5.0,
    collect: release.CollectEvidence = collect,
    pin: Callable[[TLSCertificate], dict[str, object]] = lambda c: {"spki_sha256": c.spki_sha256},
    shown: TLSCertificate,
) -> ReleasedKey:
    async def run() -> ReleasedKey:
        async with listening(directory, respond) as listener:
            heard[:] = [listener]
            return await release_key(
                url=listener.url,
                resource=str(URI),
                tee="snp",
                collect=collect,
                deadline_s=deadline_s,
                **pin(shown),  # type: ignore[arg-type]
            )

    return asyncio.run(run())


def handshakes() -> int:
    return sum(request.startswith(AUTH) for request in heard[0].requests)


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize(
    "pin", [lambda c: {"spki_sha256": c.spki_sha256}, lambda c: {"ca_pem": c.pem}], ids=["key", "authority"]
)
def test_the_key_arrives(
    served: TLSCertificate, tmp_path: Path, pin: Callable[[TLSCertificate], dict[str, object]]
) -> None:
    got = obtain(tmp_path, respond_with(desk(ToldKeeper())), pin=pin, shown=served)
    assert got == ReleasedKey(volume=VOLUME, resource=URI, broker_spki_sha256=served.spki_sha256)
    assert (heard[0].connections, len(heard[0].requests)) == (1, 3)


@pytest.mark.parametrize(
    ("keeper", "want", "why", "requests"),
    [
        (
            ToldKeeper(reasons=("debug is on, want off",)),
            PolicyError,
            "PolicyDeny: kbs:///.*: debug is on",
            3,
        ),
        (ToldKeeper(forged="snp report: forged"), VerifyError, "AttestationError: .*snp report: forged", 2),
        (ToldKeeper(resources={}), PolicyError, "does not exist", 3),
        (ToldKeeper(resources={URI: b"a plain secret"}), FormatError, "volume key", 3),
    ],
    ids=["denied", "forged", "missing", "no volume key"],
)
def test_a_refusal_costs_one_handshake(
    served: TLSCertificate,
    tmp_path: Path,
    keeper: ToldKeeper,
    want: type[StrongroomError],
    why: str,
    requests: int,
) -> None:
    with pytest.raises(want, match=why):
        obtain(tmp_path, respond_with(desk(keeper)), shown=served)
    assert (handshakes(), len(heard[0].requests)) == (1, requests)


def test_a_broker_of_another_version_is_named_at_once(served: TLSCertificate, tmp_path: Path) -> None:
    said = "KBS Client Protocol Version Mismatch: expect =0.5.0 while the request is 0.4.0"
    answer = ok(Refusal("AttestationError", said).pack(), status="401 X")
    with pytest.raises(ProtocolError, match=r"broker speaks protocol 0\.5\.0, we speak 0\.4\.0"):
        obtain(tmp_path, lambda _: answer, shown=served)
    assert handshakes() == 1


@pytest.mark.parametrize("status", ["500 Oops", "503 Busy", "429 Slow"])
def test_trouble_is_tried_again_in_a_new_handshake(
    served: TLSCertificate, tmp_path: Path, status: str
) -> None:
    good, failures = respond_with(desk(ToldKeeper())), [3]

    def respond(request: bytes) -> bytes:
        if failures[0] and not request.startswith(AUTH):
            failures[0] -= 1
            return ok(b"", status=status)
        return good(request)

    assert obtain(tmp_path, respond, shown=served).volume == VOLUME
    assert handshakes() == 4
    bodies = {request.partition(b"tee-pubkey")[2] for request in heard[0].requests if b"/attest" in request}
    assert len(bodies) == 4  # a key pair lives for one handshake


def test_the_deadline_names_the_url_and_the_last_cause(served: TLSCertificate, tmp_path: Path) -> None:
    with pytest.raises(TransportError) as caught:
        obtain(tmp_path, lambda _: ok(b"", status="503 Busy"), deadline_s=0.5, shown=served)
    url = heard[0].url
    assert str(caught.value) == f"{url}: no answer for {URI} within 0.5 s, last POST /kbs/v0/auth: status 503"
    assert handshakes() > 1


def test_a_silent_broker_is_named(served: TLSCertificate, tmp_path: Path) -> None:
    with pytest.raises(
        TransportError, match=r"within 0.5 s, last waiting for the answer to POST /kbs/v0/auth"
    ):
        obtain(tmp_path, lambda _: None, deadline_s=0.5, shown=served)


def test_a_closed_port_is_tried_until_the_deadline(served: TLSCertificate) -> None:
    with pytest.raises(
        TransportError,
        match=r"https://127.0.0.1:1: no answer for kbs:///.* within 0.3 s, last POST .*: connection refused",
    ):
        asyncio.run(
            release_key(
                url="https://127.0.0.1:1",
                resource=str(URI),
                tee="snp",
                collect=collect,
                deadline_s=0.3,
                spki_sha256=served.spki_sha256,
            )
        )


def test_the_deadline_covers_the_collection_of_evidence(served: TLSCertificate, tmp_path: Path) -> None:
    async def forever(asked: Collect) -> CompositeEvidence:
        await asyncio.sleep(3600)
        return Machine()(asked)

    with pytest.raises(TransportError, match="last collecting evidence"):
        obtain(tmp_path, respond_with(desk(ToldKeeper())), collect=forever, deadline_s=0.5, shown=served)


def test_a_machine_without_evidence_fails_at_once(served: TLSCertificate, tmp_path: Path) -> None:
    for error in (MachineError("tsm report: no such device"), TimeoutError("its own")):

        async def broken(_: Collect, error: Exception = error) -> CompositeEvidence:
            raise error

        with pytest.raises(type(error), match=str(error)):
            obtain(tmp_path, respond_with(desk(ToldKeeper())), collect=broken, shown=served)
        assert handshakes() == 1


@pytest.mark.parametrize("which", ["key", "authority"])
def test_a_peer_that_is_not_the_broker_is_not_asked_twice(
    served: TLSCertificate, tmp_path: Path, which: str
) -> None:
    other = certificate(tmp_path / "other")
    pins: dict[str, dict[str, object]] = {
        "key": {"spki_sha256": other.spki_sha256},
        "authority": {"ca_pem": other.pem},
    }
    with pytest.raises(VerifyError, match="pinned"):
        obtain(tmp_path, respond_with(desk(ToldKeeper())), pin=lambda _: pins[which], shown=served)
    assert heard[0].requests == [] and heard[0].connections <= 1


def test_an_answer_without_end_is_cut(served: TLSCertificate, tmp_path: Path) -> None:
    answer = ok(b" " * 20_000 + Challenge("x" * 44).pack())
    with pytest.raises(ProtocolError, match="answer is longer than 16384 bytes"):
        obtain(tmp_path, lambda _: answer, shown=served)
    assert handshakes() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://127.0.0.1:1"},
        {"spki_sha256": None},
        {"ca_pem": "x"},
        {"resource": "file:///etc/shadow"},
    ],
    ids=["plain", "no pin", "two pins", "no resource"],
)
def test_what_cannot_be_right_is_refused_before_anything_is_sent(change: dict[str, object]) -> None:
    arguments = {
        "url": "https://127.0.0.1:1",
        "resource": str(URI),
        "tee": "snp",
        "collect": collect,
        "deadline_s": 1.0,
        "spki_sha256": bytes(32),
    } | change
    with pytest.raises((ConfigError, FormatError)):
        asyncio.run(release_key(**arguments))  # type: ignore[arg-type]


def test_pauses_grow_to_a_limit_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "_FIRST_PAUSE", 0.25)
    pauses = [pause for pause, _ in zip(release._pauses(), range(50), strict=False)]
    assert 0.125 <= pauses[0] <= 0.25 and all(4 <= pause <= 8 for pause in pauses[6:])
    assert len(set(pauses)) > 40


@pytest.mark.guarantee("G11")
def test_a_released_key_is_not_shown(served: TLSCertificate, tmp_path: Path) -> None:
    got = obtain(tmp_path, respond_with(desk(ToldKeeper())), shown=served)
    assert str(VOLUME.key) not in repr(got) and b64u(VOLUME.key) not in repr(got)


# One session, many questions


class Desked(Misbehaving):
    """A desk whose tokens live `life` seconds, and that a test can take apart."""

    def __init__(self, *, life: int = 300, keeper: ToldKeeper | None = None, **rest: Any) -> None:
        self.life = life
        super().__init__(lambda: desk(keeper or ToldKeeper()), **rest)

    async def answer(self, writer: asyncio.StreamWriter, request: bytes) -> None:
        if self.life != 300 and b"/attest " in request.split(b"\r\n")[0]:
            self.fault, self.step, self.times = does.changes(self._shorter), "attest", 1 << 30
        await super().answer(writer, request)

    def _shorter(self, value: dict[str, Any]) -> None:
        if "token" not in value:
            return
        header, payload, signature = value["token"].split(".")
        claims = json.loads(unb64u(payload, "token"))
        claims["exp"] = claims["iat"] + self.life
        value["token"] = f"{header}.{b64u(json.dumps(claims).encode())}.{signature}"


def together(
    directory: Path,
    broker: Misbehaving,
    work: Callable[[BrokerSession], Awaitable[T]],
    *,
    shown: TLSCertificate,
    deadline_s: float = 5.0,
    **options: Any,
) -> T:
    async def run() -> T:
        async with (
            serving(directory, broker),
            BrokerSession(
                url=broker.url,
                pin=Pin(spki_sha256=shown.spki_sha256),
                tee="snp",
                collect=collect,
                deadline_s=deadline_s,
                **options,
            ) as session,
        ):
            return await work(session)

    return asyncio.run(run())


async def until(done: Callable[[], bool]) -> None:
    for _ in range(1000):
        if done():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")


OTHER = ResourceURI.parse("kbs:///default/keys/other")


def test_many_resources_take_one_handshake_and_one_connection(served: TLSCertificate, tmp_path: Path) -> None:
    broker = Desked(keeper=ToldKeeper(resources={URI: b"a", OTHER: b"b"}))

    async def work(session: BrokerSession) -> list[bytes]:
        first = [(await session.get(uri)).reveal() for uri in (URI, OTHER, URI)]
        more = await asyncio.gather(*(session.get(uri) for uri in (URI, OTHER)))
        return [*first, *(secret.reveal() for secret in more)]

    assert together(tmp_path, broker, work, shown=served) == [b"a", b"b", b"a", b"a", b"b"]
    assert (broker.handshakes, broker.count("attest"), broker.count("resource")) == (1, 1, 5)


def test_one_handshake_for_all_who_wait(served: TLSCertificate, tmp_path: Path) -> None:
    broker = Desked()

    async def work(session: BrokerSession) -> int:
        found = await asyncio.gather(*(session.get(URI) for _ in range(20)))
        assert {secret.reveal() for secret in found} == {VOLUME.pack()}
        return session.handshakes

    assert together(tmp_path, broker, work, shown=served) == broker.handshakes == 1


def test_a_refusal_is_told_to_all_who_wait_and_costs_one_handshake(
    served: TLSCertificate, tmp_path: Path
) -> None:
    broker = Desked(keeper=ToldKeeper(forged="snp report: forged"))

    async def work(session: BrokerSession) -> list[Any]:
        return await asyncio.gather(*(session.get(URI) for _ in range(10)), return_exceptions=True)

    got = together(tmp_path, broker, work, shown=served)
    assert {type(error) for error in got} == {VerifyError}
    assert broker.handshakes == 1


def test_one_who_gives_up_does_not_end_the_handshake_of_the_others(
    served: TLSCertificate, tmp_path: Path
) -> None:
    broker = Desked()

    async def work(session: BrokerSession) -> bytes:
        impatient = asyncio.create_task(session.get(URI))
        patient = asyncio.create_task(session.get(URI))
        await asyncio.sleep(0)
        impatient.cancel()
        assert isinstance(
            (await asyncio.gather(impatient, return_exceptions=True))[0], asyncio.CancelledError
        )
        return (await patient).reveal()

    assert together(tmp_path, broker, work, shown=served) == VOLUME.pack()
    assert broker.handshakes == 1


def test_a_denied_resource_leaves_the_session_as_it_is(served: TLSCertificate, tmp_path: Path) -> None:
    broker = Desked()

    async def work(session: BrokerSession) -> bytes:
        with pytest.raises(PolicyError, match="does not exist"):
            await session.get(OTHER)
        return (await session.get(URI)).reveal()

    assert together(tmp_path, broker, work, shown=served) == VOLUME.pack()
    assert broker.handshakes == 1


def test_a_token_is_renewed_before_it_ends(
    served: TLSCertificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 % of its life: here of one second, with nobody asking."""
    monkeypatch.setattr(release, "RENEW_AT", 0.02)
    monkeypatch.setattr(release, "_SHORTEST_LIFE", 0.01)
    broker = Desked(life=1)

    async def work(session: BrokerSession) -> tuple[str, str]:
        before = await session.admission()
        await until(lambda: session.handshakes == 3)
        asked = broker.count("resource")
        await session.get(URI)
        assert broker.count("resource") == asked + 1
        return before.token, (await session.admission()).token

    before, after = together(tmp_path, broker, work, shown=served)
    assert before != after


def test_the_time_of_renewal() -> None:
    assert release.RENEW_AT == 0.8


def test_a_renewal_that_is_refused_waits_for_the_next_question(
    served: TLSCertificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "RENEW_AT", 0.02)
    monkeypatch.setattr(release, "_SHORTEST_LIFE", 0.01)
    keeper = ToldKeeper()
    broker = Desked(life=1, keeper=keeper)

    async def work(session: BrokerSession) -> None:
        await session.get(URI)
        keeper.forged = "snp report: revoked meanwhile"
        await until(lambda: session.handshakes == 2)
        await asyncio.sleep(0.1)
        assert session.handshakes == 2  # refused once, and not asked again by itself
        await session.get(URI)  # the token is good for as long as it said
        await asyncio.sleep(1)
        with pytest.raises(VerifyError, match="revoked meanwhile"):
            await session.get(URI)

    together(tmp_path, broker, work, shown=served)
    assert broker.handshakes == 3


def test_a_renewal_goes_on_while_the_broker_is_away(
    served: TLSCertificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "RENEW_AT", 0.02)
    monkeypatch.setattr(release, "_SHORTEST_LIFE", 0.01)
    broker = Desked(life=1)

    async def work(session: BrokerSession) -> str:
        first = (await session.admission()).token
        broker.fault, broker.step, broker.times = does.status("503 Busy"), "auth", 4
        await until(lambda: session._held is not None and session._held.admission.token != first)
        return (await session.admission()).token

    assert together(tmp_path, broker, work, shown=served)
    assert broker.handshakes >= 5


def test_a_broker_s_own_pause_is_kept(
    served: TLSCertificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []

    async def rest(session: BrokerSession, pause: float) -> None:
        rests.append(max(pause, session._pause_asked))

    monkeypatch.setattr(BrokerSession, "_rest", rest)
    fault = does.status("429 Too Many", "Retry-After: 7\r\n")
    broker = Desked(step="auth", fault=fault, times=2)
    together(tmp_path, broker, lambda session: session.get(URI), shown=served)
    assert rests == [7.0, 7.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("", 0), ("3", 3), ("86400", 60), ("-1", 0), ("1.5", 0), ("soon", 0), ("9" * 9, 0), ("\u0663", 0)],
)
def test_a_pause_is_asked_for_in_seconds_and_has_a_limit(header: str, seconds: float) -> None:
    assert release._asked_for(header) == seconds


@pytest.mark.parametrize("kind", ["ECDH-ES+A256KW-P256", "ECDH-ES+A256KW-P521", "RSA-OAEP-256"])
def test_every_kind_of_key(served: TLSCertificate, tmp_path: Path, kind: release.KeyKind) -> None:
    async def work(session: BrokerSession) -> bytes:
        return (await session.get(URI)).reveal()

    got = together(tmp_path, Desked(), work, shown=served, speaking=Speaking(key=kind))
    assert got == VOLUME.pack()


def test_a_version_is_asked_for_by_number(served: TLSCertificate, tmp_path: Path) -> None:
    broker = Desked()

    async def work(session: BrokerSession) -> None:
        with pytest.raises(PolicyError):  # this desk knows no query
            await session.get(URI, version=3)

    together(tmp_path, broker, work, shown=served)
    assert broker.requests[-1].startswith(f"GET {URI.path}?version=3 ".encode())


@pytest.mark.guarantee("G11")
def test_nothing_of_a_session_is_left_behind(served: TLSCertificate, tmp_path: Path) -> None:
    kept: list[BrokerSession] = []

    async def work(session: BrokerSession) -> None:
        kept.append(session)
        secret = await session.get(URI)
        assert b64u(VOLUME.key) not in repr(secret) and str(VOLUME.key) not in repr(secret)
        admission = await session.admission()
        assert admission.token not in repr(session) + repr(admission)

    together(tmp_path, Desked(), work, shown=served)
    assert kept[0]._held is None and kept[0]._renewal is None
