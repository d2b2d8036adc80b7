"""Fixtures of the tests that mount a sealed model."""

import shutil
from pathlib import Path

import pytest

from tests.fakes.sealed import SealedFixture, make_sealed


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> SealedFixture:
    """A sealed model that no test changes."""
    return make_sealed(tmp_path_factory.mktemp("pristine"), epoch=2)


@pytest.fixture
def sealed(pristine: SealedFixture, tmp_path: Path) -> SealedFixture:
    """A copy that a test may damage."""
    path = tmp_path / "sealed"
    shutil.copytree(pristine.path, path)
    objects = {name: path / "objects" / at.name for name, at in pristine.objects.items()}
    return SealedFixture(path, pristine.root, pristine.epoch, pristine.contents, objects)


@pytest.fixture
def place(socket_dir: Path) -> Path:
    """Where a daemon has its credentials, its mount and its manager's socket."""
    return socket_dir
