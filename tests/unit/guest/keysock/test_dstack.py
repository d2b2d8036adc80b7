"""Mirrors guest/keysock/dstack.py and what is around it: every method of v0 and v1, on every kind of machine."""

import base64
import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256, sha384
from time import time
from typing import Any

import pytest
from cryptography import x509

from guest.keysock.plan import app_keys
from guest.keysock.rights import Rights
from strongroom.errors import FormatError
from strongroom.evidence.tdx import TDXQuote
from strongroom.keys.dstack import AppKeys
from strongroom.wire.canonical import b64u
from tests.fakes.keysock import ROOT, USERDATA, Keysock, UnixHTTP, call, served

# a test of its own: the vectors' root in a file that an application brings along
APP_ROOT = "1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1a2b"
Each = tuple[str, Keysock]


def ask(keysock: Keysock, target: str, door: str = "dstack", **fields: Any) -> Any:
    status, answer = call(keysock.path(door), target, fields)
    assert status == 200, answer
    return answer


def refused(keysock: Keysock, target: str, status: int, door: str = "dstack", **fields: Any) -> str:
    found, answer = call(keysock.path(door), target, fields)
    assert found == status, answer
    assert set(answer) == {"error"}
    return str(answer["error"])


@pytest.mark.parametrize("prefix", ["/", "/v0/", "/v1/", "/prpc/", "/prpc/Worker.", "/prpc/v1/Worker."])
def test_the_version_is_one_that_clients_know(keysock: Keysock, prefix: str) -> None:
    assert ask(keysock, f"{prefix}Version") == {"version": "0.5.11", "rev": "strongroom"}


def test_info_is_complete_on_every_machine(each: Each) -> None:
    name, keysock = each
    info = ask(keysock, "/Info")
    tcb = json.loads(info["tcb_info"])
    assert info["compose_hash"] == sha256(USERDATA.encode()).hexdigest() == tcb["compose_hash"]
    assert info["app_id"] == info["compose_hash"][:40]
    assert tcb["app_compose"] == USERDATA
    registers = [tcb["mrtd"], *(tcb[f"rtmr{n}"] for n in range(4))]
    assert all(len(register) == 96 for register in registers)
    if name != "tdx":
        assert registers[1:4] == ["0" * 96] * 3
    assert tcb["rtmr3"] == keysock.log.head.hex()
    for n in range(4):
        digests = [bytes.fromhex(entry["digest"]) for entry in tcb["event_log"] if entry["imr"] == n]
        register = bytes(48)
        for digest in digests:
            register = sha384(register + digest).digest()
        assert register.hex() == tcb[f"rtmr{n}"]
    assert len(info["device_id"]) == len(info["mr_aggregated"]) == 64 and len(info["instance_id"]) == 40
    assert json.loads(info["key_provider_info"])["name"] == "none"
    assert tcb["strongroom"]["keys"]["root"] == "ephemeral"
    assert tcb["strongroom"]["keys"]["app_root_public"] == app_keys(ROOT).app_root_public.hex()
    x509.load_pem_x509_certificate(info["app_cert"].encode())
    v1 = ask(keysock, "/v1/Info")
    assert v1["app_compose"] == USERDATA and "tcb_info" not in v1


def test_keys_are_those_of_the_root(keysock: Keysock) -> None:
    keys = AppKeys.from_seed(ROOT)
    for path in ("", "test", "my/key/path", "ü"):
        answer = ask(keysock, "/GetKey", path=path, purpose="signing", algorithm="secp256k1")
        assert answer["key"] == keys.key(path).hex()
        assert [len(link) for link in answer["signature_chain"]] == [130, 0]
        assert ask(keysock, "/v0/GetKey", path=path, algorithm="ed25519")["key"] == answer["key"]
    for algorithm in ("secp256k1", "ed25519"):
        answer = ask(keysock, "/v1/GetKey", domain="a/b/c", algorithm=algorithm)
        assert answer["key"] == keys.key_v1("a/b/c", algorithm).hex()
    assert "unsupported" in refused(keysock, "/GetKey", 400, path="x", algorithm="rsa")
    assert "unsupported" in refused(keysock, "/v1/GetKey", 400, domain="x", algorithm="k256")
    assert "unsupported" in refused(keysock, "/v1/GetKey", 400, domain="x")


@pytest.mark.parametrize("purpose", ["a:b", "a\nb", "\x00"])
def test_a_purpose_cannot_pass_for_more_than_one(keysock: Keysock, purpose: str) -> None:
    assert "purpose" in refused(keysock, "/GetKey", 400, path="x", purpose=purpose)


