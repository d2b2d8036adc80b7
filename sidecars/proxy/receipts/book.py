"""The book of one door: every answer gets a witness, every witness leaves a receipt in the log and with its owner.

A leaf goes into the log before its receipt is handed out, and what its receipt is made of is kept before that: no leaf
says that an answer was complete which then was not. The signature is made when somebody asks for it; a stream that
carries its receipt asks at its end.
"""

import re
import secrets
import time
from collections.abc import Sequence
from copy import copy
from hashlib import sha256
from pathlib import Path
from typing import Final

from sidecars.proxy.certify import ReceiptIdentity
from sidecars.proxy.ledger import Entry, Ledger
from sidecars.proxy.plan import Cache, Plan, Tenant
from sidecars.proxy.receipts.kept import KeptAnswers, owner
from sidecars.proxy.receipts.stored import StoredLog
from sidecars.proxy.routes import Route
from sidecars.proxy.tenants.roll import ANONYMOUS
from strongroom.errors import MachineError
from strongroom.evidence.collateral import Collateral
from strongroom.host.door.identity import TLSIdentity
from strongroom.receipts import aci, legacy
from strongroom.receipts.hashing import RECEIPT_COMMENT, StreamHash
from strongroom.receipts.keys import DoorKeys
from strongroom.receipts.log import Head, SignedHead, sign_head
from strongroom.receipts.receipt import LABEL, Letterhead, Receipt, SignedReceipt, sign
from strongroom.receipts.tree import leaf_hash
from strongroom.wire.canonical import b64u

RECEIPT_HEADER: Final = "x-strongroom-receipt"
DONE: Final = b"data: [DONE]\n\n"  # the end of a whole stream, and the only thing after its receipt
KEY_ID: Final = "receipt"  # in the keyset
DIRECTORY: Final = "receipts"  # below the door's own
_CHAT: Final = re.compile(r"([a-z]{2,12}-)([0-9a-f]{32})")
_PREFIX: Final = {
    Route.CHAT: "chatcmpl-",
    Route.COMPLETION: "cmpl-",
    Route.EMBEDDING: "embd-",
}  # in the engine's ids


