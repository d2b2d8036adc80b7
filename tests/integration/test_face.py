"""What a stranger sees of the real door: its page in a browser that knows only the attested key, its documents."""

import json
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.evidence.snp import SNPReport
from strongroom.measure.tree import words
from strongroom.receipts import legacy
from strongroom.wire.canonical import pack_json
from tests.fakes.chromium import dom, picture
from tests.fakes.foreign import House, HouseAgent
from tests.fakes.served import SECRET, Served, opened, turning
from tests.fakes.silicon import MEASUREMENT

NONCE = bytes(range(1, 33))
TITLE = "The house of <Ann>"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("face")
    behind = Served(directory, agent=HouseAgent(House(directory)))
    (directory / "credentials").mkdir()
    settings = behind.plan({"ann": "token-of-ann"}) | {"page": {"title": TITLE}}
    (directory / "credentials" / "door").write_bytes(pack_json(settings))
    (directory / "credentials" / "door-secret").write_bytes(SECRET)
    (directory / "runtime").mkdir()
    with ExitStack() as stack:
        stack.enter_context(turning(behind.loop))
        behind.do(behind.engine.start(directory / "engine"))
        stack.callback(lambda: behind.do(behind.engine.die()))
        behind.do(behind.agent.start(directory / "evidence"))
        stack.callback(lambda: behind.do(behind.agent.stop()))
        stack.enter_context(opened(behind))
        yield behind


def ask(door: Served, target: str) -> tuple[int, dict[str, str], bytes, bytes]:
    """Status, headers, body, and the certificate of who answered."""
    context = ssl._create_unverified_context()  # what is believed here is the evidence
    connection = HTTPSConnection("127.0.0.1", door.port, context=context, timeout=30)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        certificate = connection.sock.getpeercert(binary_form=True) or b""
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read(), certificate
    finally:
        connection.close()


def document(door: Served, target: str) -> dict[str, Any]:
    status, headers, body, _ = ask(door, target)
    assert (status, headers["content-type"]) == (200, "application/json")
    value: dict[str, Any] = json.loads(body)
    return value


def pinned(door: Served) -> str:
    """The flag by which Chromium takes this key, and no other, for genuine."""
    spki = x509.load_der_x509_certificate(ask(door, "/healthz")[3]).public_key()
    digest = sha256(spki.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return f"--ignore-certificate-errors-spki-list={b64encode(digest).decode()}"


@pytest.mark.slow
def test_a_browser_shows_the_page_of_the_attested_door(door: Served, tmp_path: Path) -> None:
    text, told = dom(tmp_path, f"{door.url}/", pinned(door))
    assert words(MEASUREMENT) in text
    assert "The house of &lt;Ann&gt;" in text
    assert "Insecure: this is simulated silicon." in text
    assert "started the engine and saw it answer" in text
    assert "Content Security Policy" not in told
    assert picture(tmp_path, f"{door.url}/", pinned(door)).startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_browser_that_knows_another_key_shows_none(door: Served, tmp_path: Path) -> None:
    other = b64encode(sha256(b"another").digest()).decode()
    text, _ = dom(tmp_path, f"{door.url}/", f"--ignore-certificate-errors-spki-list={other}")
    assert words(MEASUREMENT) not in text


def test_the_page_comes_with_its_policy(door: Served) -> None:
    status, headers, body, _ = ask(door, "/")
    assert status == 200 and headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
    assert headers["x-aci-version"] == "aci/1"
    assert b"</html>" in body


def test_the_documents_agree(door: Served) -> None:
    known = document(door, "/.well-known/strongroom")
    report = document(door, f"/v1/attestation/report?nonce={NONCE.hex()}&signing_algo=ed25519&version=2")
    attested = document(door, f"/v1/aci/attestation?nonce={NONCE.hex()}")
    assert known["state"] == "open"
    assert known["keys"]["signing_addresses"]["ed25519"] == report["signing_address"]
    assert known["keys"]["tls_spki_sha256"] == report["tls_cert_fingerprint"]
    assert known["keys"]["aci_keyset_digest"] == attested["workload_keyset_digest"]
    fingerprint = bytes.fromhex(report["tls_cert_fingerprint"])
    wanted = legacy.report_data(report["signing_address"], nonce=NONCE, tls_spki_sha256=fingerprint)
    assert SNPReport.parse(bytes.fromhex(report["snp_report"])).report_data == wanted
    assert known["machine"]["measurement"] == MEASUREMENT.hex()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/?x=1", 400),
        ("/.well-known/strongroom?nonce=00", 400),
        ("/v1/attestation/report?nonce=00", 400),
        ("/v1/attestation/report?signing_algo=rsa", 400),
        (f"/v1/attestation/report?nonce={bytes(32).hex()}", 400),
        (f"/v1/aci/attestation?nonce={'AB' * 32}", 400),
        ("/index.html", 404),
        ("/favicon.ico", 404),
        ("/v1/usage", 401),
        (f"/v1/receipts/{'ab' * 16}", 401),
    ],
)
def test_what_a_stranger_does_not_get(door: Served, target: str, status: int) -> None:
    found, headers, body, _ = ask(door, target)
    assert found == status
    assert headers["content-type"] == "application/json" and b'"error"' in body
