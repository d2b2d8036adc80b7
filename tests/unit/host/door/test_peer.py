"""Mirrors strongroom/host/door/peer.py: whom limits hold for, and who is waited for.

tests/integration/door/ has the rest.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.host.door.peer import PROGRESS, Peer, _origin
from strongroom.host.tls import ServerContext


def _context() -> ServerContext:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "door")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=1))
    certificate = made.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    return ServerContext.of(key=key, certificate=certificate)


CONTEXT = _context()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),  # whoever has one address there has them all
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_origins(one: str, other: str, same: bool) -> None:
    assert (_origin((one, 1)) == _origin((other, 2, 0, 0))) is same


def test_who_left_already_has_none() -> None:
    assert _origin(None) == b""


class Transport:
    """Holds all that is written; its half-close fails as that of a transport that ended."""

    def __init__(self) -> None:
        self.held = 0
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.held

    def get_extra_info(self, _: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: bytes) -> None:
        self.held += len(data)

    def write_eof(self) -> None:
        raise RuntimeError("the transport is closed")

    def close(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True


def peer_on(transport: Transport) -> Peer:
    async def serve(_: Peer) -> None: ...

    peer = Peer(CONTEXT, serve, register=lambda _: True, forget=lambda _: None)
    peer._transport = cast(asyncio.Transport, transport)
    return peer


def test_who_reads_slowly_is_waited_for_and_who_stops_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.host.door.peer.STALL", 3600.0)

    async def main() -> None:
        transport = Transport()
        peer = peer_on(transport)
        transport.held = peer._written = 10 * PROGRESS
        peer.pause_writing()
        for _ in range(3):
            transport.held -= PROGRESS
            peer._give_up()  # its time is up
            assert peer.congested and not peer.stalled and not transport.aborted
        transport.held -= PROGRESS - 1
        peer._give_up()
        assert peer.stalled and peer.gone and transport.aborted
        peer.connection_lost(None)
        await asyncio.wait_for(peer.ended(), 5)

    asyncio.run(main())


def test_a_transport_that_is_gone_spoils_no_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.host.door.peer.LINGER", 0.0)

    async def main() -> None:
        peer = peer_on(Transport())
        await peer.finish()
        peer.connection_lost(None)

    asyncio.run(main())
