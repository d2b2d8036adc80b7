"""Mirrors host/release.py: a guest on one side of a real TLS connection, a desk on the other."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from strongroom.broker.errors import Refusal
from strongroom.broker.exchange import Collect
from strongroom.broker.messages import Challenge
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
from strongroom.host.release import ReleasedKey, release_key
from strongroom.wire.canonical import b64u
from tests.fakes.broker import URI, VOLUME, ToldKeeper, desk, respond_with
from tests.fakes.https import Heard, Respond, certificate, listening, ok
from tests.fakes.kbs import Machine

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
