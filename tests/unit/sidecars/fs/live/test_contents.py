"""The content of one file against a plain bytearray; cut, full and failing stores."""

import contextlib
import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecars.fs.live.contents import Content
from sidecars.fs.live.intents import Intents, Workspace
from strongroom.errors import FormatError, MachineError, VerifyError
from strongroom.sealed.gocryptfs.config import Cipher
from strongroom.sealed.gocryptfs.content import BLOCK, ContentCipher
from tests.fakes.sealed import pattern

CIPHERS = {
    cipher: ContentCipher(bytes(range(64 if cipher is Cipher.AES_SIV else 32)), cipher) for cipher in Cipher
}
GCM = CIPHERS[Cipher.AES_GCM]
PUNCH, ZERO, KEEP = 3, 16, 1


@pytest.fixture(scope="module")
def intents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Intents]:
    with Intents.open(tmp_path_factory.mktemp("intents") / "file", count=2) as opened:
        yield opened


@pytest.fixture
def work(intents: Intents) -> Iterator[Workspace]:
    taken = intents.take()
    yield taken
    intents.give(taken)


def content_at(path: Path, cipher: ContentCipher = GCM) -> Content:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    status = os.fstat(fd)
    return Content(fd, (status.st_dev, status.st_ino), cipher, writable=True, shared=False)


@pytest.fixture
def content(tmp_path: Path) -> Iterator[Content]:
    made = content_at(tmp_path / "object")
    yield made
    os.close(made.fd)


def everything(content: Content, work: Workspace) -> bytes:
    out, offset = memoryview(bytearray(1 << 20)), 0
    pieces = []
    while got := content.read_into(out, offset, work):
        pieces.append(bytes(out[:got]))
        offset += got
    return b"".join(pieces)


def write(content: Content, data: bytes, offset: int, work: Workspace) -> int:
    return content.write(memoryview(data), offset, work)


OFFSETS = st.one_of(
    st.integers(0, 5 * BLOCK), st.sampled_from([0, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 9 * BLOCK])
)
STEPS = st.one_of(
    st.tuples(st.just("write"), OFFSETS, st.integers(1, 3 * BLOCK)),
    st.tuples(st.just("truncate"), OFFSETS, st.just(0)),
    st.tuples(
        st.sampled_from(["punch", "zero", "keep", "reserve", "grow"]), OFFSETS, st.integers(1, 4 * BLOCK)
    ),
)
MODES = {"punch": PUNCH, "zero": ZERO, "keep": ZERO | KEEP, "reserve": KEEP, "grow": 0}


@pytest.mark.parametrize("cipher", list(Cipher))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=12))
def test_as_a_plain_file(
    tmp_path: Path, work: Workspace, cipher: Cipher, steps: list[tuple[str, int, int]]
) -> None:
    path = tmp_path / f"object-{cipher.name}"
    path.unlink(missing_ok=True)
    content, want = content_at(path, CIPHERS[cipher]), bytearray()
    try:
        for number, (what, offset, length) in enumerate(steps):
            end = offset + length
            if what == "write":
                assert write(content, pattern(length, number), offset, work) == length
                want.extend(bytes(max(0, offset - len(want))))
                want[offset:end] = pattern(length, number)
            elif what == "truncate":
                content.truncate(offset, work)
                want = (want + bytes(max(0, offset - len(want))))[:offset]
            else:
                content.allocate(MODES[what], offset, length, work)
                if what in ("punch", "zero", "keep"):
                    clipped = min(end, len(want))
                    want[offset:clipped] = bytes(max(0, clipped - offset))
                if what in ("zero", "grow"):
                    want.extend(bytes(max(0, end - len(want))))
            assert everything(content, work) == want
            assert path.stat().st_size == CIPHERS[cipher].cipher_size(len(want)) or not want
        fresh = content_at(path, CIPHERS[cipher])
        assert everything(fresh, work) == want
        os.close(fresh.fd)
    finally:
        os.close(content.fd)