class Book:
    """Whoever makes one tells it of the TLS identity by use_tls(), and again of every newer one."""

    def __init__(
        self, plan: Plan, keys: DoorKeys, identity: ReceiptIdentity, *, directory: Path | None = None
    ) -> None:
        """Raises MachineError when the log in `directory` is damaged."""
        self.plan, self.keys, self.identity = plan, keys, identity
        self.collateral: Collateral = identity.evidence.collateral  # the newest the agent gave
        self.keyset: aci.Keyset | None = None
        self.log = StoredLog(
            directory / DIRECTORY if directory is not None else None,
            key=keys.log,
            fresh=secrets.token_bytes(16),
            keep=plan.receipts.keep,
        )
        self.ledger = Ledger()
        self._kept: KeptAnswers | None = None
        if directory is not None:
            self._recall(directory / DIRECTORY)
        self._letterhead = Letterhead(
            model=plan.model, engine=plan.engine, evidence_sha256=identity.evidence.digest
        )
        self._key = b64u(identity.signer.key).encode()
        self._signed_head: SignedHead | None = None
        self._keyset_digest = ""

    def witness(
        self,
        *,
        id: str,
        route: Route,
        tenant: Tenant,
        received: bytes,
        forwarded: bytes,
        stream: bool = False,
    ) -> "Witness":
        """What sees the answer to a question, which came as `received` and went to the engine as `forwarded`."""
        return Witness(self, id=id, route=route, tenant=tenant, bodies=(received, forwarded), stream=stream)

    def use_tls(self, identity: TLSIdentity) -> None:
        """Say which TLS key clients see from now on: it is part of the keyset that aci/1 goes by."""
        self.keyset = aci.Keyset(
            subject=None,
            not_after=int(identity.not_after.timestamp()),
            receipt_key_id=KEY_ID,
            receipt_key=self.keys.receipt.public_key().public_bytes_raw(),
            tls=aci.TLSKey(spki_sha256=sha256(identity.spki).digest(), domain=self.plan.names[0]),
        )
        self._keyset_digest = self.keyset.digest

    def headers(self, id: str | None = None) -> Sequence[tuple[str, str]]:
        """What every response carries, and one that has a receipt."""
        found = [("x-aci-version", aci.VERSION), ("x-aci-keyset-digest", self._keyset_digest)]
        return found if id is None else [(RECEIPT_HEADER, id), ("x-receipt-id", id), *found]

    def find(self, tenant: Tenant, id: str) -> Entry | None:
        """What this tenant was answered within the last hour, by the receipt's id or the answer's own."""
        chat = _CHAT.fullmatch(id)
        entry = self.ledger.find(tenant, chat[2] if chat else id, now=time.time())
        if entry is None or (chat and entry.chat != chat[1]):
            return None
        return entry

    def receipt(self, entry: Entry) -> Receipt:
        return self._letterhead.receipt(entry)

    def signed(self, entry: Entry) -> SignedReceipt:
        """The receipt and its signature, which is made when it is first asked for."""
        receipt = self.receipt(entry)
        if entry.signature is None:
            entry.signature = sign(receipt, self.identity.signer).signature
        return SignedReceipt(receipt=receipt, signature=entry.signature, key=self.identity.signer.key)

    def legacy(self, entry: Entry, algorithm: str) -> legacy.LegacySignature:
        """dstack's signature over both bodies, made when it is first asked for."""
        if (made := entry.legacy.get(algorithm)) is None:
            key: legacy.Key = self.keys.ethereum if algorithm == legacy.ECDSA else self.keys.receipt
            made = legacy.sign(key, request=entry.request_sha256, response=entry.wire_sha256)
            entry.legacy[algorithm] = made
        return made

    def head(self) -> SignedHead:
        """A signed head of the log as it is now."""
        if self._signed_head is None or self._signed_head.head.size != self.log.tree.size:
            head = Head(
                log=self.log.id, size=self.log.tree.size, root=self.log.tree.head(), time=int(time.time())
            )
            self._signed_head = sign_head(head, self.identity.signer)
        return self._signed_head

    def signed_part(self, entry: Entry) -> bytes:
        """What its signature is over, and its leaf is made of."""
        return self._letterhead.signed_part(entry)

    def carried(self, entry: Entry, signed_part: bytes) -> bytes:
        """What signed(entry) is as canonical JSON, in a third of the time."""
        entry.signature = self.identity.signer.sign(signed_part)
        receipt, signature = signed_part[len(LABEL) :], b64u(entry.signature).encode()
        return b'{"key":"%b","receipt":%b,"signature":"%b"}' % (self._key, receipt, signature)

    def enter(self, tenant: Tenant, entry: Entry, signed_part: bytes) -> None:
        """Put it into the log, and hold it ready for its owner, also past the end of this process.

        MachineError when there is no room, or the clock stands before the evidence: then no log has it, and nobody.
        """
        self.identity.require_clock(entry.served_at)
        entry.keyset_digest, entry.index = self._keyset_digest, self.log.tree.size
        if self._kept is not None:
            self._kept.add(tenant.name, entry)
        self.log.append(leaf_hash(signed_part))
        self.ledger.keep(tenant, entry, now=time.time())

    def cache_class(self, tenant: Tenant) -> str:
        if self.plan.cache is Cache.REQUEST or not self.plan.tenants:
            return "request"
        return "user" if tenant.aggregator else "tenant"

    def close(self) -> None:
        self.log.close()
        if self._kept is not None:
            self._kept.close()

    def _recall(self, directory: Path) -> None:
        """What an earlier door of this boot answered within the last hour."""
        owners = {owner(tenant.name): tenant for tenant in (*self.plan.tenants, ANONYMOUS)}
        try:
            kept = KeptAnswers(directory, key=self.keys.log, evidence=self.identity.evidence.digest)
            # of two with one place in the log, the earlier was kept and never got there
            found = {entry.index: (owned_by, entry) for owned_by, entry in kept.load()}
            for owned_by, entry in found.values():
                if (tenant := owners.get(owned_by)) and entry.index < self.log.tree.size:
                    self.ledger.keep(tenant, entry, now=time.time())
        except OSError as error:
            raise MachineError(f"receipts: {(error.strerror or 'failed').lower()}") from error
        self._kept = kept


