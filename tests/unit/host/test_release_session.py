"""Mirrors host/release.py: one session that many questions are asked over, and what renews it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from strongroom.broker.exchange import Collect
from strongroom.broker.resource import ResourceURI
from strongroom.cli.broker_certificate import TLSCertificate
from strongroom.errors import PolicyError, TransportError, VerifyError
from strongroom.evidence.kbs import CompositeEvidence
from strongroom.host import release
from strongroom.host.fetch import Pin
from strongroom.host.release import BrokerSession, Speaking
from strongroom.wire.canonical import b64u, unb64u
from tests.fakes import misbehaving as does
from tests.fakes.broker import URI, VOLUME, ToldKeeper, desk
from tests.fakes.https import certificate
from tests.fakes.kbs import Machine
from tests.fakes.misbehaving import Misbehaving, serving

T = TypeVar("T")


@pytest.fixture
def served(tmp_path: Path) -> TLSCertificate:
    return certificate(tmp_path)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "_FIRST_PAUSE", 0.001)


async def collect(asked: Collect) -> CompositeEvidence:
    return Machine()(asked)


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


def test_a_question_may_have_less_time_than_the_session(served: TLSCertificate, tmp_path: Path) -> None:
    broker = Desked(step="auth", fault=does.status("503 Busy"))

    async def work(session: BrokerSession) -> None:
        with pytest.raises(TransportError, match=r"no answer for .* within 0\.05 s, last .*503"):
            await session.get(URI, deadline_s=0.05)
        with pytest.raises(TransportError, match=r"no token within 0\.05 s"):
            await session.admission(deadline_s=0.05)
        broker.fault = None
        assert (await session.get(URI, deadline_s=3600)).reveal() == VOLUME.pack()

    together(tmp_path, broker, work, shown=served)


def test_nobody_has_more_time_than_the_session(served: TLSCertificate, tmp_path: Path) -> None:
    broker = Desked(step="auth", fault=does.status("503 Busy"))

    async def work(session: BrokerSession) -> None:
        with pytest.raises(TransportError, match=r"within 0\.05 s"):
            await session.get(URI, deadline_s=3600)

    together(tmp_path, broker, work, shown=served, deadline_s=0.05)
