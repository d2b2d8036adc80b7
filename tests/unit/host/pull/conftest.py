"""A store on loopback that has a tree."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.cli.broker_certificate import TLSCertificate
from strongroom.host.fetch import Pin
from tests.fakes.https import certificate
from tests.fakes.pulled import TREE, Site
from tests.fakes.stores import serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TLSCertificate]:
    directory = tmp_path_factory.mktemp("tls")
    return directory, certificate(directory)


@pytest.fixture
def site(served: tuple[Path, TLSCertificate], tmp_path: Path) -> Iterator[Site]:
    with serving(served[0]) as store:
        store.files = {f"/m/{name}": content for name, content in TREE.items()}
        yield Site(store, Pin(ca_pem=served[1].pem), tmp_path / "dest")
