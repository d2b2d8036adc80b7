"""TLS 1.3 on bytes and on a blocking socket. The only module that imports OpenSSL.

The standard `ssl` module cannot export keying material, so evidence could not be bound to a connection with
it. `TLSEngine` is sans-IO (ciphertext in, plaintext out; the caller owns the socket); `TLSStream` is its
blocking shell for a client.

    versions   TLS 1.3 only
    suites     AES-256-GCM, AES-128-GCM, ChaCha20-Poly1305
    groups     X25519MLKEM768, X25519, P-256, as the server prefers; the hybrid is left out when the linked OpenSSL does
               not know it, and `TLSEngine.group` says what a connection got
    ALPN       none: choosing a protocol takes a callback made at run time, hence memory that is both writable and
               executable, which the door's unit forbids. HTTP/1.1 is all that is spoken
    resumption none. OpenSSL still sends two NewSessionTicket messages, which pyOpenSSL cannot turn off; a client
               that offers one back gets a full handshake. No early data

Nobody here checks a certificate against an authority: a peer is accepted by its evidence, and the handshake
proves only possession of the certificate's key. A server that knows certificates of clients asks for one, and ends the
handshake when it is shown another; a client may show none.
"""

import ipaddress
import math
import select
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NoReturn, Self

from cryptography import x509
from cryptography.hazmat.bindings.openssl.binding import Binding
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from strongroom.errors import MachineError, ProtocolError, TransportError

# The first list that OpenSSL accepts is used. A slash, not a colon: a server then asks again for a better group that
# the client knows, where it would else take whatever the client made a key share for.
GROUPS: Final = (b"X25519MLKEM768/X25519/P-256", b"X25519:P-256")
_CIPHERS: Final = b"TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
_LIB: Final = (
    Binding().lib
)  # the same library under pyOpenSSL: what that does not wrap, or wraps in much Python
_FFI: Final = Binding.ffi
_READ: Final = 64 * 1024  # bytes taken from OpenSSL, or from the socket, in one call
_SLICE: Final = (
    64 * 1024
)  # bytes encrypted at once: what OpenSSL holds for it, it keeps as long as the connection
_CLOSED_BY_PEER: Final = "tls: the peer closed the connection"


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(_CIPHERS)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # pyOpenSSL turns partial writes on, and a large answer would then leave in 16 KiB calls
    context.clear_mode(_LIB.SSL_MODE_ENABLE_PARTIAL_WRITE)
    _prefer_groups(context)
    return context