def test_reads_of_any_part(content: Content, work: Workspace) -> None:
    plain = pattern(3 * BLOCK + 100, 1)
    write(content, plain, 0, work)
    choice = random.Random(1)
    for _ in range(300):
        offset, size = choice.randrange(4 * BLOCK), choice.randrange(1, 3 * BLOCK)
        out = memoryview(bytearray(size))
        got = content.read_into(out, offset, work)
        assert bytes(out[:got]) == plain[offset : offset + size]


def test_the_largest_write_at_any_offset(content: Content, work: Workspace) -> None:
    for offset in (0, 1, BLOCK, 5 * BLOCK + 4095):
        assert write(content, pattern(1 << 20, offset), offset, work) == 1 << 20
    assert everything(content, work)[5 * BLOCK + 4095 :] == pattern(1 << 20, 5 * BLOCK + 4095)


def test_no_nonce_is_used_twice(content: Content, work: Workspace, tmp_path: Path) -> None:
    seen = set[bytes]()
    for _ in range(5):
        write(content, bytes(3 * BLOCK), 0, work)
        sealed = (tmp_path / "object").read_bytes()
        seen |= {sealed[18 + at * 4128 :][:16] for at in range(3)}
    assert len(seen) == 15


def test_too_large(content: Content, work: Workspace) -> None:
    for act in (
        lambda: write(content, b"x", 1 << 60, work),
        lambda: content.truncate((1 << 60) + 1, work),
        lambda: content.allocate(0, 1 << 60, 1, work),
    ):
        with pytest.raises(OSError, match=f"Errno {errno.EFBIG}"):
            act()
    with pytest.raises(OSError, match=f"Errno {errno.EOPNOTSUPP}"):
        content.allocate(8, 0, BLOCK, work)


def test_every_bit_counts(content: Content, work: Workspace, tmp_path: Path) -> None:
    write(content, pattern(BLOCK + 10, 1), 0, work)
    path, out = tmp_path / "object", memoryview(bytearray(2 * BLOCK))
    sound = path.read_bytes()
    for at in [*range(18), *range(18, len(sound), 97), len(sound) - 1]:
        changed = bytearray(sound)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        with pytest.raises((VerifyError, FormatError)):
            content_at(path).read_into(out, 0, work)
    path.write_bytes(sound)
    for length in range(1, len(sound), 13):
        path.write_bytes(sound[:length])
        fresh = content_at(path)
        try:
            got = fresh.read_into(out, 0, work)
        except (VerifyError, FormatError):
            continue
        finally:
            os.close(fresh.fd)
        assert length in (18, 18 + 4128)  # nothing, or the first block: the bare format cannot tell
        assert bytes(out[:got]) == pattern(BLOCK + 10, 1)[:got]


def test_a_block_that_does_not_verify_is_not_built_upon(
    content: Content, work: Workspace, tmp_path: Path
) -> None:
    write(content, pattern(3 * BLOCK, 1), 0, work)
    with (tmp_path / "object").open("r+b") as file:
        file.seek(18 + 4128 + 100)
        file.write(b"\xff\xfe\xfd")
    before = (tmp_path / "object").read_bytes()
    for act in (
        lambda: write(content, b"x", BLOCK + 5, work),
        lambda: content.truncate(BLOCK + 5, work),
        lambda: content.allocate(PUNCH, BLOCK + 5, 10, work),
    ):
        with pytest.raises(VerifyError, match="block 1: tag does not verify"):
            act()
    assert (tmp_path / "object").read_bytes() == before


# A store that becomes full at any byte of any write


class Full:
    """os.pwrite on a disk with so many bytes left; what lies inside the file has its room."""

    def __init__(self, room: int) -> None:
        self.room, self.pwrite = room, os.pwrite

    def __call__(self, fd: int, data: bytes, offset: int) -> int:
        inside = max(0, os.fstat(fd).st_size - offset)
        take = min(len(data), inside + self.room)
        if not take and data:
            raise OSError(errno.ENOSPC, "full")
        self.room -= max(0, take - inside)
        return self.pwrite(fd, memoryview(data)[:take], offset)


