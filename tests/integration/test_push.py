"""A model pushed through the real receiving door: whole, cut, killed, tampered with, by strangers, by two."""

import itertools
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strongroom.cli.main import main
from strongroom.cli.secretfile import read_signing_key
from strongroom.errors import FormatError, PolicyError, ProtocolError, StrongroomError, TransportError
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.host import pushing
from strongroom.host.attested import AttestedConnection
from strongroom.host.pushing import PushTree, _Bytes, push
from strongroom.host.sealed.blocks import Room, count_blocks, open_block
from strongroom.host.sealed.tree import SealedStore
from strongroom.push.answers import Accepted, Missing, parse_answer
from strongroom.push.content import Span
from strongroom.push.manifest import PlainFile
from strongroom.push.offer import EXPORTER_LABEL, Offer
from strongroom.sealed.manifest import InlineFile
from strongroom.wire.canonical import pack_json
from tests.fakes.received import MODEL_KEY, NAME, Received, events, received
from tests.fakes.sealed import make_source, pattern

PROVIDER = Ed25519PrivateKey.from_private_bytes(bytes([5]) * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(bytes([6]) * 32)
EPOCH = 3


@pytest.fixture
def tree(tmp_path: Path) -> PushTree:
    source = tmp_path / "source"
    source.mkdir()
    make_source(source)
    (source / "big.safetensors").write_bytes(pattern(3_000_000, 8))
    return PushTree.of(source, name=NAME, epoch=EPOCH)


@pytest.fixture
def door(socket_dir: Path) -> Iterator[Received]:
    with received(socket_dir, provider=PROVIDER, others=[OTHER]) as (behind, _):
        yield behind


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


def test_a_model_is_pushed_accepted_and_told_to_the_agent(door: Received, tree: PushTree) -> None:
    accepted = push(door.connect, tree, PROVIDER)
    assert door.until_accepted() == accepted
    assert (accepted.name, accepted.epoch) == (NAME, EPOCH)
    assert accepted.manifest_sha256 == tree.manifest.digest
    assert stored(door, accepted) == contents(tree)
    assert any(status.startswith("waiting for a provider") for status in door.statuses)
    assert door.stop() == 0


@pytest.mark.guarantee("G22")
@pytest.mark.guarantee("G11")
def test_neither_key_nor_model_is_in_a_log_or_a_file(door: Received, tree: PushTree) -> None:
    push(door.connect, tree, PROVIDER)
    stored_bytes = b"".join(path.read_bytes() for path in door.dest.rglob("*") if path.is_file())
    for secret in (MODEL_KEY, *(content[:32] for content in contents(tree).values() if content)):
        assert secret not in stored_bytes
        assert secret not in door.log.encode()
    assert MODEL_KEY.hex() not in door.log
    assert "safetensors" not in door.log


def test_files_are_for_another_user_to_read(door: Received, tree: PushTree) -> None:
    push(door.connect, tree, PROVIDER)
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in door.dest.rglob("*"))


def test_a_killed_door_goes_on_with_the_files_that_were_whole(socket_dir: Path, tree: PushTree) -> None:
    data = everything(tree)
    with received(socket_dir, provider=PROVIDER) as (door, stack):
        with door.connect() as connection:
            assert offered(connection, tree).status == 200
            assert put(connection, 0, data[:3_200_000]).status == 200
        inodes = {path.name: path.stat().st_ino for path in (door.dest / "objects").iterdir()}
        assert len(inodes) == 2
        door.kill()
        door.start(stack)
        with door.connect() as connection:
            missing = parse_answer(offered(connection, tree).body)
        assert isinstance(missing, Missing)
        assert 0 < sum(map(len, missing.spans)) <= len(data) - 3_000_000
        accepted = push(door.connect, tree, PROVIDER)
        assert stored(door, accepted) == contents(tree)
        kept = {path.name: path.stat().st_ino for path in (door.dest / "objects").iterdir()}
        assert len(inodes.items() & kept.items()) == 1


