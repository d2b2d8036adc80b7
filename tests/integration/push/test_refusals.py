"""What a receiving door refuses: other bytes, other manifests, strangers, and who has no turn."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.errors import PolicyError, ProtocolError, StrongroomError, TransportError
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.host.pushing import PushTree, push
from strongroom.push.answers import Missing, parse_answer
from strongroom.push.content import Span
from strongroom.push.manifest import PlainFile
from strongroom.push.offer import EXPORTER_LABEL, Offer
from strongroom.wire.canonical import pack_json
from tests.fakes.provider import (
    EPOCH,
    OTHER,
    PROVIDER,
    ask,
    contents,
    everything,
    finish,
    left,
    offered,
    put,
    stored,
)
from tests.fakes.received import NAME, Received, events, received


@pytest.mark.guarantee("G22")
@pytest.mark.guarantee("G4")
def test_other_bytes_than_the_manifest_names_are_refused_and_nothing_stays(
    door: Received, tree: PushTree
) -> None:
    data = bytearray(everything(tree))
    for at in (0, 1_500_000, len(data) - 1):
        data[at] ^= 1
        with door.connect() as connection:
            assert offered(connection, tree).status == 200
            response = put(connection, 0, bytes(data))
            assert response.status == 422
            assert "sha256 is" in response.words
        assert left(door) == []
        data[at] ^= 1
    accepted = push(door.connect, tree, PROVIDER)  # and the door takes the right ones
    assert stored(door, accepted) == contents(tree)


def test_a_source_that_lies_is_told_in_a_sentence(door: Received, tree: PushTree) -> None:
    entries = tuple(
        replace(entry, sha256=bytes(32))
        if entry.path == "exact.bin" and isinstance(entry, PlainFile)
        else entry
        for entry in tree.manifest.entries
    )
    lying = PushTree(tree.source, replace(tree.manifest, entries=entries))
    with pytest.raises(PolicyError, match=r"guest: refused: exact.bin: sha256 is .*, want 0000"):
        push(door.connect, lying, PROVIDER)
    assert left(door) == []


def test_a_source_that_changes_is_no_fault_of_the_guest(door: Received, tree: PushTree) -> None:
    (tree.source / "exact.bin").write_bytes(b"short")
    with pytest.raises(StrongroomError, match=r"exact\.bin: changed while it was sealed"):
        push(door.connect, tree, PROVIDER)


def test_wrong_offsets_and_lengths_are_refused_and_the_turn_is_kept(door: Received, tree: PushTree) -> None:
    data = everything(tree)
    with door.connect() as connection:
        assert offered(connection, tree).status == 200
        for at, piece in ((1, b"x"), (len(data), b"x"), (0, data + b"x")):
            response = put(connection, at, piece)
            assert response.status == 409
            assert "want" in response.words
        assert put(connection, 0, data[:100]).body == b'{"next":100}'
        response = put(connection, 0, data[:100])  # the same again
        assert (response.status, "want the one from 100" in response.words) == (409, True)
        response = finish(connection)
        assert (response.status, response.words) == (409, f"{len(data) - 100} bytes are missing")
        assert put(connection, 100, data[100:]).status == 200


def test_manifests_that_must_not_be_are_refused(socket_dir: Path, tree: PushTree) -> None:
    manifest = tree.manifest
    wrong = [
        (replace(manifest, name="other"), "name is 'other', want 'tiny'"),
        (replace(manifest, entries=manifest.entries[:-1]), ""),
    ]
    with received(socket_dir, provider=PROVIDER, max_bytes=3_000_000) as (door, _):
        with door.connect() as connection:
            response = offered(connection, PushTree(tree.source, wrong[0][0]))
            assert (response.status, wrong[0][1] in response.words) == (422, True)
        with door.connect() as connection:
            response = offered(connection, tree)
            assert (response.status, "want at most 3000000" in response.words) == (422, True)
        with door.connect() as connection:  # signed for one, sent another
            digest = manifest.digest
            offer = Offer.sign(
                PROVIDER, manifest_sha256=digest, exporter=connection.exporter(EXPORTER_LABEL, digest)
            )
            headers = {"authorization": offer.header}
            response = ask(connection, "PUT", "/v1/push/manifest", headers, wrong[1][0].packed)
            assert (response.status, "want the offered" in response.words) == (422, True)
        assert left(door) == []


@pytest.mark.guarantee("G22")
@pytest.mark.guarantee("G7")
def test_an_offer_is_worth_nothing_on_another_connection(door: Received, tree: PushTree) -> None:
    digest = tree.manifest.digest
    with door.connect() as first, door.connect() as second:
        exporter = first.exporter(EXPORTER_LABEL, digest)
        headers = {"authorization": Offer.sign(PROVIDER, manifest_sha256=digest, exporter=exporter).header}
        response = ask(second, "PUT", "/v1/push/manifest", headers, tree.manifest.packed)
        assert (response.status, "does not verify over this connection" in response.words) == (403, True)
    assert left(door) == []


def test_strangers_get_evidence_and_nothing_else(door: Received, tree: PushTree) -> None:
    stranger = Ed25519PrivateKey.generate()
    with door.connect() as connection:
        response = offered(connection, tree, stranger)
        assert (response.status, "may not push" in response.words) == (403, True)
    for method, path, body, status in (
        ("PUT", "/v1/push/manifest", tree.manifest.packed, 401),
        ("PUT", "/v1/push/content?from=0", b"x", 409),
        ("POST", "/v1/push/finish", b"", 409),
        ("GET", "/v1/models", b"", 404),
        ("GET", "/v1/push/manifest", b"", 404),
        ("PUT", "/v1/push/manifest?x", b"x", 404),
        ("PUT", "/v1/push/content", b"x", 400),
        ("PUT", "/v1/push/content?from=-1", b"x", 400),
        ("PUT", "/v1/push/content?from=01", b"x", 400),
        ("PUT", "/v1/push/content?from=0", b"", 411),
        ("GET", "/.well-known/strongroom/evidence", b"", 400),
    ):
        with door.connect() as connection:
            assert ask(connection, method, path, body=body).status == status, path
    assert left(door) == []


def test_a_second_provider_waits_its_turn(door: Received, tree: PushTree) -> None:
    data = everything(tree)
    door.agent.events = events(PROVIDER)
    with door.connect() as first, door.connect() as second:
        assert offered(first, tree).status == 200
        assert put(first, 0, data[:1000]).status == 200
        response = offered(second, tree, OTHER)
        assert (response.status, response.words) == (409, "another provider is pushing a model")
        assert put(first, 1000, data[1000:]).status == 200  # and the first goes on
        assert finish(first).status == 200
    with door.connect() as third:
        response = offered(third, tree, OTHER)
        assert (response.status, response.words) == (409, "another model has been accepted")


def test_the_same_provider_takes_over_from_its_own_lost_connection(door: Received, tree: PushTree) -> None:
    data = everything(tree)
    with door.connect() as first:
        assert offered(first, tree).status == 200
        assert put(first, 0, data[:1000]).status == 200
        with door.connect() as second:
            missing = parse_answer(offered(second, tree).body)
            assert missing == Missing((Span(1000, len(data)),))
            with pytest.raises((TransportError, ProtocolError)):
                put(first, 1000, data[1000:2000])
            assert put(second, 1000, data[1000:]).status == 200


def test_the_same_provider_may_think_again(door: Received, tree: PushTree) -> None:
    with door.connect() as connection:
        assert offered(connection, tree).status == 200
        assert put(connection, 0, everything(tree)[:2_000_000]).status == 200
    (tree.source / "config.json").write_text("{}")
    again = PushTree.of(tree.source, name=NAME, epoch=EPOCH)
    accepted = push(door.connect, again, PROVIDER)
    assert accepted.manifest_sha256 == again.manifest.digest
    assert stored(door, accepted) == contents(again)


def test_a_guest_that_waits_for_nobody_of_ours_gets_nothing(door: Received, tree: PushTree) -> None:
    log = door.agent.events
    with received(door.directory / "other", provider=PROVIDER) as (other, stack):
        for said, others in (
            ("it takes no model from key", events(OTHER)),
            ("it waits for model 'other', want 'tiny'", events(PROVIDER, name="other")),
            ("it has its model already", log.extend(Event("model", pack_json({})))),
            ("it waits for no push", EventLog(log.events[:-1])),
        ):
            other.stop()
            other.agent.events = others
            other.start(stack)
            with pytest.raises(PolicyError, match=said):
                push(other.connect, tree, PROVIDER)
            assert "offer" not in other.log
            assert left(other) == []


def test_a_stop_in_the_middle_is_a_stop(door: Received, tree: PushTree) -> None:
    with door.connect() as connection:
        assert offered(connection, tree).status == 200
        assert put(connection, 0, everything(tree)[:2_000_000]).status == 200
        begun = time.monotonic()
        assert door.stop() == 0
        assert time.monotonic() - begun < 5
    assert "defect" not in door.log
    assert "JOURNAL" in left(door)


def test_a_place_nobody_may_write_to_is_one_line(socket_dir: Path) -> None:
    (socket_dir / "pushed").write_text("a file where a directory should be")
    with (
        pytest.raises(AssertionError, match=r"strongroom-receive: .*: (not a directory|file exists)"),
        received(socket_dir, provider=PROVIDER),
    ):
        pass
