"""Mirrors sidecars/proxy/receipts/stored.py: what a kill leaves, and what it cannot have left."""

import os
from pathlib import Path
from typing import Any

import pytest

from sidecars.proxy.receipts.stored import RECORD, StoredLog
from strongroom.errors import FormatError, MachineError
from strongroom.receipts.tree import Tree, leaf_hash

KEY = bytes(range(32))
HEIGHT = 3  # eight leaves a segment
LEAVES = [leaf_hash(bytes([n])) for n in range(100)]


def opened(directory: Path | None, *, keep: int = 1000, fresh: bytes = bytes(16)) -> StoredLog:
    return StoredLog(directory, key=KEY, fresh=fresh, keep=keep, height=HEIGHT)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "receipts"


def fill(directory: Path | None, count: int, *, keep: int = 1000) -> StoredLog:
    log = opened(directory, keep=keep)
    for leaf in LEAVES[log.tree.size : count]:
        log.append(leaf)
    log.close()
    return log


def expected(count: int) -> bytes:
    tree = Tree()
    for leaf in LEAVES[:count]:
        tree.append(leaf)
    return tree.head()


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 50])
def test_a_log_goes_on_where_it_was(directory: Path, count: int) -> None:
    for upto in range(0, count + 1, max(1, count // 4)):
        fill(directory, upto)
    fill(directory, count)
    log = opened(directory, fresh=b"\1" * 16)
    assert (log.tree.size, log.tree.head(), log.id) == (count, expected(count), bytes(16))
    assert log.append(LEAVES[count]) == count
    log.close()
    assert opened(directory).tree.head() == expected(count + 1)


def test_a_log_without_a_place_lives_in_memory() -> None:
    assert fill(None, 20).tree.head() == expected(20)


def test_only_its_owner_reads_it(directory: Path) -> None:
    fill(directory, 9)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o077 for path in directory.iterdir() if path.name.isdigit()] == [0, 0]


@pytest.mark.parametrize("count", [5, 8, 11, 16])
def test_what_a_kill_tore_is_cut_off(directory: Path, count: int) -> None:
    fill(directory, count)
    last = directory / str((count - 1) // 8)
    whole = last.read_bytes()
    for length in range(len(whole) - RECORD + 1, len(whole)):
        last.write_bytes(whole[:length])
        log = opened(directory)
        assert (log.tree.size, log.tree.head()) == (count - 1, expected(count - 1))
        log.append(LEAVES[count - 1])
        log.close()
        assert last.read_bytes() == whole


def test_a_last_record_that_does_not_check_is_cut_off(directory: Path) -> None:
    fill(directory, 5)
    last = directory / "0"
    whole = last.read_bytes()
    last.write_bytes(whole[:-1] + b"\0")
    assert opened(directory).tree.size == 4
    assert last.read_bytes() == whole[:-RECORD]


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("at", range(0, 4 * RECORD, 7))
def test_a_changed_record_is_damage(directory: Path, at: int) -> None:
    fill(directory, 5)
    path = directory / "0"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        MachineError, match=f"receipt log: record {at // RECORD} of 0 is not what was written"
    ):
        opened(directory)


@pytest.mark.guarantee("G12")
def test_records_have_one_place_in_one_log(directory: Path, tmp_path: Path) -> None:
    fill(directory, 20)
    first, second = (directory / "0").read_bytes(), (directory / "1").read_bytes()
    swapped = first[RECORD : 2 * RECORD] + first[:RECORD] + first[2 * RECORD :]
    for damage in (swapped, second):
        (directory / "0").write_bytes(damage)
        with pytest.raises(MachineError, match="not what was written"):
            opened(directory)
    (directory / "0").write_bytes(first)
    (directory / "id").write_bytes(b"\1" * 16)
    with pytest.raises(MachineError, match="not what was written"):
        opened(directory)
    (directory / "id").unlink()
    with pytest.raises(MachineError, match="lost its id"):
        opened(directory)


@pytest.mark.parametrize(("name", "why"), [("0", "a segment is missing"), ("1", "a segment is missing")])
def test_a_segment_that_is_gone_is_damage(directory: Path, name: str, why: str) -> None:
    fill(directory, 20)
    (directory / name).unlink()
    with pytest.raises(MachineError, match=why):
        opened(directory)


def test_a_segment_in_the_midst_is_whole(directory: Path) -> None:
    fill(directory, 20)
    os.truncate(directory / "1", 3 * RECORD)
    with pytest.raises(MachineError, match="segment 1 is not whole"):
        opened(directory)
    os.truncate(directory / "1", 3 * RECORD - 1)
    with pytest.raises(MachineError, match="not what was written"):
        opened(directory)


def test_it_keeps_what_it_should_and_proves_it(directory: Path) -> None:
    log = fill(directory, 70, keep=20)
    assert log.tree.first == 40 and sorted(p.name for p in directory.iterdir()) == [
        "5", "6", "7", "8", "id", "roots",
    ]  # fmt: skip
    again = opened(directory, keep=20)
    for one in (log, again):
        assert (one.tree.size, one.tree.head()) == (70, expected(70))
        assert one.tree.inclusion(69, 70) and one.tree.consistency(48, 70)
        with pytest.raises(FormatError, match="not kept"):
            one.tree.inclusion(39, 70)
    fewer = opened(directory, keep=1)
    assert (fewer.tree.first, fewer.tree.head()) == (56, expected(70))


def test_a_kill_while_forgetting_loses_nothing(directory: Path) -> None:
    fill(directory, 48, keep=1000)
    segment = (directory / "0").read_bytes()
    opened(directory, keep=20).close()
    assert not (directory / "0").exists()
    (directory / "0").write_bytes(segment)  # the root was written, the segment not yet gone
    assert opened(directory, keep=20).tree.head() == expected(48)
    assert not (directory / "0").exists()


def test_a_torn_root_is_written_again(directory: Path) -> None:
    fill(directory, 24, keep=1000)
    segment = (directory / "0").read_bytes()
    opened(directory, keep=16).close()
    roots = (directory / "roots").read_bytes()
    (directory / "0").write_bytes(segment)
    (directory / "roots").write_bytes(roots[: RECORD - 1])
    assert opened(directory, keep=16).tree.head() == expected(24)
    assert (directory / "roots").read_bytes() == roots


def test_a_full_disk_leaves_no_half_record(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(directory)
    log.append(LEAVES[0])
    whole = os.write

    def short(file: int, data: bytes) -> int:
        return whole(file, data[:10])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(MachineError, match="no room for another record"):
        log.append(LEAVES[1])
    monkeypatch.undo()
    assert log.append(LEAVES[1]) == 1
    log.close()
    assert opened(directory).tree.head() == expected(2)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "receipts").write_bytes(b"")
    with pytest.raises(MachineError, match="receipt log: "):
        opened(tmp_path / "receipts")


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("call", ["unlink", "open", "write"])
def test_a_leaf_is_in_the_log_though_old_ones_cannot_go(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    """What was appended is told as appended: else its receipt would be thought to be in no log."""
    log, real = opened(directory, keep=8), getattr(os, call)
    for leaf in LEAVES[:15]:
        log.append(leaf)

    def fails(what: Path | int, *more: Any) -> Any:
        name = Path(os.readlink(f"/proc/self/fd/{what}")) if isinstance(what, int) else what
        if name not in (directory / "0", directory / "roots"):
            return real(what, *more)
        if call == "write":
            return real(what, more[0][:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, call, fails)
        assert log.append(LEAVES[15]) == 15
    assert "old segments stay for now" in caplog.text
    assert (log.tree.size, log.tree.head()) == (16, expected(16))
    for leaf in LEAVES[16:24]:
        log.append(leaf)
    log.close()
    assert not (directory / "0").exists() and not (directory / "1").exists()
    again = opened(directory, keep=8)
    assert (again.tree.size, again.tree.head(), again.tree.first) == (24, expected(24), 16)