def _prefer_groups(context: SSL.Context) -> None:
    # pyOpenSSL has no call for a list of groups
    for groups in GROUPS:
        if _LIB.SSL_CTX_set1_curves_list(context._context, groups) == 1:  # noqa: SLF001
            return
        _LIB.ERR_clear_error()
    raise MachineError("tls: the linked OpenSSL knows none of the key exchange groups we accept")


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What a listener needs to answer handshakes: a P-256 key with its certificate."""

    inner: SSL.Context

    @classmethod
    def of(
        cls, *, key: ec.EllipticCurvePrivateKey, certificate: bytes, clients: Sequence[bytes] = ()
    ) -> Self:
        """`certificate` is DER, and so are those that clients may show: none are asked for when there are none.

        Raises MachineError when the key is not the certificate's.
        """
        context = _context()
        try:
            context.use_certificate(x509.load_der_x509_certificate(certificate))
            context.use_privatekey(key)
            context.check_privatekey()
        except (ValueError, SSL.Error) as error:
            raise MachineError("tls: key and certificate do not belong together") from error
        if clients:
            _ask_clients(context, clients)
        return cls(context)


def _ask_clients(context: SSL.Context, certificates: Sequence[bytes]) -> None:
    """Let OpenSSL itself decide: a callback of ours would need memory that is both writable and executable.

    Each certificate is a trust anchor by itself, whoever signed it. Their names are not sent with the question, which
    goes to everybody who connects.
    """
    store = context.get_cert_store()
    if store is None:
        raise MachineError("tls: the linked OpenSSL has no store for certificates")
    for certificate in certificates:
        store.add_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, certificate))
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    context.set_verify_depth(0)
    context.set_verify(SSL.VERIFY_PEER)


class _Scratch(threading.local):
    """One buffer for each thread: a connection of its own would keep as much for every client that is silent."""

    def __init__(self) -> None:
        self.room = _FFI.new("char[]", _READ)
        self.view = _FFI.buffer(self.room)


_SCRATCH: Final = _Scratch()


class TLSEngine:
    """One end of one connection: feed() ciphertext, take() ciphertext, plaintext in between.

    Not for two threads at once. ProtocolError means the connection is beyond use: take() once more, for the
    alert.
    """

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection
        # pyOpenSSL's own recv(), send() and bio_*() cost several times what OpenSSL does for a short message
        self._ssl = connection._ssl  # noqa: SLF001
        self._into, self._from = connection._into_ssl, connection._from_ssl  # noqa: SLF001
        self._out: list[bytes] = []  # ciphertext of slices
        self.established = False
        self.peer_closed = False  # a close_notify came: the end of what the peer says, not of what it reads

    @classmethod
    def server(cls, context: ServerContext) -> Self:
        connection = SSL.Connection(context.inner, None)
        connection.set_accept_state()
        return cls(connection)

    @classmethod
    def client(cls, host: str) -> Self:
        """`host` goes into SNI unless it is an address. take() holds the ClientHello at once."""
        context = _context()
        connection = SSL.Connection(context, None)
        if not _is_address(host):
            connection.set_tlsext_host_name(host.encode("idna"))
        connection.set_connect_state()
        engine = cls(connection)
        engine.feed(b"")
        return engine

    def feed(self, ciphertext: bytes) -> bytes:
        """All plaintext that became readable, perhaps none. Raises ProtocolError when the peer broke TLS."""
        if ciphertext and _LIB.BIO_write(self._into, ciphertext, len(ciphertext)) != len(ciphertext):
            raise MachineError("tls: no memory for what came")
        if not self.established and not self._handshake():
            return b""
        plaintext, scratch = b"", _SCRATCH
        more: list[bytes] = []
        while (count := _LIB.SSL_read(self._ssl, scratch.room, _READ)) > 0:
            if plaintext:
                more.append(scratch.view[:count])
            else:
                plaintext = scratch.view[:count]
        self._read_ended(count)
        return plaintext + b"".join(more) if more else plaintext

    def _read_ended(self, result: int) -> None:
        reason = _LIB.SSL_get_error(self._ssl, result)
        if reason == _LIB.SSL_ERROR_ZERO_RETURN:
            self.peer_closed = True
        elif reason != _LIB.SSL_ERROR_WANT_READ:
            try:
                self._connection._raise_ssl_error(self._ssl, result)  # noqa: SLF001
            except SSL.Error as error:
                _broken("record", error)

    def _handshake(self) -> bool:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            _broken("handshake", error)
        self.established = True
        return True

    def send(self, plaintext: bytes) -> None:
        """Encrypt; take() has the result. ProtocolError before the handshake is over."""
        if not self.established:
            raise ProtocolError("tls: sending before the handshake is over")
        if len(plaintext) > _SLICE:
            rest = memoryview(plaintext)
            for at in range(0, len(rest), _SLICE):
                self._encrypt(bytes(rest[at : at + _SLICE]))
                self._out += self._drawn()
        elif plaintext:
            self._encrypt(plaintext)

    def _encrypt(self, plaintext: bytes) -> None:
        if (result := _LIB.SSL_write(self._ssl, plaintext, len(plaintext))) <= 0:
            try:
                self._connection._raise_ssl_error(self._ssl, result)  # noqa: SLF001
            except SSL.Error as error:
                _broken("record", error)

    def take(self) -> bytes:
        """Ciphertext that waits for the wire, perhaps none."""
        if self._out:
            out, self._out = self._out + self._drawn(), []
            return b"".join(out)
        scratch = _SCRATCH
        count = _LIB.BIO_read(self._from, scratch.room, _READ)
        if count < _READ:
            return scratch.view[:count] if count > 0 else b""
        return b"".join([scratch.view[:count], *self._drawn()])

    def _drawn(self) -> list[bytes]:
        scratch, drawn = _SCRATCH, list[bytes]()
        while (count := _LIB.BIO_read(self._from, scratch.room, _READ)) > 0:
            drawn.append(scratch.view[:count])
            if count < _READ:
                break
        return drawn

    def close(self) -> None:
        """Queue a close_notify; take() has it. Harmless when the connection is already beyond use."""
        if self.established:
            with suppress(SSL.Error):
                self._connection.shutdown()

    def exporter(self, label: bytes, length: int, context: bytes) -> bytes:
        """`length` bytes that only the two ends of this connection know (RFC 8446, 7.5)."""
        if not self.established:
            raise ProtocolError("tls: exporting before the handshake is over")
        return self._connection.export_keying_material(label, length, context)

    @property
    def peer_certificate_der(self) -> bytes | None:
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        return certificate.public_bytes(Encoding.DER) if certificate is not None else None

    @property
    def group(self) -> str | None:
        """Name of the negotiated key exchange group; None before the handshake is over."""
        return self._connection.get_group_name() if self.established else None


class TLSStream:
    """A blocking client connection. Every call may raise TransportError (silence, loss) or ProtocolError."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self._socket = sock
        self._patience = sock.gettimeout()
        self._engine = TLSEngine.client(host)
        self._ready = bytearray()
        self._handshake()
        certificate = self._engine.peer_certificate_der
        if certificate is None:
            raise ProtocolError("tls: the server showed no certificate")
        self.peer_certificate_der: bytes = certificate

    def _handshake(self) -> None:
        until = self._until()
        while True:
            self._flush()
            if self._engine.established:
                return
            self._ready += self._pull(until)

    @property
    def group(self) -> str | None:
        return self._engine.group

    def exporter(self, label: bytes, length: int, context: bytes) -> bytes:
        return self._engine.exporter(label, length, context)

    def settimeout(self, seconds: float) -> None:
        """Longest wait a single call bears, however many small pieces a record comes in."""
        self._patience = seconds

    def send(self, data: bytes) -> None:
        self._engine.send(data)
        self._flush()

    def recv(self, limit: int = _READ) -> bytes:
        """1 to `limit` bytes, or b"" after the peer's close_notify; a cut without one is a TransportError."""
        until = self._until()
        while not self._ready and not self._engine.peer_closed:
            self._ready += self._pull(until)
        data = bytes(self._ready[:limit])
        del self._ready[:limit]
        return data

    @property
    def is_quiet(self) -> bool:
        """Whether nothing came that nobody asked for: no byte, and no end."""
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        return not self._ready and not self._engine.peer_closed and not waiting.poll(0)

    def abort(self) -> None:
        """End it at once, from whatever thread: who waits here gets a TransportError. close() is still to come."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(TransportError):
            self._engine.close()
            self._flush()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _until(self) -> float:
        return math.inf if self._patience is None else time.monotonic() + self._patience

    def _pull(self, until: float) -> bytes:
        left = until - time.monotonic()
        if left <= 0:
            raise TransportError("tls: the peer said nothing whole in time")
        try:
            self._socket.settimeout(None if math.isinf(left) else left)
            data = self._socket.recv(_READ)
        except TimeoutError as error:
            raise TransportError("tls: the peer said nothing in time") from error
        except OSError as error:
            raise TransportError(f"{_CLOSED_BY_PEER}: {error.strerror}") from error
        if not data:
            raise TransportError(f"{_CLOSED_BY_PEER} without close_notify")
        try:
            return self._engine.feed(data)
        except ProtocolError:
            with suppress(TransportError):
                self._flush()  # the alert
            raise

    def _flush(self) -> None:
        try:
            self._socket.settimeout(self._patience)
            self._socket.sendall(self._engine.take())
        except TimeoutError as error:
            raise TransportError("tls: the peer read nothing in time") from error
        except OSError as error:
            raise TransportError(f"{_CLOSED_BY_PEER}: {error.strerror}") from error


def connect(host: str, port: int, *, timeout: float) -> TLSStream:
    """A TLS 1.3 connection whose peer is NOT yet trusted: judge its evidence before sending anything.

    `timeout` is the longest wait in seconds: for the name and the port, for the handshake, and for each later call
    until settimeout().
    """
    try:
        sock = socket.create_connection((host, port), timeout=timeout)
    except OSError as error:
        raise TransportError(f"tls: {host}:{port}: {error.strerror or 'no answer in time'}") from error
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return TLSStream(sock, host)
    except BaseException:
        sock.close()
        raise


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _broken(where: str, error: SSL.Error) -> NoReturn:
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reason = reasons[0][2] if reasons else "unexpected end"
    raise ProtocolError(f"tls: {where}: {reason}") from error
