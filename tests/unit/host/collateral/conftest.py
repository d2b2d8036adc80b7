"""A simulated chip, and a service that answers for its vendor."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from demo.silicon.mint import CURRENT_TCB, Silicon
from strongroom.host.collateral.store import Store
from strongroom.verify.roots import Roots
from tests.fakes import silicon as simulated
from tests.fakes.vendors import Played, Vendors, playing, revocation_list


@pytest.fixture
def silicon() -> Silicon:
    return simulated.silicon()


@pytest.fixture
def roots(silicon: Silicon) -> Roots:
    return simulated.roots(silicon)


@pytest.fixture
def vendors(silicon: Silicon, now: datetime) -> Vendors:
    pki, vendors = silicon.pki, Vendors()
    crl = revocation_list(pki.ark.subject, pki.ark_key, issued=now - timedelta(hours=1))
    vendors.amd(pki, CURRENT_TCB, crl)
    return vendors


@pytest.fixture
def played(tmp_path: Path, vendors: Vendors) -> Iterator[Played]:
    with playing(tmp_path, vendors) as played:
        yield played


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "cache")
