"""A door that is open, and a client of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.opened import Client, House, house_in


@pytest.fixture
def house(socket_dir: Path) -> Iterator[House]:
    with house_in(socket_dir) as house:
        yield house


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    with house.dial() as stream:
        yield Client(stream)