def test_kills_in_the_middle_of_a_push_are_ridden_out(
    socket_dir: Path, tree: PushTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that knows nothing of it sees a push that takes longer."""
    monkeypatch.setattr(pushing, "FIRST_RANGE", 40_000)
    monkeypatch.setattr(pushing, "BRISK", -1.0)
    with received(socket_dir, provider=PROVIDER) as (door, stack):
        reads, kills = itertools.count(1), {3, 17, 40, 41, 70, 99}

        class Deadly(_Bytes):
            def read(self, span: Span) -> bytes:
                if next(reads) in kills:
                    door.kill()
                    door.start(stack)
                return super().read(span)

        monkeypatch.setattr(pushing, "_Bytes", Deadly)
        accepted = push(door.connect, tree, PROVIDER, pause=0.0)
        assert door.runs == 1 + len(kills)
        assert stored(door, accepted) == contents(tree)


@contextmanager
def cutting(port: int, chance: random.Random, most: int) -> Iterator[tuple[int, list[int]]]:
    """A port that leads to the door and breaks each connection after a random number of bytes, both sides at once."""
    cuts: list[int] = []

    def carry(client: socket.socket) -> None:
        budget = chance.randrange(12_000, most)
        with client, socket.create_connection(("127.0.0.1", port)) as server, suppress(OSError):
            back = threading.Thread(target=_pump, args=(server, client, None))
            back.start()
            if _pump(client, server, budget):
                cuts.append(budget)
                for end in (client, server):
                    end.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                    )  # a reset, no farewell
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
                client.shutdown(socket.SHUT_RDWR)
            back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=carry, args=(client,)))
                threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1], cuts
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for thread in threads:
                thread.join()


def _pump(source: socket.socket, target: socket.socket, budget: int | None) -> bool:
    """Whether the budget was used up before the source had nothing more."""
    with suppress(OSError):
        while data := source.recv(16_384):
            if budget is not None:
                data, budget = data[:budget], budget - len(data)
            target.sendall(data)
            if budget is not None and budget <= 0:
                return True
    return False


def test_connections_cut_at_random_points_cost_nothing_but_time(
    door: Received, tree: PushTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "BRISK", -1.0)
    monkeypatch.setattr(pushing, "FIRST_RANGE", 60_000)
    with cutting(door.port, random.Random(5), 400_000) as (port, cuts):
        accepted = push(lambda: door.connect(port), tree, PROVIDER, tries=100, pause=0.001)
    assert len(cuts) > 5
    assert stored(door, accepted) == contents(tree)
    assert door.door is not None
    assert door.door.status is None
    assert "defect" not in door.log


def test_a_lost_last_answer_is_told_again(door: Received, tree: PushTree) -> None:
    data = everything(tree)
    with door.connect() as connection:
        offered(connection, tree)
        put(connection, 0, data)
        first = parse_answer(finish(connection).body)
    with door.connect() as connection:  # as if that answer had been lost
        assert parse_answer(offered(connection, tree).body) == first
    assert door.until_accepted() == first


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


# The verb


def test_the_verb_makes_a_key_pushes_and_prints_the_root(
    socket_dir: Path, tmp_path: Path, tree: PushTree, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "provider.key"
    assert main(["push", "keygen", str(key), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert key.stat().st_mode & 0o777 == 0o600
    provider = read_signing_key(str(key))
    with received(socket_dir, provider=provider) as (door, _):
        assert made["public"] in door.config()["providers"]  # type: ignore[operator]
        command = ["push", door.url, str(tree.source), "--policy", str(door.policy_file()), "--key", str(key)]
        assert main([*command, "--name", NAME, "--epoch", str(EPOCH)]) == 0
        said = capsys.readouterr()
        accepted = door.until_accepted()
        assert f"root     {accepted.root.hex()}" in said.out.splitlines()
        assert "INSECURE-SIMULATED" in said.err
        assert main([*command, "--name", NAME, "--epoch", str(EPOCH), "--json"]) == 0  # told again
        assert json.loads(capsys.readouterr().out)["root"] == accepted.root.hex()
        assert stored(door, accepted) == contents(tree)


@pytest.mark.guarantee("G1")
def test_a_guest_the_policy_does_not_name_gets_nothing(
    door: Received, tmp_path: Path, tree: PushTree, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = json.loads(door.policy_file().read_text())
    policy["measurements"][0]["value"] = "00" * 48
    (tmp_path / "policy.yaml").write_text(json.dumps(policy))
    key = tmp_path / "provider.key"
    assert main(["push", "keygen", str(key)]) == 0
    command = [
        "push",
        door.url,
        str(tree.source),
        "--policy",
        str(tmp_path / "policy.yaml"),
        "--key",
        str(key),
    ]
    assert main([*command, "--name", NAME, "--epoch", "1"]) == PolicyError.exit_code
    assert "refused" in capsys.readouterr().err
    assert "offer" not in door.log
    assert left(door) == []


def test_the_serving_door_is_not_taken_for_it(door: Received) -> None:
    """A client that wants answers finds no receipt key here, and asks nothing."""
    with pytest.raises(FormatError, match="want exactly the keys channel, receipt_key"):
        AttestedConnection.open(
            door.url,
            policy=door.policy,
            roots=door.policy.roots,
            now=datetime.now(UTC),
        )


def test_the_doors_memory_is_bounded(door: Received, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.mkdir()
    with (source / "model.safetensors").open("wb") as file:
        for n in range(96):
            file.write(pattern(1 << 20, n))
    tree = PushTree.of(source, name=NAME, epoch=EPOCH)
    assert door.door is not None
    before = _peak(door.door.pid)
    push(door.connect, tree, PROVIDER)
    assert _peak(door.door.pid) - before < 32 << 20
    assert os.path.getsize(next((door.dest / "objects").iterdir())) == 96 << 20


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
