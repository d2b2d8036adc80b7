"""Mirrors strongroom/host/tls.py: two engines joined by a loop, and the blocking client against a real socket."""

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.errors import MachineError, ProtocolError, TransportError
from strongroom.host.tls import ServerContext, TLSEngine, connect

LABEL = b"EXPORTER-strongroom-attestation"


def self_signed(key: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "door")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.DER)


KEY = ec.generate_private_key(ec.SECP256R1())
CERTIFICATE = self_signed(KEY)


def join(client: TLSEngine, server: TLSEngine) -> tuple[bytes, bytes]:
    """Carry ciphertext both ways until nobody has more to say; what each of them read."""
    at_client, at_server = b"", b""
    while (out := client.take()) or (back := server.take()):
        if out:
            at_server += server.feed(out)
        if back := server.take():
            at_client += client.feed(back)
    return at_client, at_server


def test_openssl_keeps_no_more_than_a_slice(pair: tuple[TLSEngine, TLSEngine]) -> None:
    client, server = pair
    large = bytes(range(256)) * 8192
    server.send(b"before" + large)
    assert server._drawn() == []  # all was taken from it at once
    server.send(large[:-1] + b"!")
    server.send(b"end")
    server.close()
    read = client.feed(server.take())
    assert read == b"before" + large + large[:-1] + b"!end" and client.peer_closed
    assert server.take() == b""


@pytest.fixture
def pair() -> tuple[TLSEngine, TLSEngine]:
    client = TLSEngine.client("door.example")
    server = TLSEngine.server(ServerContext.of(key=KEY, certificate=CERTIFICATE))
    join(client, server)
    return client, server


def test_both_ends_agree_on_hybrid_group_and_certificate(pair: tuple[TLSEngine, TLSEngine]) -> None:
    client, server = pair
    assert client.established and server.established
    assert client.group == server.group == "X25519MLKEM768"
    assert client.peer_certificate_der == CERTIFICATE
    assert server.peer_certificate_der is None


@pytest.mark.parametrize(
    ("offers", "gets"),
    [
        (b"P-256:X25519MLKEM768:X25519", "X25519MLKEM768"),
        (b"X25519:X25519MLKEM768", "X25519MLKEM768"),
        (b"P-256:X25519", "x25519"),
        (b"P-256", "secp256r1"),
    ],
)
def test_the_server_chooses_the_group(offers: bytes, gets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = TLSEngine.server(ServerContext.of(key=KEY, certificate=CERTIFICATE))
    monkeypatch.setattr("strongroom.host.tls.GROUPS", (offers,))
    client = TLSEngine.client("door.example")
    join(client, server)
    assert client.group == server.group == gets


def test_plaintext_travels_both_ways_in_any_size(pair: tuple[TLSEngine, TLSEngine]) -> None:
    client, server = pair
    big = bytes(range(256)) * 1200
    client.send(big)
    server.send(b"answer")
    assert join(client, server) == (b"answer", big)


def test_ciphertext_may_arrive_byte_by_byte() -> None:
    client = TLSEngine.client("door.example")
    server = TLSEngine.server(ServerContext.of(key=KEY, certificate=CERTIFICATE))
    for byte in client.take():
        server.feed(bytes([byte]))
    for byte in server.take():
        client.feed(bytes([byte]))
    assert client.established


def test_a_close_notify_is_the_end_of_plaintext(pair: tuple[TLSEngine, TLSEngine]) -> None:
    client, server = pair
    client.send(b"last")
    client.close()
    assert join(client, server)[1] == b"last"
    assert server.peer_closed


@pytest.mark.guarantee("G8")
def test_exporters_agree_within_a_connection_and_differ_between_two() -> None:
    context = ServerContext.of(key=KEY, certificate=CERTIFICATE)
    values = []
    for _ in range(2):
        client, server = TLSEngine.client("door.example"), TLSEngine.server(context)
        join(client, server)
        ours = client.exporter(LABEL, 32, bytes(32))
        assert ours == server.exporter(LABEL, 32, bytes(32))
        assert ours != client.exporter(LABEL, 32, bytes(31) + b"\1")
        values.append(ours)
    assert values[0] != values[1]


def test_nothing_is_exported_or_sent_before_the_handshake_is_over() -> None:
    client = TLSEngine.client("door.example")
    with pytest.raises(ProtocolError, match="exporting before"):
        client.exporter(LABEL, 32, bytes(32))
    with pytest.raises(ProtocolError, match="sending before"):
        client.send(b"prompt")


def test_a_flipped_record_ends_the_connection(pair: tuple[TLSEngine, TLSEngine]) -> None:
    client, server = pair
    client.send(b"hello")
    record = bytearray(client.take())
    record[-1] ^= 1
    with pytest.raises(ProtocolError, match="tls: record: "):
        server.feed(bytes(record))


def test_plain_http_is_refused_in_one_line() -> None:
    server = TLSEngine.server(ServerContext.of(key=KEY, certificate=CERTIFICATE))
    with pytest.raises(ProtocolError, match="tls: handshake: ") as caught:
        server.feed(b"GET / HTTP/1.1\r\nHost: door\r\n\r\n")
    assert "\n" not in str(caught.value)


def test_a_foreign_key_is_refused() -> None:
    with pytest.raises(MachineError, match="do not belong together"):
        ServerContext.of(key=ec.generate_private_key(ec.SECP256R1()), certificate=CERTIFICATE)


def stdlib_handshake(context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLObject:
    server = TLSEngine.server(ServerContext.of(key=KEY, certificate=CERTIFICATE))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="door", session=session)
    for _ in range(4):
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        server.feed(outgoing.read())
        incoming.write(server.take())
    with pytest.raises(ssl.SSLWantReadError):
        client.read()  # lets the client swallow the tickets
    return client


def lenient() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_a_ticket_offered_back_gets_a_full_handshake() -> None:
    context = lenient()
    session = stdlib_handshake(context).session
    assert not stdlib_handshake(context, session).session_reused


def test_tls_1_2_is_refused() -> None:
    context = lenient()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ProtocolError, match="tls: handshake: "):
        stdlib_handshake(context)