def test_an_application_brings_its_keys_along(socket_dir: Any) -> None:
    """The published vectors, through the socket."""
    pem = AppKeys.from_seed(ROOT).to_appkeys_json()
    moved = json.dumps(json.loads(pem) | {"k256_key": APP_ROOT}).encode()
    with served(socket_dir, root=moved) as keysock:
        answer = ask(keysock, "/GetKey", path="test", purpose="signing")
        assert answer["key"] == "52786aa123b0971e283af97f32e25767483d099d66e6c40afeb3a49046b5379e"
        assert answer["signature_chain"][0] == (
            "c8a3dcf06c4e95bd78a5d7a1c8fcff171fc5848cfae804c6fc11bda4dc5d4062"
            "379995390843827444992c4c0e4bac70f0f878e01b9fc8b98cd7126fe5a3876b01"
        )
        v1 = ask(keysock, "/v1/GetKey", domain="storage-encryption", algorithm="ed25519")
        assert v1["key"] == "3c4c3ece12fa99ccb93fc0090877f80e70545fdd971e2ac93d3398c4684538d3"
        assert v1["public_key"] == "2380c4a33a60b60613fa43866421e5b96eb8dcde211317200fd0d41e7e491288"


def test_neither_form_of_a_root_is_an_error() -> None:
    for root in (b"", bytes(31), b"{}", bytes(33)):
        with pytest.raises(FormatError):
            app_keys(root)


def test_signatures_come_and_go(keysock: Keysock) -> None:
    for algorithm, data in (
        ("ed25519", b"x"),
        ("secp256k1", b"x"),
        ("k256", b""),
        ("secp256k1_prehashed", bytes(32)),
    ):
        made = ask(keysock, "/Sign", algorithm=algorithm, data=data.hex())
        base = "ed25519" if algorithm == "ed25519" else "secp256k1"
        chain = ask(keysock, "/GetKey", path="vms", purpose="signing", algorithm=base)["signature_chain"]
        assert made["signature_chain"] == [made["signature"], *chain]
        question = {
            "algorithm": algorithm,
            "data": data.hex(),
            **{k: made[k] for k in ("signature", "public_key")},
        }
        assert ask(keysock, "/Verify", **question) == {"valid": True}
        assert ask(keysock, "/Verify", **question | {"data": sha256(b"y").hexdigest()}) == {"valid": False}
        refused(keysock, "/Verify", 400, **question | {"signature": "00"})
    assert "32-byte digest" in refused(keysock, "/Sign", 400, algorithm="secp256k1_prehashed", data="00")
    for algorithm in ("", "rsa"):
        refused(keysock, "/Sign", 400, algorithm=algorithm, data="00")


def certificates(answer: Any) -> list[x509.Certificate]:
    return [x509.load_pem_x509_certificate(pem.encode()) for pem in answer["certificate_chain"]]


def test_certificates_are_new_each_time_and_lead_to_the_authority(keysock: Keysock) -> None:
    first, second = (
        ask(keysock, "/GetTlsKey", subject="a", alt_names=["a.example", "10.0.0.1"]) for _ in "12"
    )
    assert first["key"] != second["key"] and first["key"].startswith("-----BEGIN PRIVATE KEY-----\n")
    body = "".join(first["key"].splitlines()[1:-1])
    assert len(base64.b64decode(body)) == 138 and first["key"].endswith("\n")
    leaf, authority = certificates(first)
    leaf.verify_directly_issued_by(authority)
    assert authority == x509.load_pem_x509_certificate(ask(keysock, "/Info")["app_cert"].encode())
    life = leaf.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=6) < life < timedelta(days=8)


def test_the_window_of_a_certificate_is_the_callers_within_a_year(keysock: Keysock) -> None:
    now = int(datetime.now(UTC).timestamp())
    leaf = certificates(ask(keysock, "/v1/IssueCert", not_before=now, not_after=now + 3600))[0]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=1)
    assert "earlier" in refused(keysock, "/GetTlsKey", 400, not_before=now, not_after=now)
    assert "397" in refused(keysock, "/GetTlsKey", 400, not_after=now + 400 * 86400)
    refused(keysock, "/GetTlsKey", 400, not_after=1 << 62)
    for name in ("\u00fc", "", "a b", "a..b", "x" * 64, "x" * 1025):
        refused(keysock, "/GetTlsKey", 400, alt_names=["a", name])
    ask(keysock, "/GetTlsKey", alt_names=["*.a.example", "_a.b-c", "::1"])
    for late in (253402300799, 253402300798, int(time()) + 398 * 86400):
        refused(keysock, "/GetTlsKey", 400, not_before=late)
    refused(keysock, "/GetTlsKey", 400, alt_names=["x"] * 65)
    ask(keysock, "/GetTlsKey", not_before=None, not_after=None)


def test_gpus_without_any(keysock: Keysock) -> None:
    assert ask(keysock, "/v1/AttestGpu", nonce="11" * 32) == {"bundles": []}
    assert ask(keysock, "/GpuInfo") == {"attestation": ""}
    assert "want 32" in refused(keysock, "/v1/AttestGpu", 400, nonce="11")


