"""What is answered about receipts, as bytes of JSON; None where there is nothing for whoever asks (404).

    /v1/receipts/{id}                      receipt_answer      the receipt file, ?proof=1 with its place in the log
    /v1/receipts/log/head                  head_answer         a signed head
    /v1/receipts/log/consistency           consistency_answer  ?first=&second= sizes, the proof between them
    /v1/signature/{answer's id}            signature_answer    dstack's vllm-proxy, ?signing_algo=
    /v1/aci/receipts/{id or answer's id}   aci_answer          aci/1

The first and the last two are for the tenant that was answered, and for nobody else.
"""

from dataclasses import replace
from typing import Final

from sidecars.proxy.ledger import Entry
from sidecars.proxy.plan import Tenant
from sidecars.proxy.receipts.book import KEY_ID, Book
from strongroom.errors import FormatError
from strongroom.host.door.refusal import Refusal
from strongroom.receipts import aci, envelope, legacy
from strongroom.receipts.log import Consistency, Inclusion
from strongroom.wire.canonical import JSON, pack_json

OURS: Final = "strongroom.receipt"  # the step of an aci/1 receipt that names our own one


def receipt_answer(book: Book, tenant: Tenant, id: str, *, proof: bool = False) -> bytes | None:
    """The receipt file (docs/formats/receipt.md), with the newest collateral there is."""
    if (entry := book.find(tenant, id)) is None:
        return None
    return envelope.pack(
        book.signed(entry),
        not_before=book.identity.not_before,
        evidence=replace(book.identity.evidence, collateral=book.collateral),
        proof=_inclusion(book, entry) if proof else None,
    )


def head_answer(book: Book) -> bytes:
    return pack_json(book.head().to_json())


def consistency_answer(book: Book, first: int, second: int) -> bytes:
    """Refusal 404 for sizes that the log has not, or of which it kept too little."""
    try:
        path = book.log.tree.consistency(first, second) if first else []
    except FormatError:
        raise Refusal(404, "not_found", "the log has no proof between these sizes") from None
    if second > book.log.tree.size:
        raise Refusal(404, "not_found", "the log has not grown to this size")
    return pack_json(Consistency(first=first, second=second, path=tuple(path)).to_json())


def signature_answer(book: Book, tenant: Tenant, id: str, algorithm: str = "") -> bytes | None:
    """dstack's signature over SHA-256 of the request and of every byte of the answer's body; ecdsa by default.

    A cut answer has none: this form cannot say that it was cut.
    """
    entry = book.find(tenant, id)
    if entry is None or not entry.complete:
        return None
    if (algorithm := algorithm or legacy.ECDSA) not in (legacy.ECDSA, legacy.ED25519):
        raise Refusal(400, "invalid_signing_algo", "want ecdsa or ed25519", param="signing_algo")
    return pack_json(book.legacy(entry, algorithm).to_json())


def aci_answer(book: Book, tenant: Tenant, id: str) -> bytes | None:
    """The receipt in aci/1. A cut answer has none: this form cannot say that it was cut."""
    entry = book.find(tenant, id)
    if entry is None or not entry.complete:
        return None
    receipt = book.receipt(entry)
    steps = (
        _step(aci.RECEIVED, entry.request_sha256),
        _step(aci.FORWARDED, entry.forwarded_sha256),
        _step(aci.RETURNED, entry.wire_sha256),
        aci.Step(type=OURS, body_hash=aci.hashed(receipt.signed_part)),
    )
    made = aci.ACIReceipt(
        receipt_id=entry.id,
        chat_id=entry.chat + entry.id if entry.chat else None,
        model=receipt.model.name,
        workload_keyset_digest=entry.keyset_digest,
        endpoint=receipt.endpoint,
        method=receipt.method,
        served_at=receipt.served_at,
        event_log=steps,
        key_id=KEY_ID,
    )
    return pack_json(aci.sign(made, book.keys.receipt).to_json())


def _step(type: str, sha256: bytes) -> aci.Step:
    return aci.Step(type=type, body_hash=f"sha256:{sha256.hex()}")


def _inclusion(book: Book, entry: Entry) -> JSON:
    head = book.head()
    try:
        path = book.log.tree.inclusion(entry.index, head.head.size)
    except FormatError:
        raise Refusal(404, "not_found", "the log keeps no proof of this receipt any more") from None
    return Inclusion(head=head, index=entry.index, path=tuple(path)).to_json()
