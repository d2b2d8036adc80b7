"""The door's data path as a process: everything that a request meets, before an engine that sang no canary.

python -m bench.ingress.ours ENGINE_SOCKET CERTIFICATE KEY DIRECTORY
"""

import asyncio
import logging
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from sidecars.proxy.engine.connection import EngineConnection
from sidecars.proxy.receipts.book import Book
from sidecars.proxy.routes import ASKED
from sidecars.proxy.service import Service
from sidecars.proxy.serving import converse
from strongroom.host.door.loop import run
from strongroom.host.door.peer import Peer
from strongroom.host.tls import ServerContext
from tests.fakes import book as fake


async def main(engine: Path, certificate: bytes, key: bytes, directory: Path) -> None:
    """Say on which port it listens, and serve until it is ended."""
    plan = fake.plan(
        engine_socket=str(engine),
        limits={"concurrent": 4096},
        queue={"places": 4096, "length": 0, "seconds": 1},
    )
    loaded = load_pem_private_key(key, None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise SystemExit("ours: want a key on a curve")
    der = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
    identity = replace(fake.tls(), context=ServerContext.of(key=loaded, certificate=der))
    service = Service(
        plan, tls=identity, book=Book(plan, fake.KEYS, fake.identity(plan), directory=directory)
    )
    connection = await EngineConnection.open(engine)
    service.open(connection.process, served=ASKED, max_model_len=None)
    connection.close()
    server = await asyncio.get_running_loop().create_server(
        lambda: Peer(
            identity.context,
            partial(converse, service, identity),
            register=lambda _: True,
            forget=lambda _: None,
        ),
        "127.0.0.1",
        0,
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    socket, certificate, key, directory = map(Path, sys.argv[1:])
    run(main(socket, certificate.read_bytes(), key.read_bytes(), directory))
