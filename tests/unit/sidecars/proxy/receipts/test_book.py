"""Mirrors sidecars/proxy/receipts/book.py and answers.py: what is signed, who gets it, and what outlives a kill."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecars.proxy.plan import Plan
from sidecars.proxy.receipts import answers
from sidecars.proxy.receipts.book import DONE, Book, Witness
from sidecars.proxy.receipts.kept import RECORD
from sidecars.proxy.routes import Route
from sidecars.proxy.tenants.roll import ANONYMOUS
from strongroom.errors import FormatError, MachineError, VerifyError
from strongroom.host.door.refusal import Refusal
from strongroom.receipts import aci, envelope, legacy
from strongroom.receipts.hashing import StreamHash
from strongroom.receipts.log import Consistency, SignedHead, verify_head
from strongroom.receipts.receipt import verify
from strongroom.wire.canonical import pack_json, parse_json
from tests.fakes import book as fake
from tests.fakes.exchange import ENGINE, MODEL
from tests.fakes.silicon import roots, silicon

ID = "ab" * 16
CHAT = f"chatcmpl-{ID}"
ASKED, FORWARDED = b'{"messages":[]}', b'{"messages":[],"cache_salt":"x"}'
EVENTS = (b'data: {"a":1}\n\n', b'data: {"b":2}\n\n')
PLAN = fake.plan()
ANN, BOB = fake.tenant(PLAN), fake.tenant(PLAN, "bob")
ROOTS = roots(silicon())


def witness(book: Book, *, id: str = ID, stream: bool = False, route: Route = Route.CHAT) -> Witness:
    return book.witness(id=id, route=route, tenant=ANN, received=ASKED, forwarded=FORWARDED, stream=stream)


def streamed(book: Book, pieces: list[bytes], *, id: str = ID) -> bytes:
    """The whole body of a stream that carries its receipt."""
    one, body = witness(book, id=id, stream=True), b""
    for piece in pieces:
        one.delivered(piece)
        body += piece
    body += one.receipt_comment() + DONE
    one.delivered(DONE)  # counted already
    one.close(complete=True)
    return body


def whole(book: Book, body: bytes = b"{}", *, id: str = ID, complete: bool = True) -> None:
    one = witness(book, id=id)
    one.delivered(body)
    one.close(complete)


def file(book: Book, **options: Any) -> bytes:
    found = answers.receipt_answer(book, ANN, ID, **options)
    assert found is not None
    return found


def body_of(file: bytes) -> Any:
    return json.loads(file)["receipt"]


@pytest.mark.guarantee("G12")
def test_a_whole_answer_has_a_receipt() -> None:
    book = fake.book()
    whole(book, b'{"id":1}')
    receipt, claims = envelope.verify_envelope(file(book), roots=ROOTS, now=datetime.now(UTC))
    assert claims.simulated and (receipt.id, receipt.complete, receipt.stream) == (ID, True, False)
    assert (receipt.model, receipt.engine, receipt.cache) == (MODEL, ENGINE, "tenant")
    assert (receipt.endpoint, receipt.method) == ("/v1/chat/completions", "POST")
    receipt.require_bodies(
        request_sha256=sha256(ASKED).digest(), response_sha256=sha256(b'{"id":1}').digest()
    )


@pytest.mark.guarantee("G12")
def test_a_stream_carries_its_receipt() -> None:
    book = fake.book()
    body = streamed(book, [b": ping\n\n", *EVENTS])
    seen = StreamHash()
    seen.update(body)
    carried = envelope.from_stream(seen)
    assert seen.receipts == [pack_json(carried.to_json())]
    assert verify(carried, key=book.identity.spki).response_sha256 == seen.digest()
    assert seen.digest() == sha256(b"".join(EVENTS) + DONE).digest()
    assert carried.receipt.stream and carried.receipt.complete
    assert envelope.parse(file(book))[0] == carried


def check(stream: StreamHash, key: bytes) -> None:
    receipt = verify(envelope.from_stream(stream), key=key)
    receipt.require_bodies(request_sha256=sha256(ASKED).digest(), response_sha256=stream.digest())


@pytest.mark.guarantee("G12")
@settings(max_examples=50)
@given(st.lists(st.integers(0, 40), max_size=8), st.integers(0, 10_000))
def test_cuts_change_nothing_and_every_byte_counts(places: list[int], flip: int) -> None:
    body = b"".join(EVENTS)
    ends = sorted({min(place, len(body)) for place in places} | {len(body)})
    pieces = [body[low:high] for low, high in zip([0, *ends], ends, strict=False)]
    assert streamed(fake.book(), pieces)[: len(body)] == body
    book = fake.book()
    good = streamed(book, pieces)
    assert body_of(file(book))["response_sha256"] == sha256(body + DONE).hexdigest()
    at, bit = flip % len(good), 1 << flip % 8
    mutant = StreamHash()
    mutant.update(good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :])
    with pytest.raises((VerifyError, FormatError)):
        check(mutant, book.identity.spki)


@pytest.mark.guarantee("G12")
def test_a_cut_stream_has_a_receipt_that_says_so() -> None:
    book = fake.book()
    one = witness(book, stream=True)
    one.delivered(EVENTS[0] + b": ping\n\n")
    one.close(complete=False)
    said = body_of(file(book))
    assert (said["complete"], said["stream"]) == (False, True)
    assert said["response_sha256"] == sha256(EVENTS[0]).hexdigest()
    assert answers.signature_answer(book, ANN, ID) is None
    assert answers.aci_answer(book, ANN, ID) is None


def test_a_stream_that_reported_a_failure_carries_a_receipt_that_says_so() -> None:
    book = fake.book()
    one = witness(book, stream=True)
    one.delivered(EVENTS[0])
    assert b'"complete":false' in one.receipt_comment(complete=False)
    one.close(complete=True)
    assert body_of(file(book))["complete"] is False


def test_there_is_one_receipt_however_often_it_is_closed() -> None:
    book = fake.book()
    body = streamed(book, [*EVENTS])
    one = witness(book, id="cd" * 16)
    one.close(complete=False)
    one.close(complete=True)
    one.delivered(b"more")
    assert book.log.tree.size == 2 and body
    found = book.find(ANN, "cd" * 16)
    assert found is not None and not found.complete and found.response_sha256 == sha256(b"").digest()


@pytest.mark.parametrize("stream", [False, True])
def test_a_receipt_comment_is_asked_for_once_and_of_a_stream(stream: bool) -> None:
    one = witness(fake.book(), stream=stream)
    if stream:
        one.receipt_comment()
    with pytest.raises(RuntimeError):
        one.receipt_comment()


@pytest.mark.parametrize(
    ("change", "cache"),
    [
        ({}, "tenant"),
        ({"cache": "request"}, "request"),
        ({"tenants": []}, "request"),
        ({"tenants": [{"name": "ann", "token_sha256": "00" * 32, "aggregator": True}]}, "user"),
    ],
)
def test_whose_cache_it_was(change: dict[str, Any], cache: str) -> None:
    plan = fake.plan(**change)
    asker = plan.tenants[0] if plan.tenants else ANONYMOUS
    book = fake.book(plan)
    one = book.witness(id=ID, route=Route.CHAT, tenant=asker, received=b"", forwarded=b"")
    one.close(complete=True)
    found = book.find(asker, ID)
    assert found is not None and found.cache == cache


@pytest.mark.parametrize("ask", ["receipt", "signature", "aci"])
def test_only_the_owner_may_fetch(ask: str) -> None:
    book = fake.book()
    whole(book)
    fetch = getattr(answers, f"{ask}_answer")
    assert fetch(book, ANN, ID) is not None
    assert fetch(book, BOB, ID) is None
    assert fetch(book, ANN, "cd" * 16) is None


def test_an_answers_own_id_finds_it_too() -> None:
    book = fake.book()
    whole(book)
    assert book.find(ANN, CHAT) is not None
    assert book.find(ANN, f"cmpl-{ID}") is None
    one = witness(book, id="cd" * 16, route=Route.COMPLETION)
    one.close(True, chat_id=f"resp-{'cd' * 16}")
    assert book.find(ANN, f"resp-{'cd' * 16}") is not None
    other = witness(book, id="ef" * 16)
    other.close(True, chat_id=f"resp-{'cd' * 16}")  # not an id of this answer
    assert book.find(ANN, f"chatcmpl-{'ef' * 16}") is not None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("algorithm", ["", "ecdsa", "ed25519"])
def test_dstacks_signature_is_over_every_byte(stream: bool, algorithm: str) -> None:
    book = fake.book()
    body = streamed(book, [b": pad\n\n", *EVENTS]) if stream else b"{}"
    if not stream:
        whole(book, body)
    raw = answers.signature_answer(book, ANN, CHAT, algorithm)
    assert raw is not None and raw == answers.signature_answer(book, ANN, CHAT, algorithm)
    key: legacy.Key = fake.KEYS.receipt if algorithm == "ed25519" else fake.KEYS.ethereum
    legacy.verify(
        legacy.LegacySignature.from_json(parse_json(raw, "signature")),
        request=sha256(ASKED).digest(),
        response=sha256(body).digest(),
        signing_address=legacy.address(key),
    )


def test_other_algorithms_are_refused() -> None:
    book = fake.book()
    whole(book)
    with pytest.raises(Refusal) as caught:
        answers.signature_answer(book, ANN, ID, "rsa")
    assert (caught.value.status, caught.value.code) == (400, "invalid_signing_algo")


def test_an_aci_receipt_verifies_under_the_keyset() -> None:
    book = fake.book()
    body = streamed(book, [*EVENTS])
    raw = answers.aci_answer(book, ANN, CHAT)
    assert raw is not None and book.keyset is not None
    found = aci.ACIReceipt.from_json(parse_json(raw, "receipt"))
    aci.verify(found, keyset=book.keyset)
    assert (found.receipt_id, found.chat_id, found.model) == (ID, CHAT, MODEL.name)
    assert [(step.type, step.body_hash) for step in found.event_log[:3]] == [
        ("request.received", aci.hashed(ASKED)),
        ("request.forwarded", aci.hashed(FORWARDED)),
        ("response.returned", aci.hashed(body)),
    ]
    assert found.event_log[3].body_hash == aci.hashed(envelope.parse(file(book))[0].receipt.signed_part)


def test_a_receipt_stays_with_the_keyset_it_was_made_under() -> None:
    book = fake.book()
    whole(book)
    before = book.keyset
    book.use_tls(fake.tls(b"another"))
    raw = answers.aci_answer(book, ANN, ID)
    assert raw is not None and before is not None and book.keyset != before
    aci.verify(aci.ACIReceipt.from_json(parse_json(raw, "receipt")), keyset=before)
    assert ("x-aci-keyset-digest", book.keyset.digest if book.keyset else "") in book.headers()


def test_headers() -> None:
    book = fake.book()
    assert [name for name, _ in book.headers()] == ["x-aci-version", "x-aci-keyset-digest"]
    assert witness(book).headers == book.headers(ID)
    assert dict(book.headers(ID))["x-receipt-id"] == dict(book.headers(ID))["x-strongroom-receipt"] == ID


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("hybrid", [False, True])
def test_a_receipt_is_proven_to_be_in_the_log(hybrid: bool) -> None:
    book = fake.book(fake.plan(receipts={"hybrid": hybrid}))
    for number in range(5):
        whole(book, id=f"{number:032x}")
    whole(book)
    first = SignedHead.from_json(parse_json(answers.head_answer(book), "head"))
    raw = file(book, proof=True)
    envelope.verify_envelope(raw, roots=ROOTS, now=datetime.now(UTC))
    proof = envelope.parse_proof(raw)
    assert proof is not None and (proof.index, proof.head) == (5, first)
    for number in range(10, 15):
        whole(book, id=f"{number:032x}")
    second = SignedHead.from_json(parse_json(answers.head_answer(book), "head"))
    between = Consistency.from_json(parse_json(answers.consistency_answer(book, 6, 11), "proof"))
    between.require(*(verify_head(head, key=book.identity.spki) for head in (first, second)))
    changed = raw.replace(b'"index":5', b'"index":4')
    with pytest.raises(VerifyError, match="log: "):
        envelope.verify_envelope(changed, roots=ROOTS, now=datetime.now(UTC))


@pytest.mark.parametrize("sizes", [(0, 4), (3, 2), (1, 4), (4, 4)])
def test_sizes_the_log_never_had(sizes: tuple[int, int]) -> None:
    book = fake.book()
    for number in range(3):
        whole(book, id=f"{number:032x}")
    with pytest.raises(Refusal) as caught:
        answers.consistency_answer(book, *sizes)
    assert caught.value.status == 404
    assert json.loads(answers.consistency_answer(book, 0, 3))["path"] == []


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("at", ["receipt", "proof"])
def test_a_hybrid_file_refuses_a_change_of_either_half(at: str) -> None:
    book = fake.book(fake.plan(receipts={"hybrid": True}))
    whole(book)
    value = json.loads(file(book, proof=True))
    signed = value if at == "receipt" else value["proof"]["head"]
    text = signed["signature"]
    signed["signature"] = text[:2000] + ("A" if text[2000] != "A" else "B") + text[2001:]
    with pytest.raises(VerifyError, match="signature does not match"):
        envelope.verify_envelope(json.dumps(value).encode(), roots=ROOTS, now=datetime.now(UTC))


@pytest.mark.guarantee("G12")
def test_what_was_answered_outlives_the_process(tmp_path: Path) -> None:
    book = fake.book(directory=tmp_path)
    body = streamed(book, [*EVENTS])
    whole(book, b"[]", id="cd" * 16, complete=False)
    before = {
        ask: getattr(answers, f"{ask}_answer")(book, ANN, ID) for ask in ("receipt", "signature", "aci")
    }
    head = book.head().head
    again = fake.book(directory=tmp_path)  # nothing was closed: as after kill -9
    assert {ask: getattr(answers, f"{ask}_answer")(again, ANN, ID) for ask in before} == before and body
    assert (again.head().head.log, again.head().head.root) == (head.log, head.root)
    assert answers.receipt_answer(again, BOB, ID) is None
    cut = again.find(ANN, "cd" * 16)
    assert cut is not None and not cut.complete and cut.index == 1
    assert verify_head(again.head(), key=book.identity.spki).size == 2
    again.close()
    book.close()


def test_other_evidence_makes_no_old_receipts(tmp_path: Path) -> None:
    book = fake.book(directory=tmp_path)
    whole(book)
    book.close()
    other = fake.book(directory=tmp_path, evidence=fake.evidence(b"another key"))
    assert other.find(ANN, ID) is None and other.log.tree.size == 1
    other.close()


@pytest.mark.parametrize("cut", [1, RECORD - 1, RECORD])
def test_a_torn_record_costs_one_receipt(tmp_path: Path, cut: int) -> None:
    book = fake.book(directory=tmp_path)
    whole(book)
    whole(book, id="cd" * 16)
    book.close()
    (path,) = (tmp_path / "receipts").glob("answers-*")
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    again = fake.book(directory=tmp_path)
    assert again.find(ANN, ID) is not None and again.find(ANN, "cd" * 16) is None
    whole(again, id="ef" * 16)
    again.close()
    third = fake.book(directory=tmp_path)
    assert third.find(ANN, "ef" * 16) is not None and third.find(ANN, ID) is not None
    third.close()


@pytest.mark.guarantee("G14")
def test_no_file_holds_anything_of_what_was_said(tmp_path: Path) -> None:
    book = fake.book(directory=tmp_path)
    marker = b"correct horse battery staple"
    one = book.witness(id=ID, route=Route.CHAT, tenant=ANN, received=marker, forwarded=marker)
    one.delivered(marker)
    one.close(complete=True)
    book.close()
    for path in (tmp_path / "receipts").iterdir():
        data = path.read_bytes()
        assert marker not in data and b"ann" not in data


def test_a_log_without_room_gives_no_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = fake.book(directory=tmp_path)
    monkeypatch.setattr("os.write", lambda file, data: 3)
    for stream in (False, True):
        one = witness(book, stream=stream)
        with pytest.raises(MachineError, match="no room"):
            one.receipt_comment() if stream else one.close(complete=True)
    assert book.find(ANN, ID) is None
    book.close()


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_log_did_not_take_is_nobodys_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    book = fake.book(directory=tmp_path)
    lost = witness(book, stream=stream)
    lost.delivered(EVENTS[0])
    with monkeypatch.context() as patch:
        patch.setattr(book.log, "append", _full)
        with pytest.raises(MachineError, match="no room"):
            lost.receipt_comment() if stream else lost.close(complete=True)
    assert book.find(ANN, ID) is None and book.log.tree.size == 0
    whole(book, id="cd" * 16)  # takes the place in the log that the other was kept for
    again = fake.book(directory=tmp_path)
    assert again.find(ANN, ID) is None and again.find(ANN, "cd" * 16) is not None
    again.close()
    lost.close(complete=False)
    said = body_of(file(book))
    assert said["complete"] is False and said["response_sha256"] == sha256(EVENTS[0]).hexdigest()
    book.close()


@pytest.mark.guarantee("G12")
def test_what_cannot_be_kept_is_in_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = fake.book(directory=tmp_path)
    one = witness(book, stream=True)
    with monkeypatch.context() as patch:
        patch.setattr("sidecars.proxy.receipts.kept.KeptAnswers.add", lambda *_: _full(b""))
        with pytest.raises(MachineError, match="no room"):
            one.receipt_comment()
    assert book.log.tree.size == 0
    book.close()


def _full(_: bytes) -> int:
    raise MachineError("receipt log: no room for another record")


def plans() -> list[Plan]:
    return [fake.plan(), fake.plan(receipts={"hybrid": True})]


@pytest.mark.parametrize("plan", plans())
def test_a_file_is_small_enough_to_be_read(plan: Plan) -> None:
    book = fake.book(plan)
    whole(book)
    assert len(file(book, proof=True)) < envelope.MAX_BYTES
