"""Mirrors the part of strongroom/host/tls.py that asks clients for certificates: against two other TLS libraries."""

import shutil
import socket
import ssl
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from strongroom.errors import ProtocolError
from strongroom.host.run import Completed, run
from strongroom.host.tls import ServerContext, TLSEngine
from tests import ROOT
from tests.fakes.certified import Certified

DOOR = Certified.make("door", usage=None)
ANN = Certified.make("ann")
BOB = Certified.make("bob")
TWIN = Certified.make("ann")  # another key under the same name
AUTHORITY = Certified.make("authority", usage=None, authority=True)


def context(*clients: Certified) -> ServerContext:
    return ServerContext.of(key=DOOR.key, certificate=DOOR.der, clients=[client.der for client in clients])


def peer(shows: Certified | None, directory: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if shows is not None:
        made.load_cert_chain(shows.write(directory))
    return made


def shake(server: TLSEngine, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLObject:
    """A handshake with the standard library's TLS, to its end, tickets included."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    other = client.wrap_bio(incoming, outgoing, server_hostname="door", session=session)
    for _ in range(4):
        with suppress(ssl.SSLWantReadError):
            other.do_handshake()
        server.feed(outgoing.read())
        incoming.write(server.take())
    with pytest.raises(ssl.SSLWantReadError):
        other.read()
    return other


@pytest.mark.parametrize("who", [ANN, BOB, TWIN])
def test_a_known_certificate_is_proven_and_seen(who: Certified, tmp_path: Path) -> None:
    server = TLSEngine.server(context(ANN, BOB, TWIN))
    shake(server, peer(who, tmp_path))
    assert server.established and server.peer_certificate_der == who.der


def test_a_client_may_show_none(tmp_path: Path) -> None:
    server = TLSEngine.server(context(ANN))
    shake(server, peer(None, tmp_path))
    assert server.established and server.peer_certificate_der is None


def test_none_is_asked_for_where_none_is_known(tmp_path: Path) -> None:
    server = TLSEngine.server(context())
    shake(server, peer(ANN, tmp_path))
    assert server.established and server.peer_certificate_der is None


@pytest.mark.parametrize(
    ("known", "shown"),
    [
        ([ANN], BOB),
        ([ANN], TWIN),
        ([BOB], Certified.make("child", by=BOB)),
        ([ANN], AUTHORITY),
        ([child := Certified.make("child", by=AUTHORITY)], Certified.make("child", by=AUTHORITY)),
        ([old := Certified.make("old", days=-1)], old),
        ([server := Certified.make("server", usage=ExtendedKeyUsageOID.SERVER_AUTH)], server),
    ],
    ids=["other", "same name", "issued by a leaf", "authority", "sibling", "expired", "server's"],
)
def test_any_other_ends_the_handshake(known: Sequence[Certified], shown: Certified, tmp_path: Path) -> None:
    server = TLSEngine.server(context(*known))
    with pytest.raises(ProtocolError, match="tls: handshake: certificate verify failed"):
        shake(server, peer(shown, tmp_path))
    assert not server.established


def test_a_certificate_is_known_whoever_signed_it(tmp_path: Path) -> None:
    leaf = Certified.make("leaf", by=AUTHORITY)
    server = TLSEngine.server(context(leaf))
    shake(server, peer(leaf, tmp_path))
    assert server.peer_certificate_der == leaf.der


def test_what_a_known_authority_issued_is_seen_as_what_it_is(tmp_path: Path) -> None:
    """OpenSSL lets it pass; who compares what was shown with what is known does not."""
    leaf = Certified.make("leaf", by=AUTHORITY)
    server = TLSEngine.server(context(AUTHORITY))
    shake(server, peer(leaf, tmp_path))
    assert server.peer_certificate_der == leaf.der != AUTHORITY.der


def test_a_ticket_carries_no_certificate_over(tmp_path: Path) -> None:
    client = peer(ANN, tmp_path)
    made = context(ANN)
    session = shake(TLSEngine.server(made), client).session
    again = TLSEngine.server(made)
    anonymous = peer(None, tmp_path)
    for context_ in (client, anonymous):
        with suppress(ValueError):  # the standard library keeps a session to the context that made it
            assert not shake(again, context_, session).session_reused
    assert session is not None


@contextmanager
def listening(*clients: Certified) -> Iterator[int]:
    """Serves one connection: says <known> or <unknown> to whoever says anything."""

    def serve() -> None:
        engine = TLSEngine.server(context(*clients))
        sock, _ = listener.accept()
        with sock, suppress(ProtocolError, OSError):
            try:
                heard = b""
                while not heard and (data := sock.recv(65536)):
                    heard = engine.feed(data)
                    sock.sendall(engine.take())
                engine.send(b"<known>" if engine.peer_certificate_der == ANN.der else b"<unknown>")
                engine.close()
            finally:
                sock.sendall(engine.take())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize(("shows", "says"), [(ANN, b"<known>"), (None, b"<unknown>")])
def test_openssls_own_client(shows: Certified | None, says: bytes, tmp_path: Path) -> None:
    with listening(ANN) as port:
        done = _s_client(port, shows, tmp_path)
    assert says in done.stdout


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssls_own_client_learns_no_name_and_of_its_refusal(tmp_path: Path) -> None:
    with listening(ANN) as port:
        done = _s_client(port, BOB, tmp_path)
    assert b"No client certificate CA names sent" in done.stdout
    assert b"alert unknown ca" in done.stderr


def _s_client(port: int, shows: Certified | None, directory: Path) -> Completed:
    identity: list[str | Path] = (
        ["-cert", shows.write(directory), "-key", directory / "client.pem"] if shows else []
    )
    words: list[str | Path] = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof", *identity]
    return run(words, input=b"hello\n", check=False)


SEALED_MEMORY = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN: lasts over exec
    sys.exit(77)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
"""
BOTH_ENDS = """
import sys
from contextlib import suppress
from pathlib import Path
from OpenSSL import SSL
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography import x509
from tests.unit.host.test_tls_clients import ANN, context, peer, shake
from strongroom.host.tls import TLSEngine
with suppress(MemoryError):
    SSL.Context(SSL.TLS_METHOD).set_verify(SSL.VERIFY_PEER, lambda *_: True)
    sys.exit(78)
server = TLSEngine.server(context(ANN))
shake(server, peer(ANN, Path(sys.argv[1])))
sys.exit(0 if server.peer_certificate_der == ANN.der else 1)
"""


def test_it_works_where_no_memory_is_writable_and_executable(tmp_path: Path) -> None:
    """As under the door's unit. The program first shows that a callback of ours would not."""
    done = run(
        [sys.executable, "-c", SEALED_MEMORY, BOTH_ENDS, tmp_path],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    if done.status == 77:
        pytest.skip("this kernel cannot refuse such memory")
    assert (done.status, done.stderr) == (0, b"")
