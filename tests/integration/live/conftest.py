"""Fixtures of volumes that are mounted to be read and written."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.gocryptfs import program
from tests.fakes.live import SERVED, Live, agrees, init, running, snapshot


@pytest.fixture(name="real", scope="module")
def _real() -> None:
    program()


@pytest.fixture(params=SERVED, ids="-".join)
def live(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Live]:
    """A new volume; whatever the test leaves in it, the real program has to agree with."""
    store = tmp_path / "store"
    init(store)
    front, kind = request.param
    with running(front, kind, store, tmp_path / "live") as daemon:
        yield daemon
        left = snapshot(daemon.mount)
        assert daemon.stop() == "ready\n"
    agrees(store, left)


@pytest.fixture
def top(live: Live) -> Path:
    return live.mount


@pytest.fixture
def store(tmp_path: Path) -> Path:
    init(tmp_path / "store")
    return tmp_path / "store"
