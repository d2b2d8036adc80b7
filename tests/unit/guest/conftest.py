"""GPUs behind the real nvidia-ml-py, over a library compiled here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.gpus import Machine
from tests.fakes.nvml.double import Double, bound, build


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def double(nvml_library: Path, tmp_path: Path) -> Iterator[Double]:
    with bound(nvml_library, tmp_path) as double:
        yield double


@pytest.fixture
def machine(tmp_path: Path, double: Double) -> Machine:
    return Machine(tmp_path, double)