@pytest.mark.parametrize("before", [0, 100, BLOCK, BLOCK + 100])
@pytest.mark.parametrize("at_end", [0, -50, 5000])
def test_a_full_store_keeps_whole_blocks(
    tmp_path: Path, work: Workspace, monkeypatch: pytest.MonkeyPatch, before: int, at_end: int
) -> None:
    """Whatever the room, what write() said was taken is there, the rest is as it was, and all of it verifies."""
    offset = max(0, before + at_end)
    for room in [*range(0, 40, 3), *range(4000, 4200, 7), 8200, 8274, 8275, 9000, 12000, 12402, 20000]:
        path = tmp_path / "object"
        path.unlink(missing_ok=True)
        content = content_at(path)
        if before:
            write(content, pattern(before, 1), 0, work)
        monkeypatch.setattr(os, "pwrite", Full(room))
        data, taken = pattern(2 * BLOCK + 500, 2), 0
        with contextlib.suppress(OSError):
            taken = write(content, data, offset, work)
        monkeypatch.undo()
        want = bytearray(pattern(before, 1))
        if taken:
            want.extend(bytes(max(0, offset - len(want))))
            want[offset : offset + taken] = data[:taken]
        found = everything(content, work)
        assert found[: len(want)] == want
        assert not any(found[len(want) :])  # the last block may have been filled up with zeros for a gap
        os.close(content.fd)


