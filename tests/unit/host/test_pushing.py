"""Mirrors strongroom/host/pushing.py: what a provider believes. tests/integration/push/ has the rest."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.errors import (
    ConfigError,
    FormatError,
    MachineError,
    PolicyError,
    ProtocolError,
    StrongroomError,
    TransportError,
)
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.host import pushing
from strongroom.host.attested import AttestedConnection
from strongroom.host.http1 import Limits
from strongroom.host.pushing import PushTree, check_waiting, push
from strongroom.push.answers import Accepted, Missing, pack_accepted, pack_next
from strongroom.push.content import Span
from strongroom.push.manifest import PlainFile
from strongroom.push.offer import provider_name, spki_of
from strongroom.wire.canonical import pack_json
from tests.fakes.received import events
from tests.fakes.sealed import make_source

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SPKI = spki_of(KEY.public_key())


@pytest.fixture
def tree(tmp_path: Path) -> PushTree:
    (tmp_path / "source").mkdir()
    make_source(tmp_path / "source")
    return PushTree.of(tmp_path / "source", name="tiny", epoch=3)


def test_a_tree_is_hashed_file_by_file(tree: PushTree) -> None:
    assert len(tree.manifest.files) == 6
    for file in tree.manifest.files:
        assert file.sha256 == sha256((tree.source / file.path).read_bytes()).digest()
    assert tree.content.size == sum(file.size for file in tree.manifest.files)


def test_what_cannot_be_sealed_cannot_be_pushed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="not in the tree"):
        PushTree.of(tmp_path, name="tiny", epoch=1)
    with pytest.raises(ConfigError, match="not a directory"):
        PushTree.of(tmp_path / "none", name="tiny", epoch=1)


def test_links_are_followed_where_asked(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"weights")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "model").symlink_to("../blob")
    tree = PushTree.of(tmp_path / "source", name="tiny", epoch=1, dereference=True)
    assert [type(entry) for entry in tree.manifest.entries] == [PlainFile]


# Whether this guest waits for us


def test_a_guest_that_waits_for_us_is_known_by_its_log() -> None:
    check_waiting(events(KEY), name="tiny", provider=SPKI)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda log: None, "waits for no push"),
        (lambda log: EventLog(log.events[:-1]), "waits for no push"),
        (lambda log: log.extend(Event("model", b"{}")), "has its model already"),
        (lambda log: log.extend(Event("boot-done", b"{}")), "has its model already"),
        (lambda log: events(KEY, name="other"), "waits for model 'other', want 'tiny'"),
        (lambda log: events(Ed25519PrivateKey.generate()), "takes no model from key"),
    ],
)
def test_any_other_guest_is_left_alone(change: Callable[[EventLog], EventLog | None], said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        check_waiting(change(events(KEY)), name="tiny", provider=SPKI)


def test_a_log_of_another_shape_is_refused() -> None:
    odd = EventLog().extend(Event("push", pack_json({"name": "tiny"})))
    with pytest.raises(FormatError, match="event push"):
        check_waiting(odd, name="tiny", provider=SPKI)


# A guest that misbehaves, over a connection made of its answers


class Guest:
    """Gives prepared answers, and remembers what it was asked."""

    def __init__(self, *answers: tuple[int, bytes] | bytes | StrongroomError) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, str, bytes]] = []
        claims = SimpleNamespace(events=events(KEY))
        self.examination = SimpleNamespace(channel=SimpleNamespace(claims=claims))

    def exporter(self, label: bytes, context: bytes) -> bytes:
        return sha256(label + context).digest()

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None, body: bytes, limits: Limits
    ) -> Any:
        self.asked.append((method, path, body))
        answer = self._answers.pop(0)
        if isinstance(answer, StrongroomError):
            raise answer
        status, said = answer if isinstance(answer, tuple) else (200, answer)
        return SimpleNamespace(status=status, read=lambda: said)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def accepted(tree: PushTree, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "name": "tiny",
        "epoch": 3,
        "root": bytes(32),
        "manifest_sha256": tree.manifest.digest,
        "provider_sha256": bytes.fromhex(provider_name(SPKI)),
    }
    return pack_accepted(Accepted(**(fields | changes)))


def pushed(tree: PushTree, *guests: Guest, tries: int = 3) -> Accepted:
    waiting = list(guests)
    return push(lambda: cast(AttestedConnection, waiting.pop(0)), tree, KEY, tries=tries, pause=0.0)


def wants(tree: PushTree, start: int = 0) -> bytes:
    return Missing((Span(start, tree.content.size),)).pack()


def test_an_honest_guest(tree: PushTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "FIRST_RANGE", half := tree.content.size // 2)
    guest = Guest(wants(tree), pack_next(half), pack_next(tree.content.size), accepted(tree))
    assert pushed(tree, guest).name == "tiny"
    assert [(method, path) for method, path, _ in guest.asked] == [
        ("PUT", "/v1/push/manifest"),
        ("PUT", "/v1/push/content?from=0"),
        ("PUT", f"/v1/push/content?from={half}"),
        ("POST", "/v1/push/finish"),
    ]


def test_only_what_is_missing_is_sent(tree: PushTree) -> None:
    size = tree.content.size
    spans = (Span(10, 20), Span(size - 5, size))
    guest = Guest(Missing(spans).pack(), pack_next(size - 5), pack_next(size), accepted(tree))
    pushed(tree, guest)
    whole = b"".join((tree.source / file.path).read_bytes() for file in tree.manifest.files)
    assert [body for _, path, body in guest.asked if "content" in path] == [whole[10:20], whole[-5:]]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"epoch": 4},
        {"manifest_sha256": bytes(32)},
        {"provider_sha256": bytes(32)},
    ],
)
def test_a_guest_that_accepted_something_else_is_not_believed(
    tree: PushTree, changes: dict[str, Any]
) -> None:
    with pytest.raises(ProtocolError, match="guest: accepted "):
        pushed(tree, Guest(accepted(tree, **changes)))


def test_a_guest_that_loses_count_is_not_believed(tree: PushTree) -> None:
    size = tree.content.size
    for answers in (
        (wants(tree), pack_next(1)),
        (wants(tree), accepted(tree)),
        (Missing((Span(0, size + 1),)).pack(),),
        (pack_next(0),),
        (wants(tree), pack_next(size), pack_next(size)),
    ):
        with pytest.raises(ProtocolError, match=r"^guest: "):
            pushed(tree, Guest(*answers))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, PolicyError), (403, PolicyError), (422, PolicyError), (507, MachineError), (404, ProtocolError)],
)
def test_a_no_is_a_no(tree: PushTree, status: int, kind: type[StrongroomError]) -> None:
    said = pack_json({"error": {"message": "because\nof that", "type": "x", "param": None, "code": "x"}})
    with pytest.raises(kind, match="because of that"):
        pushed(tree, Guest((status, said)))
    with pytest.raises(kind, match="no reason given"):
        pushed(tree, Guest((status, b"<html>")))


def test_only_transport_is_tried_again_and_not_for_ever(tree: PushTree) -> None:
    gone = TransportError("gone")
    pushed(tree, Guest(gone), Guest((503, b"")), Guest(accepted(tree)))
    with pytest.raises(TransportError, match="gone"):
        pushed(tree, *(Guest(gone) for _ in range(3)))


def test_a_new_byte_makes_up_for_every_failure(tree: PushTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "FIRST_RANGE", 100)
    monkeypatch.setattr(pushing, "BRISK", -1.0)
    gone, size = TransportError("gone"), tree.content.size
    tail = size - 1000
    guests = [Guest(wants(tree, tail + 100 * n), pack_next(tail + 100 * (n + 1)), gone) for n in range(9)]
    guests.append(Guest(wants(tree, size - 100), pack_next(size), accepted(tree)))
    assert pushed(tree, *guests, tries=2).name == "tiny"


def test_progress_counts_what_the_guest_had_already(tree: PushTree) -> None:
    shown: list[tuple[str, int]] = []
    size = tree.content.size

    def begin(verb: str, total: int) -> Callable[[int], None]:
        shown.append((verb, total))
        return lambda done: shown.append(("at", done))

    guest = Guest(wants(tree, size - 5), pack_next(size), accepted(tree))
    push(lambda: cast(AttestedConnection, guest), tree, KEY, begin=begin)
    assert shown == [("pushing", size), ("at", size)]


def test_a_file_that_vanished_is_told(tree: PushTree) -> None:
    (tree.source / "exact.bin").unlink()
    with pytest.raises(MachineError, match=r"exact\.bin: no such file"):
        pushed(tree, Guest(wants(tree)))
