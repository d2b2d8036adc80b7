"""A provider at a receiving door: its key, its tree, and its requests one by one."""

import json
from contextlib import closing
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.host.attested import AttestedConnection
from strongroom.host.pushing import PushTree, _Bytes
from strongroom.host.sealed.blocks import Room, count_blocks, open_block
from strongroom.host.sealed.tree import SealedStore
from strongroom.push.answers import Accepted
from strongroom.push.content import Span
from strongroom.push.offer import EXPORTER_LABEL, Offer
from strongroom.sealed.manifest import InlineFile
from tests.fakes.received import MODEL_KEY, Received

PROVIDER = Ed25519PrivateKey.from_private_bytes(bytes([5]) * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(bytes([6]) * 32)
EPOCH = 3


def stored(door: Received, accepted: Accepted) -> dict[str, bytes]:
    """What the sealed tree holds, opened as the filesystem daemon will."""
    found = {}
    with SealedStore.open(door.dest, model_key=MODEL_KEY, epoch=EPOCH, root=accepted.root) as store:
        for entry in store.manifest.entries:
            if isinstance(entry, InlineFile):
                found[entry.path] = entry.content
        for one in store.objects:
            room = Room(store.header.chunk_log2)
            with closing(store.stored(one)) as file:
                blocks = (bytes(open_block(file, n, room)) for n in range(count_blocks(one.file.size)))
                found[one.file.path] = b"".join(blocks)
    return found


def contents(tree: PushTree) -> dict[str, bytes]:
    return {file.path: (tree.source / file.path).read_bytes() for file in tree.manifest.files}


@dataclass(frozen=True)
class Said:
    """An answer, read to its end: the connection is free for the next request."""

    status: int
    body: bytes

    @property
    def words(self) -> str:
        return str(json.loads(self.body)["error"]["message"])


def ask(
    connection: AttestedConnection,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> Said:
    response = connection.request(method, path, headers, body)
    return Said(response.status, response.read())


def offered(connection: AttestedConnection, tree: PushTree, key: Ed25519PrivateKey = PROVIDER) -> Said:
    digest = tree.manifest.digest
    exporter = connection.exporter(EXPORTER_LABEL, digest)
    offer = Offer.sign(key, manifest_sha256=digest, exporter=exporter)
    headers = {"authorization": offer.header}
    return ask(connection, "PUT", "/v1/push/manifest", headers, tree.manifest.packed)


def put(connection: AttestedConnection, at: int, data: bytes) -> Said:
    return ask(connection, "PUT", f"/v1/push/content?from={at}", body=data)


def finish(connection: AttestedConnection) -> Said:
    return ask(connection, "POST", "/v1/push/finish")


def everything(tree: PushTree) -> bytes:
    with closing(_Bytes(tree, tree.content)) as source:
        return source.read(Span(0, tree.content.size))


def left(door: Received) -> list[str]:
    return sorted(path.name for path in door.dest.rglob("*"))
