"""Credentials for our own units, handed to systemd over an AF_UNIX socket and to nobody else.

`LoadCredential=model-key:/run/strongroom/credentials.sock` makes systemd connect from the abstract address
`\\0<random>/unit/<unit>/<credential>`, read until end of file, and place the bytes in the unit's private ramfs. A unit
receives exactly what was granted to it by name. One that somebody's connection may start before the boot has come that
far is expected: systemd's question then waits for the grant. Source: systemd.exec(5), LoadCredential=.
"""

import asyncio
import socket
from typing import Final

from guest.connections import serve_each
from guest.peers import credentials, unit_of
from strongroom.errors import PolicyError
from strongroom.host.secret import Secret

TIMEOUT: Final = 10.0  # seconds for systemd to take a credential
PATIENCE: Final = 900.0  # seconds for an expected one to be granted: as long as a boot may take


class Grants:
    """What each unit may load. Secrets stay in memory here so that a restarted unit gets them again.

    The units `expected` may be started before their grants are there.
    """

    def __init__(self, *expected: str) -> None:
        self._granted: dict[tuple[str, str], Secret] = {}
        self._expected = frozenset(expected)
        self._more = asyncio.Event()  # set, and replaced, by every grant

    def grant(self, unit: str, name: str, value: bytes) -> None:
        self._granted[unit, name] = Secret(value)
        self._more.set()
        self._more = asyncio.Event()

    def wipe(self) -> None:
        for secret in self._granted.values():
            secret.wipe()
        self._granted.clear()

    def take(self, address: object, uid: int, inside: str) -> Secret:
        """The credential that a systemd connection from `address` asks for, or PolicyError.

        `inside` is the unit the kernel has the peer in: systemd asks from within the unit it is about to start, so a
        daemon that runs as root cannot ask under another's name.
        """
        if uid != 0:
            raise PolicyError(f"credentials: asked by uid {uid}, want systemd itself (uid 0)")
        if not isinstance(address, bytes) or not address.startswith(b"\0"):
            raise PolicyError(
                "credentials: peer has no abstract address, want systemd's /unit/NAME/CREDENTIAL"
            )
        parts = address[1:].decode("ascii", "replace").split("/")
        if len(parts) != 4 or parts[1] != "unit":
            raise PolicyError(
                "credentials: peer address is of another shape, want systemd's /unit/NAME/CREDENTIAL"
            )
        if parts[2] != inside:
            raise PolicyError(f"credentials: {inside} asked in the name of {parts[2][:64]}, want its own")
        secret = self._granted.get((parts[2], parts[3]))
        if secret is None:
            raise PolicyError(f"credentials: {parts[2]} was never granted {parts[3]}")
        return secret

    async def serve(self, listener: socket.socket) -> None:
        """Answer systemd until cancelled. A refusal closes the connection without a byte."""
        await serve_each(listener, self._answer, within=PATIENCE + TIMEOUT)

    async def _answer(self, connection: socket.socket, address: object) -> None:
        uid, inside = credentials(connection)[1], unit_of(connection)
        if inside in self._expected and isinstance(address, bytes):
            async with asyncio.timeout(PATIENCE):
                await self._granted_to(inside, address.rpartition(b"/")[2].decode("ascii", "replace"))
        secret = self.take(address, uid, inside)
        async with asyncio.timeout(TIMEOUT):
            await asyncio.get_running_loop().sock_sendall(connection, secret.view())

    async def _granted_to(self, unit: str, name: str) -> None:
        while (unit, name) not in self._granted:
            await self._more.wait()