class Witness:
    """Sees both bodies of one exchange. Every byte of the answer's body goes through delivered(), comments too."""

    __slots__ = ("_bodies", "_book", "_entry", "_response", "_tenant", "_wire", "id", "route", "stream")

    def __init__(
        self, book: Book, *, id: str, route: Route, tenant: Tenant, bodies: tuple[bytes, bytes], stream: bool
    ) -> None:
        self.id, self.route, self.stream = id, route, stream
        self._book, self._tenant = book, tenant
        self._entry: Entry | None = None
        self._bodies = sha256(bodies[0]).digest(), sha256(bodies[1]).digest()
        self._wire = sha256()
        self._response = StreamHash() if stream else None

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """What the answer's head says of its receipt."""
        return self._book.headers(self.id)

    def delivered(self, data: bytes) -> None:
        """This was handed to the connection. Chunk sizes are no part of it, nor is what comes after the receipt."""
        if self._entry is None:
            self._wire.update(data)
            if self._response is not None:
                self._response.update(data)

    def receipt_comment(self, *, complete: bool = True) -> bytes:
        """The receipt as a comment, to be sent with DONE right after it and nothing else.

        Both are accounted for here. Not `complete` is a stream that reported a failure and then ended as others do.
        Raises MachineError when the log cannot take it.
        """
        if self._response is None or self._entry is not None:
            raise RuntimeError("a receipt comment is asked for once, of a stream")
        response, wire = _copied(self._response), self._wire.copy()
        response.update(DONE)  # in the copies: it goes out only where there is a receipt
        entry = self._entry_of(complete, response.digest())
        signed_part = self._book.signed_part(entry)
        comment = RECEIPT_COMMENT + self._book.carried(entry, signed_part) + b"\n\n"
        wire.update(comment + DONE)
        entry.wire_sha256 = wire.digest()
        self._enter(entry, signed_part)
        return comment

    def close(self, complete: bool, chat_id: str | None = None) -> None:
        """Nothing more will be delivered. Once there is a receipt this changes nothing.

        `chat_id` is the answer's own id, by default what the engine makes of ours. MachineError as above.
        """
        if self._entry is None:
            entry = self._entry_of(complete, None if self._response is None else self._response.digest())
            if chat_id is not None and (chat := _CHAT.fullmatch(chat_id)) and chat[2] == self.id:
                entry.chat = chat[1]
            self._enter(entry, self._book.signed_part(entry))

    def _enter(self, entry: Entry, signed_part: bytes) -> None:
        self._book.enter(self._tenant, entry, signed_part)
        self._entry = entry

    def _entry_of(self, complete: bool, response: bytes | None) -> Entry:
        wire = self._wire.digest()
        return Entry(
            id=self.id,
            served_at=int(time.time()),
            endpoint=self.route.value,
            complete=complete,
            stream=self.stream,
            cache=self._book.cache_class(self._tenant),
            request_sha256=self._bodies[0],
            forwarded_sha256=self._bodies[1],
            response_sha256=response or wire,
            wire_sha256=wire,
            chat=_PREFIX[self.route],
        )


def _copied(stream: StreamHash) -> StreamHash:
    other = copy(stream)
    other._hash = stream._hash.copy()  # noqa: SLF001 - a copy of the object shares it
    return other
