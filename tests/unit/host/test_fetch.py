"""Mirrors host/fetch.py, against a real TLS server on loopback."""

import asyncio
import gc
import socket
import ssl
from pathlib import Path

import pytest

from strongroom.cli.broker_certificate import CERTIFICATE, TLSCertificate
from strongroom.errors import ConfigError, ProtocolError, StrongroomError, TransportError, VerifyError
from strongroom.host.fetch import Fetcher, Pin, Response, checked_url
from tests.fakes.https import Heard, Respond, certificate, listening, ok


@pytest.fixture
def served(tmp_path: Path) -> TLSCertificate:
    return certificate(tmp_path)


async def post(fetcher: Fetcher, max_bytes: int, timeout_s: float) -> Response:
    cookies = {"session": "c0ffee"}
    return await fetcher.request(
        "POST", "/a/b", body=b'{"x":1}', cookies=cookies, max_bytes=max_bytes, timeout_s=timeout_s
    )


def fetch(
    directory: Path,
    pin: Pin,
    respond: Respond,
    *,
    max_bytes: int = 1000,
    timeout_s: float = 5.0,
    times: int = 1,
) -> tuple[Response, Heard]:
    async def run() -> tuple[Response, Heard]:
        async with listening(directory, respond) as heard:
            seen.append(heard)
            async with Fetcher(heard.url, pin) as fetcher:
                for _ in range(times - 1):
                    await post(fetcher, max_bytes, timeout_s)
                return await post(fetcher, max_bytes, timeout_s), heard

    seen.clear()
    return asyncio.run(run())


seen: list[Heard] = []  # what the latest server heard, also when the request failed


def test_a_pinned_key_answers(served: TLSCertificate, tmp_path: Path) -> None:
    pin = Pin(spki_sha256=served.spki_sha256)
    response, heard = fetch(
        tmp_path, pin, lambda _: ok(b"hi", headers="Set-Cookie: session=beef; Path=/\r\n")
    )
    assert (response.status, response.body, response.cookies) == (200, b"hi", {"session": "beef"})
    assert response.peer_spki_sha256 == served.spki_sha256
    head, _, body = heard.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a/b HTTP/1.1\r\n")
    assert b"Cookie: session=c0ffee" in head and b"Content-Type: application/json" in head
    assert b"User-Agent: strongroom\r\n" in head and body == b'{"x":1}'


def test_a_self_signed_certificate_is_an_authority_for_itself(served: TLSCertificate, tmp_path: Path) -> None:
    response, _ = fetch(tmp_path, Pin(ca_pem=served.pem), lambda _: ok(b"hi"))
    assert response.peer_spki_sha256 == served.spki_sha256


def test_one_connection_carries_several_requests(served: TLSCertificate, tmp_path: Path) -> None:
    _, heard = fetch(tmp_path, Pin(spki_sha256=served.spki_sha256), lambda _: ok(b"hi"), times=3)
    assert (heard.connections, len(heard.requests)) == (1, 3)


def test_a_wrong_key_gets_no_byte(served: TLSCertificate, tmp_path: Path) -> None:
    with pytest.raises(
        VerifyError, match=f"key of the peer is {served.spki_sha256.hex()}, want the pinned one"
    ):
        fetch(tmp_path, Pin(spki_sha256=bytes(32)), lambda _: ok(b"hi"))
    assert seen[0].connections <= 1 and seen[0].requests == []


def test_no_socket_is_left_when_a_peer_lingers(served: TLSCertificate, tmp_path: Path) -> None:
    """A socket that outlives its fetcher is a ResourceWarning, and so an error here."""
    for pin, error in ((bytes(32), VerifyError), (served.spki_sha256, TransportError)):
        with pytest.raises(error):
            fetch(tmp_path, Pin(spki_sha256=pin), lambda _: None, timeout_s=0.1)
    gc.collect()


def test_a_certificate_of_no_known_version_gets_no_byte(served: TLSCertificate, tmp_path: Path) -> None:
    der = ssl.PEM_cert_to_DER_cert(served.pem).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09", 1)
    (tmp_path / CERTIFICATE).write_text(ssl.DER_cert_to_PEM_cert(der))
    with pytest.raises(VerifyError, match="holds no key we can read"):
        fetch(tmp_path, Pin(spki_sha256=served.spki_sha256), lambda _: ok(b"hi"))
    assert seen[0].requests == []


