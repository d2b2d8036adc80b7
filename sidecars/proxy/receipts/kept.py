"""What receipts are made of, in files that outlive a killed door: hashes and ids, nothing of what was said.

    answers-<first 16 hex digits of the evidence's digest>-<0 or 1>

One is written until it is full or an hour old, then the other is begun anew: what was answered within the last hour is
in the two. Receipts that name other evidence than the door shows now cannot be made any more, so files of other
evidence go. A record that does not check is passed over: it costs its owner a receipt, and nobody else anything.
"""

import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Final

from sidecars.proxy.ledger import MAX_AGE, MAX_ALL, Entry
from sidecars.proxy.routes import ASKED
from strongroom.errors import MachineError
from strongroom.receipts.receipt import CACHES

_LAYOUT: Final = Struct(
    ">16s16sQQBBB13s32s32s32s32s32s"
)  # id, owner, served_at, index, bits, cache, endpoint, chat, hashes
_CHECK: Final = 16  # bytes
RECORD: Final = _LAYOUT.size + _CHECK
_COMPLETE, _STREAM = 1, 2
_ENDPOINTS: Final = tuple(sorted(route.value for route in ASKED))
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def owner(name: str) -> bytes:
    """How a tenant is named in a file."""
    return blake2b(name.encode(), digest_size=16).digest()


class KeptAnswers:
    """`most` records in each of two files in `directory`."""

    def __init__(self, directory: Path, *, key: bytes, evidence: bytes, most: int = MAX_ALL) -> None:
        self._key, self._most = key, most
        prefix = f"answers-{evidence.hex()[:16]}-"
        self._paths = [directory / f"{prefix}{number}" for number in (0, 1)]
        self._number, self._count, self._began = 0, most, 0  # the first record begins a file
        for path in directory.glob("answers-*"):
            if path not in self._paths:
                path.unlink()
        self._file: int | None = None

    def load(self) -> Iterator[tuple[bytes, Entry]]:
        """Owners and entries, the oldest first; then what is added goes on from there."""
        files = [self._read(path) for path in self._paths]
        if files[0] and files[1]:
            self._number = int(
                files[1][0][1].index > files[0][0][1].index
            )  # in the log: no clock can set it back
        else:
            self._number = int(not files[0])
        for number in (1 - self._number, self._number):
            yield from files[number]
        if newest := files[self._number]:
            count = os.path.getsize(self._paths[self._number]) // RECORD
            self._open(self._number, count, newest[0][1].served_at)

    def add(self, tenant: str, entry: Entry) -> None:
        """Raises MachineError when there is no room."""
        try:
            if self._count >= self._most or entry.served_at >= self._began + MAX_AGE:
                self._open(1 - self._number, 0, entry.served_at)
            content = _pack(owner(tenant), entry)
            assert self._file is not None
            if os.write(self._file, content + self._check(content)) != RECORD:
                os.ftruncate(self._file, self._count * RECORD)
                raise MachineError("receipts: no room for another one")
            self._count += 1
        except OSError as error:
            raise MachineError(f"receipts: {(error.strerror or 'failed').lower()}") from error

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self, number: int, count: int, began: int) -> None:
        """Go on in this file after `count` records. Where that fails, everything is as it was."""
        file = os.open(self._paths[number], _FLAGS, 0o600)
        try:
            os.ftruncate(file, count * RECORD)  # where a kill cut a write short
        except OSError:
            os.close(file)
            raise
        self.close()
        self._file, self._number, self._count, self._began = file, number, count, began

    def _read(self, path: Path) -> list[tuple[bytes, Entry]]:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return []
        found = list[tuple[bytes, Entry]]()
        for at in range(0, len(data) - RECORD + 1, RECORD):
            content = data[at : at + _LAYOUT.size]
            if data[at + _LAYOUT.size : at + RECORD] == self._check(content):
                found.append(_unpack(content))
        return found

    def _check(self, content: bytes) -> bytes:
        return blake2b(content, key=self._key, digest_size=_CHECK, person=b"answers").digest()


def _pack(owned_by: bytes, entry: Entry) -> bytes:
    return _LAYOUT.pack(
        bytes.fromhex(entry.id),
        owned_by,
        entry.served_at,
        entry.index,
        entry.complete * _COMPLETE | entry.stream * _STREAM,
        CACHES.index(entry.cache),
        _ENDPOINTS.index(entry.endpoint),
        entry.chat.encode()[:13],
        bytes.fromhex(entry.keyset_digest.removeprefix("sha256:")),
        entry.request_sha256,
        entry.forwarded_sha256,
        entry.response_sha256,
        entry.wire_sha256,
    )


def _unpack(content: bytes) -> tuple[bytes, Entry]:
    name, owned_by, served_at, index, bits, cache, endpoint, chat, keyset, *hashes = _LAYOUT.unpack(content)
    return owned_by, Entry(
        id=name.hex(),
        served_at=served_at,
        index=index,
        complete=bool(bits & _COMPLETE),
        stream=bool(bits & _STREAM),
        cache=CACHES[cache],
        endpoint=_ENDPOINTS[endpoint],
        chat=chat.rstrip(b"\0").decode(),
        keyset_digest=f"sha256:{keyset.hex()}",
        request_sha256=hashes[0],
        forwarded_sha256=hashes[1],
        response_sha256=hashes[2],
        wire_sha256=hashes[3],
    )
