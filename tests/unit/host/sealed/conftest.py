"""A small tree to seal, and where to."""

from pathlib import Path

import pytest

from strongroom.host.sealed.sealing import Plan
from tests.fakes.sealed import make_source
from tests.fakes.sealing import make_plan, seal


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make_source(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def plan(source: Path) -> Plan:
    return make_plan(source)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "dest"


@pytest.fixture
def first(plan: Plan, dest: Path) -> bytes:
    return seal(plan, dest).root