def test_a_wrong_authority_gets_no_byte(served: TLSCertificate, tmp_path: Path) -> None:
    other = certificate(tmp_path / "other")
    with pytest.raises(
        VerifyError, match="certificate is not under the pinned authority: self-signed certificate"
    ):
        fetch(tmp_path, Pin(ca_pem=other.pem), lambda _: ok(b"hi"))
    assert seen[0].requests == []


def test_an_authority_s_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    named = certificate(tmp_path, "broker.example", "192.0.2.1")
    with pytest.raises(VerifyError, match="ip address mismatch"):
        fetch(tmp_path, Pin(ca_pem=named.pem), lambda _: ok(b"hi"))
    assert seen[0].requests == []


def test_a_pinned_key_may_have_any_name(tmp_path: Path) -> None:
    named = certificate(tmp_path, "broker.example")
    response, _ = fetch(tmp_path, Pin(spki_sha256=named.spki_sha256), lambda _: ok(b"hi"))
    assert response.status == 200


@pytest.mark.parametrize("status", ["302 Found", "401 No", "404 Gone", "500 Oops"])
def test_every_status_is_an_answer(served: TLSCertificate, tmp_path: Path, status: str) -> None:
    respond = lambda _: ok(b"no", status=status, headers="Location: https://127.0.0.1:1/\r\n")  # noqa: E731
    response, heard = fetch(tmp_path, Pin(spki_sha256=served.spki_sha256), respond)
    assert response.status == int(status[:3]) and len(heard.requests) == 1


@pytest.mark.parametrize(
    ("answer", "want", "why"),
    [
        (ok(b"x" * 1001), ProtocolError, "answer is longer than 1000 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2000,
            ProtocolError,
            "longer than",
        ),
        (ok(b"x", headers="Content-Encoding: gzip\r\n"), ProtocolError, "answer is compressed"),
        (b"SMTP hello\r\n\r\n", TransportError, "answer is not whole HTTP"),
        (None, TransportError, "no answer within 0.3 s"),
    ],
    ids=["long", "long chunk", "compressed", "not HTTP", "silent"],
)
def test_a_bad_answer(
    served: TLSCertificate, tmp_path: Path, answer: bytes | None, want: type[StrongroomError], why: str
) -> None:
    with pytest.raises(want, match=why):
        fetch(
            tmp_path,
            Pin(spki_sha256=served.spki_sha256),
            lambda _: answer,
            timeout_s=0.3 if answer is None else 5.0,
        )


async def request(url: str, pin: Pin) -> Response:
    async with Fetcher(url, pin) as fetcher:
        return await fetcher.request("GET", "/a", max_bytes=100, timeout_s=5.0)


def test_a_closed_port_is_named(served: TLSCertificate) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(TransportError) as caught:
        asyncio.run(request(url, Pin(spki_sha256=served.spki_sha256)))
    assert str(caught.value) == f"GET {url}/a: connection refused"


def test_a_name_that_is_none(served: TLSCertificate) -> None:
    with pytest.raises(TransportError, match=r"GET https://broker\.invalid/a: "):
        asyncio.run(request("https://broker.invalid", Pin(spki_sha256=served.spki_sha256)))


def test_a_peer_that_hangs_up_or_speaks_no_tls(served: TLSCertificate) -> None:
    async def run(words: bytes) -> None:
        def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(words)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            await request(f"https://127.0.0.1:{port}", Pin(spki_sha256=served.spki_sha256))

    for words in (b"", b"HTTP/1.1 400 Bad\r\n\r\n"):
        with pytest.raises(TransportError, match="/a: "):
            asyncio.run(run(words))


def test_a_pin_is_exactly_one(served: TLSCertificate) -> None:
    with pytest.raises(ConfigError, match="and not both"):
        Pin()
    with pytest.raises(ConfigError, match="and not both"):
        Pin(ca_pem=served.pem, spki_sha256=served.spki_sha256)
    with pytest.raises(ConfigError, match="31 bytes, want the 32"):
        Pin(spki_sha256=bytes(31))
    for text in ("", "no pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"):
        with pytest.raises(ConfigError, match="not PEM"):
            Pin(ca_pem=text).context()