class EchoServer:
    """Accepts once, echoes what it reads, then leaves with or without a close_notify."""

    def __init__(self, *, polite: bool) -> None:
        self._polite = polite
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        engine = TLSEngine.server(ServerContext.of(key=KEY, certificate=CERTIFICATE))
        with sock, self._listener:
            heard = b""
            while not heard:
                heard = engine.feed(sock.recv(65536))
                sock.sendall(engine.take())
            engine.send(heard)
            if self._polite:
                engine.close()
            sock.sendall(engine.take())

    def join(self) -> None:
        self._thread.join()


@pytest.fixture(params=[True, False], ids=["polite", "rude"])
def echo(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    server = EchoServer(polite=request.param)
    yield server
    server.join()


def test_the_blocking_client_tells_an_end_from_a_cut(echo: EchoServer) -> None:
    with connect("127.0.0.1", echo.port, timeout=10) as stream:
        assert stream.peer_certificate_der == CERTIFICATE
        stream.send(b"prompt")
        assert stream.recv(3) + stream.recv() == b"prompt"
        if echo._polite:
            assert stream.recv() == b""
        else:
            with pytest.raises(TransportError, match="without close_notify"):
                stream.recv()


def test_nobody_listening_is_a_transport_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TransportError, match=f"tls: 127.0.0.1:{port}: "):
        connect("127.0.0.1", port, timeout=2)


def test_a_silent_server_is_a_transport_error() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(TransportError, match="said nothing in time"),
    ):
        connect("127.0.0.1", listener.getsockname()[1], timeout=0.1)


@pytest.mark.parametrize("handshaken", [False, True], ids=["handshake", "record"])
def test_a_record_that_drips_in_ends_in_time(handshaken: bool) -> None:
    """Each byte comes well within the silence that is allowed, and the record never ends."""
    over = threading.Event()

    def drip() -> None:
        peer, _ = listener.accept()
        with peer, suppress(OSError):
            if handshaken:
                engine = TLSEngine.server(ServerContext.of(key=KEY, certificate=CERTIFICATE))
                while not engine.established:
                    engine.feed(peer.recv(65536))
                    peer.sendall(engine.take())
            peer.sendall(b"\x17\x03\x03\x40\x00" if handshaken else b"\x16\x03\x03\x40\x00")
            while not over.wait(0.02):
                peer.sendall(b"\x02")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=drip)
        server.start()
        try:
            with (
                pytest.raises(TransportError, match="in time"),
                connect("127.0.0.1", listener.getsockname()[1], timeout=0.5) as stream,
            ):
                stream.recv()
        finally:
            over.set()
            server.join()