def test_the_worker_names_the_signing_key(keysock: Keysock) -> None:
    answer = ask(keysock, "/prpc/Worker.GetAttestationForAppKey", algorithm="ed25519")
    public = bytes.fromhex(ask(keysock, "/Sign", algorithm="ed25519", data="00")["public_key"])
    assert bytes.fromhex(answer["report_data"]).rstrip(b"\0") == b"dip1::ed25519-pk:" + b64u(public).encode()
    assert ask(keysock, "/prpc/v1/Worker.Health")["healthy"] is True


def test_events_are_the_systems_while_strict(keysock: Keysock) -> None:
    before = keysock.log
    assert "system's alone" in refused(keysock, "/EmitEvent", 400, event="x", payload="00")
    assert keysock.log == before


def test_events_of_programs_come_under_one_name(socket_dir: Any) -> None:
    with served(socket_dir, "tdx", strict=False) as keysock:
        assert ask(keysock, "/EmitEvent", event="model", payload="0102") is None
        event = keysock.log.events[-1]
        assert event.name == "application"
        assert json.loads(event.payload) == {"caller": "uid-0", "name": "model", "payload": "0102"}
        quote = ask(keysock, "/GetQuote", report_data="00")
        assert TDXQuote.parse(bytes.fromhex(quote["quote"])).body.rtmr3 == keysock.log.head
        for fields in (
            {"event": ""},
            {"event": "a\nb"},
            {"event": "x" * 129},
            {"event": "x", "payload": "00" * 1025},
        ):
            refused(keysock, "/EmitEvent", 400, **fields)
        count = sum(event.name == "application" for event in keysock.log.events)
        for _ in range(64 - count):
            ask(keysock, "/EmitEvent", event="x")
        assert "64" in refused(keysock, "/EmitEvent", 403, event="x")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/getkey", 404),
        ("/v1/Sign", 404),
        ("/v2/GetKey", 404),
        ("/", 404),
        ("/prpc/Other.Info", 404),
        ("//Info", 404),
    ],
)
def test_what_is_not_there_is_said_so(keysock: Keysock, target: str, status: int) -> None:
    error = refused(keysock, target, status)
    assert error.startswith("Service not found: ") == (target in ("/getkey", "/v1/Sign", "/"))


def test_a_request_may_come_as_a_query(keysock: Keysock) -> None:
    status, answer = call(keysock.path("dstack"), "/GetKey?path=test&purpose=signing", method="GET")
    assert status == 200 and answer == ask(keysock, "/GetKey", path="test", purpose="signing")
    status, answer = call(
        keysock.path("dstack"), "/GetTlsKey?alt_names=a.b&alt_names=c.d&usage_client_auth=true", method="GET"
    )
    assert status == 200 and answer["certificate_chain"]
    assert call(keysock.path("dstack"), "/Info", method="DELETE")[0] == 405


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"null", b'{"path":null}', b'{"path":1}', b'{"path":"a","path":"b"}', b'{"path":"\\ud800"}', b"\xff",
     b'{"path":' + b"[" * 5000, b'{"path":"' + b"x" * 2000 + b'"}'],
)  # fmt: skip
def test_bad_json_gets_one_line(keysock: Keysock, body: bytes) -> None:
    with closing(UnixHTTP(keysock.path("dstack"))) as client:
        client.request("POST", "/GetKey", body, {"Content-Type": "application/json"})
        answer = client.getresponse()
        raw = answer.read()
    assert answer.status == 400
    assert set(json.loads(raw)) == {"error"} and b"\\n" not in raw


@pytest.mark.guarantee("G20")
def test_without_a_section_in_userdata_there_is_nothing_to_have(socket_dir: Any) -> None:
    with served(socket_dir, origin=None) as keysock:
        ask(keysock, "/Version")
        info = ask(keysock, "/Info")
        assert info["app_cert"] == info["instance_id"] == ""
        assert json.loads(info["tcb_info"])["strongroom"]["keys"] is None
        for door in ("dstack", "quote"):
            for target in ("/GetKey", "/v1/GetKey", "/GetTlsKey", "/GetQuote", "/Attest", "/Sign", "/Verify"):
                assert "no section strongroom.keys" in refused(keysock, target, 403, door)


@pytest.mark.guarantee("G20")
def test_the_quote_socket_gives_evidence_to_everybody_and_keys_to_nobody(socket_dir: Any) -> None:
    with served(socket_dir, rights=Rights()) as keysock:
        assert "no rule may call GetQuote" in refused(keysock, "/GetQuote", 403, report_data="00")
        assert ask(keysock, "/GetQuote", "quote", report_data="00")["quote"]
        assert ask(keysock, "/Attest", "quote", report_data="00")["attestation"]
    with served(socket_dir) as keysock:  # to whom everything is allowed elsewhere
        for target in ("/GetKey", "/v1/GetKey", "/GetTlsKey", "/Sign", "/EmitEvent"):
            assert "this socket is for" in refused(keysock, target, 403, "quote")