def test_a_store_that_fails_inside_a_hole_leaves_a_hole(
    tmp_path: Path, work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_at(tmp_path / "object")
    content.truncate(10 * BLOCK, work)
    pwrite = os.pwrite
    calls = []

    def failing(fd: int, data: bytes, offset: int) -> int:
        calls.append(offset)
        if len(calls) == 2:
            raise OSError(errno.EIO, "failed")
        return pwrite(fd, memoryview(data)[:5000] if len(calls) == 1 else data, offset)

    monkeypatch.setattr(os, "pwrite", failing)
    assert write(content, pattern(3 * BLOCK, 1), 2 * BLOCK, work) == BLOCK
    monkeypatch.undo()
    want = bytearray(10 * BLOCK)
    want[2 * BLOCK : 3 * BLOCK] = pattern(3 * BLOCK, 1)[:BLOCK]
    assert everything(content, work) == want
    os.close(content.fd)


# A daemon killed at any byte of any write


def killed_at(cut: int, path: Path, intents: Path, act: Callable[[Content, Workspace], object]) -> bool:
    """Do it in a process that dies after `cut` bytes of all it writes; whether it died."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    try:
        pwrite, left = os.pwrite, cut

        def cutting(fd: int, data: bytes, offset: int) -> int:
            nonlocal left
            done = pwrite(fd, memoryview(data)[:left], offset) if left else 0
            left -= done
            if not left:
                os._exit(9)
            return done

        with Intents.open(intents, count=1) as opened:
            content = content_at(path)
            os.pwrite = cutting  # type: ignore[assignment]
            act(content, opened.take())
        os._exit(0)
    except BaseException:  # noqa: BLE001
        os._exit(1)


ACTS: dict[str, tuple[int, Callable[[Content, Workspace], object], bytes]] = {
    "first write": (0, lambda c, w: write(c, pattern(5000, 2), 0, w), pattern(5000, 2)),
    "overwrite": (
        3 * BLOCK,
        lambda c, w: write(c, pattern(2 * BLOCK, 2), BLOCK, w),
        pattern(3 * BLOCK, 1)[:BLOCK] + pattern(2 * BLOCK, 2),
    ),
    "inside": (
        BLOCK,
        lambda c, w: write(c, b"small", 100, w),
        pattern(BLOCK, 1)[:100] + b"small" + pattern(BLOCK, 1)[105:],
    ),
    "append": (5000, lambda c, w: write(c, pattern(5000, 2), 5000, w), pattern(5000, 1) + pattern(5000, 2)),
    "cut": (3 * BLOCK, lambda c, w: c.truncate(BLOCK + 7, w), pattern(3 * BLOCK, 1)[: BLOCK + 7]),
    "grow": (5000, lambda c, w: c.truncate(5100, w), pattern(5000, 1) + bytes(100)),
}


@pytest.mark.parametrize("name", ACTS)
def test_a_kill_at_any_byte_leaves_old_or_new(tmp_path: Path, name: str) -> None:
    """The next daemon finishes what this one had begun to store: all of it, once a byte of it was written."""
    before, act, new = ACTS[name]
    path, file = tmp_path / "object", tmp_path / "intents"
    top = os.open(tmp_path, os.O_RDONLY)
    outcomes = set[str]()
    for cut in [1, 2, 17, 18, 19, 33, 34, 35, *range(4000, 4200, 9), 4128, 4146, 5000, 5067, 8255, 8256]:
        path.unlink(missing_ok=True)
        with Intents.open(file, count=1) as opened:
            content = content_at(path)
            if before:
                write(content, pattern(before, 1), 0, opened.take())
            os.close(content.fd)
        died = killed_at(cut, path, file, act)
        with Intents.open(file, count=1) as opened:
            assert opened.complete(top) == (died, 0)
            assert opened.complete(top) == (0, 0)
            content = content_at(path)
            found = everything(content, opened.take())
            os.close(content.fd)
        assert found == new
        outcomes.add("died" if died else "finished")
    assert "died" in outcomes
    os.close(top)


def test_a_kill_before_the_first_byte_leaves_what_was_there(tmp_path: Path) -> None:
    with Intents.open(tmp_path / "intents", count=1) as opened:
        work, content = opened.take(), content_at(tmp_path / "object")
        write(content, pattern(100, 1), 0, work)
        assert work.left() is None
        os.close(content.fd)


def test_a_write_to_what_is_gone_or_replaced_is_dropped(tmp_path: Path) -> None:
    top = os.open(tmp_path, os.O_RDONLY)
    for replaced in (False, True):
        path = tmp_path / "object"
        with Intents.open(tmp_path / "intents", count=2) as opened:
            work, content = opened.take(), content_at(path)
            write(content, pattern(BLOCK, 1), 0, work)
            work.intend(
                inode=path.stat().st_ino, header=b"\0\2" + bytes(16), offset=18, length=100, cut=False
            )
            os.close(content.fd)
            sealed = path.read_bytes()
        if not replaced:
            path.unlink()
        with Intents.open(tmp_path / "intents", count=2) as opened:
            assert opened.complete(top) == (0, 1)
        if replaced:
            assert path.read_bytes() == sealed
    os.close(top)


def test_one_daemon_holds_the_intents(tmp_path: Path) -> None:
    with (
        Intents.open(tmp_path / "intents", count=1),
        pytest.raises(MachineError, match="held by another daemon, want one writer of a volume"),
        Intents.open(tmp_path / "intents", count=1),
    ):
        pass


def test_intents_that_say_nonsense_are_not_followed(tmp_path: Path) -> None:
    top = os.open(tmp_path, os.O_RDONLY)
    with Intents.open(tmp_path / "intents", count=1) as opened:
        opened.take().intend(inode=1, header=bytes(18), offset=0, length=1 << 40, cut=True)
    with Intents.open(tmp_path / "intents", count=1) as opened:
        assert opened.complete(top) == (0, 0)
    os.close(top)


def test_readers_are_not_held_up_by_a_file_that_got_another_id(tmp_path: Path, work: Workspace) -> None:
    content = content_at(tmp_path / "object")
    for number in range(3):
        write(content, pattern(5000, number), 0, work)
        assert everything(content, work) == pattern(5000, number)
        content.truncate(0, work)
        assert everything(content, work) == b""
    os.close(content.fd)
