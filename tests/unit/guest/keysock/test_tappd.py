"""Mirrors guest/keysock/tappd.py: the interface of older images, and the one that released clients make of it."""

from hashlib import sha256, sha384
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from guest.keysock.plan import app_keys
from guest.keysock.rights import Method, Rights, Rule
from strongroom.keys.tappd import report_data
from tests.fakes.keysock import ROOT, Keysock, served
from tests.unit.guest.keysock.test_dstack import ask, refused

DERIVE = "/prpc/Tappd.DeriveKey"


def scalar(answer: Any) -> int:
    key = load_pem_private_key(answer["key"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_numbers().private_value


def test_a_path_decides_the_key_and_the_key_is_certified(keysock: Keysock) -> None:
    first, second = (ask(keysock, DERIVE, "tappd", path="/", subject="test") for _ in "12")
    wanted = app_keys(ROOT).tappd_key("/").private_numbers().private_value
    assert scalar(first) == scalar(second) == wanted
    leaf = x509.load_pem_x509_certificate(first["certificate_chain"][0].encode())
    assert leaf.subject.rfc4514_string() == "CN=test"
    assert scalar(ask(keysock, "/prpc/DeriveKey", "tappd", path="/", random_seed=True)) != wanted


def test_the_same_bytes_on_the_other_curve(keysock: Keysock) -> None:
    answer = ask(keysock, "/prpc/Tappd.DeriveK256Key", "tappd", path="test", purpose="signing")
    key = ask(keysock, "/GetKey", path="test", purpose="signing")
    assert (answer["k256_key"], answer["k256_signature_chain"]) == (key["key"], key["signature_chain"])


@pytest.mark.parametrize("target", ["/prpc/Tappd.GetKey", "/prpc/GetKey", "/GetKey"])
def test_released_clients_find_the_methods_of_v0_here(keysock: Keysock, target: str) -> None:
    assert ask(keysock, target, "tappd", path="x") == ask(keysock, "/GetKey", path="x")


@pytest.mark.parametrize("name", ["", "sha256", "sha384", "sha512", "sha3-256", "keccak256", "keccak512"])
def test_what_is_quoted_is_the_hash_of_prefix_and_data(keysock: Keysock, name: str) -> None:
    answer = ask(
        keysock, "/prpc/Tappd.TdxQuote", "tappd", report_data="0102", hash_algorithm=name, prefix="tag"
    )
    wanted = report_data(b"\1\2", hash=name, prefix="tag")
    assert bytes.fromhex(answer["quote"])[568:632] == wanted
    assert (answer["hash_algorithm"], answer["prefix"]) == (name or "sha512", "tag")
    assert ask(keysock, "/prpc/Tappd.TdxQuote", "tappd", report_data="00")["prefix"] == "app-data"


def test_raw_data_are_taken_as_they_are(keysock: Keysock) -> None:
    answer = ask(keysock, "/prpc/Tappd.TdxQuote", "tappd", report_data="0102", hash_algorithm="raw")
    assert bytes.fromhex(answer["quote"])[568:632] == b"\1\2" + bytes(62)
    exact = bytes(range(64)).hex()
    assert ask(keysock, "/prpc/Tappd.RawQuote", "tappd", report_data=exact)["hash_algorithm"] == "raw"
    assert "exactly 64" in refused(keysock, "/prpc/Tappd.RawQuote", 400, "tappd", report_data="00")
    assert "hash" in refused(
        keysock, "/prpc/Tappd.TdxQuote", 400, "tappd", report_data="00", hash_algorithm="md5"
    )


def test_our_own_slow_hash_takes_little(keysock: Keysock) -> None:
    data = "00" * 5000
    error = refused(
        keysock, "/prpc/Tappd.TdxQuote", 400, "tappd", report_data=data, hash_algorithm="keccak256"
    )
    assert "want at most 4096" in error


@pytest.mark.guarantee("G20")
def test_rights_hold_under_the_old_names(socket_dir: Any) -> None:
    with served(socket_dir, rights=Rights()) as keysock:
        for method in ("DeriveKey", "DeriveK256Key", "GetKey"):
            ask(keysock, f"/prpc/Tappd.{method}", "tappd", path="uid-0/x")
            assert "no rule has path 'x'" in refused(keysock, f"/prpc/Tappd.{method}", 403, "tappd", path="x")
        assert "GetQuote" in refused(keysock, "/prpc/Tappd.TdxQuote", 403, "tappd", report_data="00")


@pytest.mark.guarantee("G20")
def test_a_certificate_that_says_more_than_its_path_takes_the_right_to_certificates(socket_dir: Any) -> None:
    more: list[dict[str, Any]] = [
        {"subject": "db.example"},
        {"alt_names": ["db.example"]},
        {"random_seed": True},
        {"usage_ra_tls": True},
        {"usage_client_auth": True},
        {"with_app_info": True},
    ]
    path = "uid-0/x"
    with served(socket_dir, rights=Rights()) as keysock:
        ask(keysock, DERIVE, "tappd", path=path, subject=path)
        for fields in more:
            assert "may call GetTlsKey" in refused(keysock, DERIVE, 403, "tappd", path=path, **fields)
    methods = frozenset({Method.GET_KEY, Method.GET_TLS_KEY})
    with served(socket_dir, rights=Rights(uids={0: Rule(methods=methods)})) as keysock:
        for fields in more:
            if "usage_ra_tls" not in fields:
                ask(keysock, DERIVE, "tappd", path=path, **fields)
        assert "may call Attest" in refused(keysock, DERIVE, 403, "tappd", path=path, usage_ra_tls=True)
        assert "may call Attest" in refused(keysock, "/GetTlsKey", 403, usage_ra_tls=True)
        assert "may call Attest" in refused(keysock, "/v1/certificates", 403, "agent", evidence=True)
    with served(socket_dir, rights=Rights(uids={0: Rule(methods=methods | {Method.GET_QUOTE})})) as keysock:
        ask(keysock, DERIVE, "tappd", path=path, usage_ra_tls=True)


@pytest.mark.guarantee("G8")
def test_a_hash_under_a_foreign_prefix_takes_raw_quote_where_it_could_pass_for_a_keys(
    socket_dir: Any,
) -> None:
    quoting = Rights(uids={0: Rule(methods=frozenset({Method.GET_QUOTE}))})
    with served(socket_dir, rights=quoting) as keysock:
        fields = {"report_data": "00", "prefix": "ratls-cert"}
        assert "raw_quote" in refused(keysock, "/prpc/Tappd.TdxQuote", 403, "tappd", **fields)
        answer = ask(keysock, "/prpc/Tappd.TdxQuote", "tappd", **fields, hash_algorithm="sha256")
        assert bytes.fromhex(answer["quote"])[568:600] == sha256(b"ratls-cert:\0").digest()
        broker = {
            "report_data": "00",
            "hash_algorithm": "sha384",
        }  # of the key broker's shape under any prefix
        assert "raw_quote" in refused(keysock, "/prpc/Tappd.TdxQuote", 403, "tappd", **broker)
        assert sha384(b"app-data:\0").digest_size == 48
