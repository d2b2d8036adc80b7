"""A model pushed through the real receiving door: whole, cut, killed."""

import itertools
import os
import random
from pathlib import Path

import pytest

from strongroom.host import pushing
from strongroom.host.pushing import PushTree, _Bytes, push
from strongroom.push.answers import Missing, parse_answer
from strongroom.push.content import Span
from tests.fakes.cutting import cutting
from tests.fakes.provider import (
    EPOCH,
    PROVIDER,
    contents,
    everything,
    finish,
    offered,
    put,
    stored,
)
from tests.fakes.received import MODEL_KEY, NAME, Received, received
from tests.fakes.sealed import pattern


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


def test_connections_cut_at_random_points_cost_nothing_but_time(
    door: Received, tree: PushTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "BRISK", -1.0)
    monkeypatch.setattr(pushing, "FIRST_RANGE", 60_000)
    chance = random.Random(5)
    budgets = (chance.randrange(12_000, 400_000) for _ in itertools.count())
    with cutting("127.0.0.1", door.port, budgets) as between:
        accepted = push(lambda: door.connect(between.port), tree, PROVIDER, tries=100, pause=0.001)
    assert len(between.cuts) > 5
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
