"""A broker that misbehaves, in every way we know, and a guest that asks it for a key: how it ends, and what it costs.

Nothing but trouble on the way is ever tried again. Every refusal, every malformed answer and every wrong peer is said
at once, with exactly one handshake spent; a broker that has forgotten us gets one more.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.broker.desk import Desk
from strongroom.broker.errors import SessionLostError
from strongroom.broker.resource import VolumeKey
from strongroom.cli.broker_certificate import TLSCertificate
from strongroom.errors import (
    FormatError,
    PolicyError,
    ProtocolError,
    StrongroomError,
    TransportError,
    VerifyError,
)
from strongroom.host import release
from strongroom.host.fetch import Pin
from strongroom.host.release import BrokerSession, Speaking
from strongroom.keys.jwk import pack_point
from strongroom.wire.canonical import b64u, unb64u
from tests.fakes import misbehaving as does
from tests.fakes.broker import URI, VOLUME, ToldKeeper, desk
from tests.fakes.https import certificate, ok
from tests.fakes.kbs import Machine
from tests.fakes.misbehaving import Act, Misbehaving, Step, serving


@dataclass
class Outcome:
    volume: VolumeKey | None
    error: StrongroomError | None
    broker: Misbehaving


def with_keeper(keeper: ToldKeeper | None = None) -> Callable[[], Desk]:
    return lambda: desk(keeper or ToldKeeper())


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "_FIRST_PAUSE", 0.001)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TLSCertificate]:
    directory = tmp_path_factory.mktemp("tls")
    return directory, certificate(directory)


def meet(
    served: tuple[Path, TLSCertificate],
    broker: Misbehaving,
    *,
    deadline_s: float = 10.0,
    timeout_s: float = 5.0,
    pin: Pin | None = None,
) -> Outcome:
    directory, shown = served

    async def run() -> Outcome:
        async with (
            serving(directory, broker),
            BrokerSession(
                url=broker.url,
                pin=pin or Pin(spki_sha256=shown.spki_sha256),
                tee="snp",
                collect=_collect,
                deadline_s=deadline_s,
                speaking=Speaking(request_timeout_s=timeout_s),
            ) as session,
        ):
            try:
                with await session.get(URI) as secret:
                    return Outcome(VolumeKey.parse(secret.reveal()), None, broker)
            except StrongroomError as error:
                return Outcome(None, error, broker)
            finally:
                assert session.handshakes >= broker.handshakes

    return asyncio.run(run())


async def _collect(asked: Any) -> Any:
    return Machine()(asked)


def jwe(**members: Any) -> Act:
    return does.changes(lambda value: value.update(members))


def header(**members: Any) -> Act:
    def change(value: dict[str, Any]) -> None:
        found = json.loads(unb64u(value["protected"], "protected"))
        value["protected"] = b64u(json.dumps(found | members, separators=(",", ":")).encode())

    return does.changes(change)


P521 = pack_point(ec.derive_private_key(5, ec.SECP521R1()).public_key())
POINT = pack_point(ec.derive_private_key(5, ec.SECP256R1()).public_key())
OFF_CURVE = POINT | {"y": b64u(bytes(31) + b"\7")}
VERSION = "KBS Client Protocol Version Mismatch: expect =0.5.0 while the request is 0.4.0"

# Where, what, which error, which words.
AT_ONCE: dict[str, tuple[Step, Act, type[StrongroomError], str]] = {
    "another version": (
        "auth",
        does.refuses("AttestationError", VERSION),
        ProtocolError,
        "speaks protocol 0.5",
    ),
    "refused at auth": ("auth", does.refuses("AttestationError"), VerifyError, "because of this"),
    "refused at attest": ("attest", does.refuses("AttestationError"), VerifyError, "because of this"),
    "denied": ("resource", does.refuses("PolicyDeny"), PolicyError, "because of this"),
    "missing": ("resource", does.refuses("PluginInternalError"), PolicyError, "because of this"),
    "no such plugin": ("resource", does.status("404 Not Found", body=b"{}"), ProtocolError, "status 404"),
    "forbidden by a proxy": (
        "auth",
        does.status("403 Forbidden", body=b"<html>"),
        ProtocolError,
        "status 403",
    ),
    "another maker's problem": (
        "attest",
        does.status("401 Unauthorized", body=b'{"title":"Unauthorized","detail":"bad quote"}'),
        VerifyError,
        "Unauthorized: bad quote",
    ),
    "sent elsewhere": (
        "auth",
        does.status("302 Found", "Location: https://192.0.2.1/\r\n"),
        ProtocolError,
        "status 302",
    ),
    "another nonce": (
        "auth",
        does.changes(lambda value: value.update({"nonce": "A" * 43 + "="})),
        VerifyError,
        "nonce is not this session's",
    ),
    "another hash": (
        "auth",
        does.changes(lambda v: v.update({"extra-params": {"selected-hash-algorithm": "md5"}})),
        FormatError,
        "want sha384",
    ),
    "a short nonce": ("auth", does.changes(lambda v: v.update({"nonce": "x"})), FormatError, "1 characters"),
    "no cookie": ("auth", does.loses_the_cookie, ProtocolError, "no usable session cookie"),
    "a cookie it does not know": ("auth", does.gives_another_cookie, VerifyError, "no such session"),
    "html for a challenge": ("auth", does.says(ok(b"<html>")), FormatError, "not JSON"),
    "html for a token": ("attest", does.says(ok(b"<html>")), FormatError, "not JSON"),
    "html for a resource": ("resource", does.says(ok(b"<html>")), FormatError, "not JSON"),
    "a huge challenge": ("auth", does.is_huge(1), ProtocolError, "longer than 16384 bytes"),
    "a huge token": ("attest", does.is_huge(1), ProtocolError, "longer than 262144 bytes"),
    "a huge resource": ("resource", does.is_huge(1), ProtocolError, "longer than 262144 bytes"),
    "a resource without end": ("resource", does.never_ends, ProtocolError, "longer than 262144 bytes"),
    "a compressed resource": (
        "resource",
        does.status("200 OK", "Content-Encoding: gzip\r\n", b"\x1f\x8b"),
        ProtocolError,
        "compressed",
    ),
    "a jwe of another alg": ("resource", header(alg="dir"), FormatError, "alg and enc are"),
    "a jwe of another enc": ("resource", header(enc="A128GCM"), FormatError, "alg and enc are"),
    "a jwe for rsa": ("resource", header(alg="RSA-OAEP-256"), FormatError, "alg and enc are"),
    "a jwe with a critical member": ("resource", header(crit=["x"]), FormatError, "members are"),
    "an epk off the curve": ("resource", header(epk=OFF_CURVE), FormatError, "point is not on P-256"),
    "an epk of another curve": ("resource", header(epk=P521), FormatError, "got P-521, want P-256"),
    "another's epk": ("resource", header(epk=POINT), VerifyError, "does not unwrap"),
    "another key": ("resource", jwe(encrypted_key=b64u(bytes(40))), VerifyError, "does not unwrap"),
    "a short key": ("resource", jwe(encrypted_key=""), VerifyError, "does not unwrap"),
    "another tag": ("resource", jwe(tag=b64u(bytes(16))), VerifyError, "tag does not match"),
    "a short tag": ("resource", jwe(tag=b64u(bytes(12))), FormatError, "got 12 bytes, want 16"),
    "another iv": ("resource", jwe(iv=b64u(bytes(12))), VerifyError, "tag does not match"),
    "another text": ("resource", jwe(ciphertext=b64u(bytes(200))), VerifyError, "tag does not match"),
    "an unprotected header": ("resource", jwe(header={}), FormatError, "want an object of exactly"),
    "another aad": ("resource", jwe(aad=""), FormatError, "want an object of exactly"),
    "no key at all": ("resource", does.changes(dict.clear), FormatError, "want an object of exactly"),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_what_no_second_try_would_change_is_said_at_once(
    name: str, served: tuple[Path, TLSCertificate]
) -> None:
    step, fault, want, why = AT_ONCE[name]
    got = meet(served, Misbehaving(with_keeper(), step, fault))
    assert type(got.error) is want, got.error
    assert why in str(got.error)
    assert "\n" not in str(got.error) and len(str(got.error)) < 1200
    assert (got.broker.handshakes, got.broker.count(step)) == (1, 1)


@pytest.mark.parametrize("step", ["auth", "attest", "resource"])
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (does.status("500 Oops"), "status 500"),
        (does.status("502 Bad Gateway", body=b"<html>"), "status 502"),
        (does.status("503 Busy", "Retry-After: 0\r\n"), "status 503"),
        (does.status("429 Slow", "Retry-After: Fri, 20 Nov 2026 12:00:00 GMT\r\n"), "status 429"),
        (does.refuses("StorageBackendInitialization"), "trouble of its own"),
        (does.hangs_up, "connection|HTTP"),
        (does.cuts, "not whole HTTP"),
        (does.says(b"nonsense\r\n\r\n"), "not whole HTTP"),
    ],
    ids=["500", "502", "503", "429", "storage", "hangs up", "truncated", "no http"],
)
def test_trouble_on_the_way_is_tried_again(
    step: Step, fault: Act, why: str, served: tuple[Path, TLSCertificate]
) -> None:
    got = meet(served, Misbehaving(with_keeper(), step, fault, times=2))
    assert got.volume == VOLUME
    # A token that is good stays good: asking again for a resource takes no new handshake.
    assert got.broker.handshakes == (1 if step == "resource" else 3)
    assert got.broker.count(step) == 3
    gone = meet(served, Misbehaving(with_keeper(), step, fault), deadline_s=0.3)
    assert type(gone.error) is TransportError
    assert "within 0.3 s, last" in str(gone.error)
    assert gone.broker.count(step) > 1


@pytest.mark.parametrize("step", ["auth", "attest", "resource"])
@pytest.mark.parametrize("fault", [does.drips, does.says_nothing], ids=["drip", "silence"])
def test_a_slow_answer_is_cut_by_the_time_for_a_request(
    step: Step, fault: Act, served: tuple[Path, TLSCertificate]
) -> None:
    got = meet(served, Misbehaving(with_keeper(), step, fault, times=1), timeout_s=0.4)
    assert got.volume == VOLUME
    assert got.broker.count(step) == 2


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ("resource", does.refuses("TokenNotFound")),
        ("resource", does.refuses("TokenVerifierError")),
        ("attest", does.starts_anew),
    ],
    ids=["session lost", "token expired", "restart between attest and get"],
)
def test_a_broker_that_has_forgotten_us_gets_one_new_handshake(
    step: Step, fault: Act, served: tuple[Path, TLSCertificate]
) -> None:
    got = meet(served, Misbehaving(with_keeper(), step, fault, times=1))
    assert got.volume == VOLUME
    assert got.broker.handshakes == 2
    again = meet(served, Misbehaving(with_keeper(), step, fault))
    assert type(again.error) is SessionLostError
    assert isinstance(again.error, ProtocolError)
    assert again.broker.handshakes == 2


def test_a_restart_between_auth_and_attest_is_a_refusal(served: tuple[Path, TLSCertificate]) -> None:
    got = meet(served, Misbehaving(with_keeper(), "auth", does.starts_anew, times=1))
    assert type(got.error) is VerifyError and "no such session" in str(got.error)
    assert got.broker.handshakes == 1


@pytest.mark.parametrize(
    ("keeper", "want"),
    [
        (ToldKeeper(reasons=("debug is on, want off",)), PolicyError),
        (ToldKeeper(forged="snp report: forged"), VerifyError),
        (ToldKeeper(resources={}), PolicyError),
    ],
    ids=["denied", "forged", "missing"],
)
def test_an_honest_no_costs_one_handshake(
    keeper: ToldKeeper, want: type[StrongroomError], served: tuple[Path, TLSCertificate]
) -> None:
    got = meet(served, Misbehaving(with_keeper(keeper)))
    assert type(got.error) is want
    assert got.broker.handshakes == 1


def test_another_authority_or_key_hears_nothing(served: tuple[Path, TLSCertificate], tmp_path: Path) -> None:
    other = certificate(tmp_path / "other")
    for pin in (Pin(spki_sha256=other.spki_sha256), Pin(ca_pem=other.pem)):
        got = meet(served, Misbehaving(with_keeper()), pin=pin)
        assert type(got.error) is VerifyError and "pinned" in str(got.error)
        assert got.broker.requests == []


def test_nobody_there(served: tuple[Path, TLSCertificate]) -> None:
    async def ask() -> None:
        async with BrokerSession(
            url="https://127.0.0.1:1",
            pin=Pin(spki_sha256=served[1].spki_sha256),
            tee="snp",
            collect=_collect,
            deadline_s=0.3,
        ) as session:
            await session.get(URI)

    with pytest.raises(TransportError, match=r"https://127.0.0.1:1: no answer for .* connection refused"):
        asyncio.run(ask())