@pytest.mark.parametrize("url", ["https://broker.example", "https://192.0.2.1:8443/", "https://[::1]:1/kbs"])
def test_a_url_is_taken(url: str) -> None:
    assert checked_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker.example",
        "http://broker.example",
        "https://",
        "https:///a",
        "https://user@broker.example",
        "https://broker.example/?a=b",
        "https://broker.example/#a",
        "https://broker.example:99999",
        "https://broker.example:0",
        "https://broker..example",
        f"https://{'a' * 64}.example",
        "https://bro\nker.example",
        "https://broker.example/a b",
        "https://broker.example/\x1b",
        "unix:///run/x",
    ],
)
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="want https"):
        checked_url(url)


def test_headers_of_an_answer_are_there(served: TLSCertificate, tmp_path: Path) -> None:
    pin = Pin(spki_sha256=served.spki_sha256)
    response, _ = fetch(tmp_path, pin, lambda _: ok(b"hi", headers="X-Issuer-Chain: a%0Ab\r\n"))
    assert response.headers["x-issuer-chain"] == "a%0Ab"
    assert "a%0Ab" not in repr(response)


def test_headers_of_a_request_replace_ours(served: TLSCertificate, tmp_path: Path) -> None:
    async def run() -> bytes:
        async with (
            listening(tmp_path, lambda _: ok(b"")) as heard,
            Fetcher(heard.url, Pin(spki_sha256=served.spki_sha256)) as fetcher,
        ):
            headers = {"Accept": "*/*", "Content-Type": "application/ocsp-request"}
            await fetcher.request("POST", "/", body=b"0", headers=headers, max_bytes=9, timeout_s=5)
            return heard.requests[0].lower()

    head = asyncio.run(run())
    assert b"\r\naccept: */*\r\n" in head and b"\r\ncontent-type: application/ocsp-request\r\n" in head
    assert b"json" not in head


def test_the_system_s_authorities_do_not_know_a_stranger(served: TLSCertificate, tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match="certificate is not under an authority of this system: self"):
        fetch(tmp_path, Pin(system=True), lambda _: ok(b""))
    assert seen[0].requests == []


def test_the_system_s_authorities_are_asked(
    served: TLSCertificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / CERTIFICATE))  # where OpenSSL looks for them
    response, _ = fetch(tmp_path, Pin(system=True), lambda _: ok(b"hi"))
    assert response.body == b"hi"
    context = Pin(system=True).context()
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED


def test_the_system_is_a_pin_of_its_own(served: TLSCertificate) -> None:
    for other in ({"ca_pem": served.pem}, {"spki_sha256": served.spki_sha256}):
        with pytest.raises(ConfigError, match="and not both"):
            Pin(system=True, **other)


def stream(directory: Path, pin: Pin, answer: bytes, path: str = "/a?sig=s3cret") -> bytes:
    async def run() -> bytes:
        async with listening(directory, lambda _: answer) as heard, Fetcher(heard.url, pin) as fetcher:
            async with fetcher.stream(
                path, headers={"Range": "bytes=5-"}, idle_s=0.5, total_s=9.0
            ) as answered:
                content = b""
                while piece := await answered.piece():
                    content += piece
            assert b"GET " + path.encode() in heard.requests[0] and b"Range: bytes=5-" in heard.requests[0]
            return content

    return asyncio.run(run())


def test_a_body_comes_in_pieces(served: TLSCertificate, tmp_path: Path) -> None:
    pin = Pin(spki_sha256=served.spki_sha256)
    assert stream(tmp_path, pin, ok(b"x" * 1_000_000)) == b"x" * 1_000_000
    assert stream(tmp_path, pin, ok(b"")) == b""
    with pytest.raises(ProtocolError, match="compressed"):
        stream(tmp_path, pin, ok(b"x", headers="Content-Encoding: gzip\r\n"))


@pytest.mark.guarantee("G11")
def test_a_broken_stream_does_not_tell_its_query(served: TLSCertificate, tmp_path: Path) -> None:
    long = ok(b"x" * 100).replace(b"Content-Length: 100", b"Content-Length: 200")
    with pytest.raises(TransportError, match=r"/a: no answer within 0\.5 s") as caught:
        stream(tmp_path, Pin(spki_sha256=served.spki_sha256), long)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(VerifyError) as refused:
        stream(tmp_path, Pin(spki_sha256=bytes(32)), long)
    assert "s3cret" not in str(refused.value)
