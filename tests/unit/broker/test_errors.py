"""Mirrors broker/errors.py."""

import pytest

from strongroom.broker.errors import NOT_FOUND, TYPE_PREFIX, Kind, Refusal, SessionLostError, to_error
from strongroom.errors import PolicyError, ProtocolError, StrongroomError, TransportError, VerifyError


def error(status: int, body: bytes) -> StrongroomError:
    return to_error(status, body, asked="GET /x", version="0.4.0")


@pytest.mark.parametrize(
    ("kind", "want"),
    [
        ("AttestationError", VerifyError),
        ("PolicyDeny", PolicyError),
        ("PluginInternalError", PolicyError),
        ("AdminAuthAccess", PolicyError),
        ("TokenNotFound", SessionLostError),
        ("TokenVerifierError", SessionLostError),
        ("InvalidRequestPath", ProtocolError),
        ("PluginNotFound", ProtocolError),
        ("JweError", ProtocolError),
        ("PolicyEngineError", TransportError),
        ("StorageBackendInitialization", TransportError),
        ("SomethingOfTheFuture", TransportError),
    ],
)
def test_the_type_decides(kind: str, want: type[StrongroomError]) -> None:
    got = error(401, Refusal(kind, "because of this").pack())
    assert type(got) is want
    assert kind in str(got) and "because of this" in str(got)


def test_every_kind_has_an_error() -> None:
    for kind in Kind:
        assert str(error(404 if kind in NOT_FOUND else 401, Refusal(kind, "x").pack())).startswith("GET /x: ")


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_trouble_may_pass(status: int) -> None:
    assert type(error(status, b"<html>")) is TransportError
    assert "too many" in str(error(status, Refusal("HTTPFailed", "too many").pack()))


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"type":"x","detail":"y"}', b'{"type":1,"detail":""}']
)
def test_a_refusal_without_a_reason(body: bytes) -> None:
    assert type(error(403, body)) is ProtocolError
    assert "status 403 without a reason" in str(error(403, body))


@pytest.mark.parametrize(
    ("status", "asked", "want"),
    [
        (400, "POST /kbs/v0/attest", ProtocolError),
        (401, "POST /kbs/v0/attest", VerifyError),
        (401, "GET /kbs/v0/resource/a/b/c", PolicyError),
        (403, "GET /kbs/v0/resource/a/b/c", PolicyError),
        (404, "GET /kbs/v0/resource/a/b/c", PolicyError),
        (500, "GET /kbs/v0/resource/a/b/c", TransportError),
    ],
)
def test_a_problem_document_is_read_by_its_status(
    status: int, asked: str, want: type[StrongroomError]
) -> None:
    problem = b'{"type":"about:blank","title":"No","status":%d,"detail":"because of this"}' % status
    got = to_error(status, problem, asked=asked, version="0.4.0")
    assert type(got) is want
    assert want is TransportError or str(got) == f"{asked}: status {status}: No: because of this"


def test_another_version_names_both() -> None:
    said = "KBS Client Protocol Version Mismatch: expect =0.5.0 while the request is 0.4.0"
    detail = f"RCAR handshake Auth failed: {said}"
    got = error(401, Refusal("AttestationError", detail).pack())
    assert type(got) is ProtocolError
    assert str(got) == "GET /x: broker speaks protocol 0.5.0, we speak 0.4.0"


def test_a_refusal_round_trips() -> None:
    refusal = Refusal("PolicyDeny", "no")
    assert Refusal.parse(refusal.pack()) == refusal
    assert refusal.pack().startswith(b'{"detail":"no","type":"' + TYPE_PREFIX.encode())


def test_a_peer_s_words_are_one_bounded_line() -> None:
    said = str(error(401, Refusal("PolicyDeny", "a\n\x1b[31mb" + "x" * 10_000).pack()))
    assert said.isprintable()
    assert len(said) < 700
