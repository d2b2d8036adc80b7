"""Where the broker listens, and as whom: an address with TLS, a loopback address without, or a socket of systemd's."""

import ipaddress
import os
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from strongroom.broker.signed import NO_TLS
from strongroom.cli.broker_certificate import read_certificate
from strongroom.errors import ConfigError, MachineError

ACTIVATED: Final = "systemd"  # in place of an address
_LISTEN: Final = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:]+)\]|(?P<host>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})")
_FIRST: Final = 3  # the first descriptor that is passed (sd_listen_fds(3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A place to listen at. `given` is a socket somebody else bound."""

    host: str
    port: int
    context: ssl.SSLContext | None  # None is plain HTTP, which only a loopback address may speak
    spki_sha256: bytes = NO_TLS  # of the key guests and administrators see
    given: socket.socket | None = None

    @classmethod
    def parse(cls, listen: str, *, certificate: Path, key: Path, plain: bool) -> Self:
        """Read HOST:PORT, and the TLS files unless `plain`. ConfigError for plain HTTP beyond this machine."""
        given = activated() if listen == ACTIVATED else None
        if given is None:
            host, port = _address(listen)
        else:
            host, port = str(given.getsockname()[0]), int(given.getsockname()[1])
        if plain and not is_loopback(host):
            raise ConfigError(
                f"--insecure-loopback: host is {host}, want a loopback address such as 127.0.0.1"
            )
        if plain:
            return cls(host=host, port=port, context=None, given=given)
        context = _context(certificate, key)
        spki = read_certificate(certificate).spki_sha256
        return cls(host=host, port=port, context=context, spki_sha256=spki, given=given)

    @classmethod
    def metrics(cls, listen: str) -> Self:
        """Read HOST:PORT of the listener that speaks plain HTTP and tells numbers alone."""
        host, port = _address(listen)
        return cls(host=host, port=port, context=None)

    def url(self, port: int) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.context is None else 'https'}://{host}:{port}"


def activated() -> socket.socket:
    """The one listening socket the service manager passed. ConfigError when there is none, or another number."""
    owner, count = os.environ.get("LISTEN_PID", ""), os.environ.get("LISTEN_FDS", "")
    if owner != str(os.getpid()) or count != "1":
        raise ConfigError(f"--listen {ACTIVATED}: got {count or 'no'} sockets, want one from a .socket unit")
    try:
        given = socket.socket(fileno=_FIRST)
        if not given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) or given.family not in (
            socket.AF_INET,
            socket.AF_INET6,
        ):
            raise ConfigError(f"--listen {ACTIVATED}: want a listening TCP socket")
    except OSError as error:
        raise MachineError(f"--listen {ACTIVATED}: {(error.strerror or 'failed').lower()}") from error
    given.setblocking(False)
    given.set_inheritable(False)
    return given


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address(listen: str) -> tuple[str, int]:
    match = _LISTEN.fullmatch(listen)
    if match is None or int(match["port"]) > 65535:
        raise ConfigError(f"--listen: got {listen[:100]!r}, want HOST:PORT or [ADDRESS]:PORT")
    return match["six"] or match["host"], int(match["port"])


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # guests do not resume, and a ticket would be one more thing to keep secret
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        why = (
            "not a PEM certificate with its key"
            if isinstance(error, ssl.SSLError)
            else (error.strerror or "").lower()
        )
        raise ConfigError(f"{certificate}, {key}: {why}") from None
    return context
