"""A tree to push, and a door to push it to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.host.pushing import PushTree
from tests.fakes.provider import EPOCH, OTHER, PROVIDER
from tests.fakes.received import NAME, Received, received
from tests.fakes.sealed import make_source, pattern


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
