"""GPUs behind the real nvidia-ml-py and switches behind the real facade, over libraries compiled here."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.fakes.gpus import Machine, chain, report
from tests.fakes.nscq import double as nscq
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


@pytest.fixture(scope="session")
def nscq_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nscq.build(tmp_path_factory.mktemp("nscq"))


@pytest.fixture
def switches(nscq_library: Path, tmp_path: Path) -> Iterator[nscq.Double]:
    """Four switches that answer; nothing of them is on the bus yet."""
    (tmp_path / "nscq").mkdir()
    with nscq.bound(nscq_library, tmp_path / "nscq") as double:
        for index in range(4):
            pem = b"".join(c.public_bytes(Encoding.PEM) for c in chain(100 + index))
            double.switch(index, report=report(100 + index), chain=pem)
        yield double
