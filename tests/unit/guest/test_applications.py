"""Mirrors guest/applications.py and guest/keysock/agent.py: the agent's side of the key socket."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from guest.applications import Applications
from guest.attester import Attester
from guest.keysock.agent import Agent
from guest.keysock.plan import UNIT
from strongroom.errors import (
    FormatError,
    MachineError,
    PolicyError,
    ProtocolError,
    StrongroomError,
    TransportError,
)
from strongroom.evidence.binding import Purpose, application_challenge
from strongroom.evidence.snp import SNPReport
from strongroom.wire.canonical import b64u, pack_json
from strongroom.wire.framing import frame
from tests.fakes.keysock import FakeTSM

T = TypeVar("T")
DATA = bytes(range(32)) + bytes(32)
OURS = b"strongroom/rd/v1" + bytes(range(48))


def applications() -> Applications:
    return Applications(Attester(FakeTSM()), who=lambda _: UNIT)


def asked(folder: Path, work: Callable[[Agent], Awaitable[T]], far: Applications | None = None) -> T:
    """What a client gets from the agent's own side, over a real socket."""

    async def live() -> T:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "s"))
            listener.listen()
            serving = asyncio.create_task((far or applications()).serve(listener))
            try:
                return await work(Agent(folder / "s"))
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)

    return asyncio.run(live())


def reply(far: Applications, unit: str = UNIT, **request: Any) -> dict[str, Any]:
    return asyncio.run(far.reply(unit, pack_json(request)))


def test_a_report_carries_the_callers_bytes(socket_dir: Path) -> None:
    report = asked(socket_dir, lambda agent: agent.report(DATA))
    assert report.tee == "snp" and SNPReport.parse(report.report).report_data == DATA


def test_a_bundle_names_its_caller(socket_dir: Path) -> None:
    bundle = asked(socket_dir, lambda agent: agent.evidence(caller="a.service", nonce=DATA, key=b"key"))
    assert bundle.purpose is Purpose.APPLICATION
    assert bundle.challenge == application_challenge("a.service", DATA)
    assert bundle.challenge != application_challenge("b.service", DATA)
    assert bundle.challenge != application_challenge("a.service", DATA + b"\0")


def test_log_and_gpus(socket_dir: Path) -> None:
    assert asked(socket_dir, lambda agent: agent.log()).events == ()
    (socket_dir / "s").unlink()
    assert asked(socket_dir, lambda agent: agent.gpus(bytes(32))) == ()


@pytest.mark.guarantee("G8")
def test_our_own_shapes_take_a_rule_of_userdata(socket_dir: Path) -> None:
    far = applications()
    for data in (OURS, bytes(range(1, 49)) + bytes(16)):
        with pytest.raises(PolicyError, match="of a shape that is ours"):
            reply(far, ask="report", report_data=b64u(data), raw=False)
        with pytest.raises(PolicyError, match="no rule of userdata has raw_quote"):
            reply(far, ask="report", report_data=b64u(data), raw=True)
    far.raw = True
    assert reply(far, ask="report", report_data=b64u(OURS), raw=True)["tee"] == "snp"


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize("unit", ["strongroom-proxy.service", "api.service", ""])
def test_nobody_else_is_answered(unit: str) -> None:
    with pytest.raises(PolicyError, match=r"want strongroom-keysock\.service"):
        reply(applications(), unit, ask="log")


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"ask": "key"},
        {"ask": "log", "more": 1},
        {"ask": "report", "report_data": ""},
        {"ask": "report", "report_data": 1, "raw": True},
        {"ask": "evidence", "nonce": "", "key": ""},
        {"ask": "event", "caller": "a", "name": "b"},
    ],
)
def test_other_questions_are_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        reply(applications(), **request_)


def test_events_take_leave_and_keep_within_bounds() -> None:
    far = applications()
    event = {"ask": "event", "caller": "a.service", "name": "x", "payload": ""}
    with pytest.raises(PolicyError, match="lets no program"):
        reply(far, **event)
    far.events = True
    for wrong in ({"name": ""}, {"name": "a\n"}, {"name": "x" * 129}, {"payload": b64u(bytes(1025))}):
        with pytest.raises(FormatError):
            reply(far, **event | wrong)
    for n in range(64):
        assert len(reply(far, **event)["events"]) == n + 1
    with pytest.raises(PolicyError, match="64"):
        reply(far, **event)


def test_no_two_at_once_are_the_last() -> None:
    far = applications()
    far.events = True
    event = pack_json({"ask": "event", "caller": "a.service", "name": "x", "payload": ""})

    async def live() -> None:
        said = await asyncio.gather(*(far.reply(UNIT, event) for _ in range(70)), return_exceptions=True)
        assert sum(isinstance(one, PolicyError) for one in said) == 6

    asyncio.run(live())
    assert len(far._attester.log.events) == 64


def test_a_refusal_keeps_its_kind(socket_dir: Path) -> None:
    with pytest.raises(PolicyError, match="of a shape that is ours"):
        asked(socket_dir, lambda agent: agent.report(OURS))


def test_an_unknown_unit_is_told(socket_dir: Path) -> None:
    with pytest.raises(PolicyError):
        asked(
            socket_dir,
            lambda agent: agent.log(),
            Applications(Attester(FakeTSM()), who=lambda _: "a.service"),
        )


def test_nobody_there(socket_dir: Path) -> None:
    with pytest.raises(TransportError, match="agent: "):
        asyncio.run(Agent(socket_dir / "nobody").log())


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", TransportError),
        (b"\0\0", TransportError),
        (frame(b"nonsense"), FormatError),
        (frame(b"[]"), ProtocolError),
        (frame(b"{}"), FormatError),
        (frame(b'{"error":"odd\\u0007","kind":8}'), MachineError),
        (frame(b'{"error":"odd","kind":"x"}'), MachineError),
    ],
)
def test_a_far_side_gone_mad(socket_dir: Path, raw: bytes, kind: type[StrongroomError]) -> None:
    async def live() -> None:
        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(raw)
            writer.close()

        server = await asyncio.start_unix_server(answer, socket_dir / "s")
        async with server:
            with pytest.raises(kind) as caught:
                await Agent(socket_dir / "s").log()
            assert str(caught.value).isprintable()

    asyncio.run(live())
