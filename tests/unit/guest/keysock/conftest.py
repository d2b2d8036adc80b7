"""The key socket on each kind of machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import need
from tests.fakes.keysock import BACKENDS, Keysock, served


@pytest.fixture
def keysock(socket_dir: Path) -> Iterator[Keysock]:
    """An SNP guest, and a caller who may do everything."""
    with served(socket_dir) as keysock:
        yield keysock


@pytest.fixture(params=BACKENDS)
def each(request: pytest.FixtureRequest, socket_dir: Path) -> Iterator[tuple[str, Keysock]]:
    """Every kind of machine in turn."""
    if request.param == "vtpm":
        need(shutil.which("swtpm"), "there is no swtpm")
    with served(socket_dir, request.param) as keysock:
        yield request.param, keysock
