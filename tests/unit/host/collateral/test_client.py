"""Mirrors host/collateral/client.py and the dates of item.py."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from yarl import URL

from strongroom.errors import ConfigError, ProtocolError, TransportError, VerifyError
from strongroom.host.collateral import client as module
from strongroom.host.collateral.client import LONGEST_PAUSE, Client
from strongroom.host.collateral.item import Request, Signed, Vendor
from strongroom.host.collateral.services import PUBLIC, Service
from strongroom.host.fetch import Pin
from tests import ROOT
from tests.fakes.https import ok
from tests.fakes.vendors import BROKEN, BUSY, Vendors, playing

REQUEST = Request(vendor=Vendor.AMD_KDS, path="/x", max_bytes=100)


def ask(tmp_path: Path, vendors: Vendors, request: Request = REQUEST, deadline_s: float = 5) -> bytes:
    async def run(client: Client) -> bytes:
        return (await client.ask(request)).body

    with playing(tmp_path, vendors) as played:
        client = Client(services=played.services, timeout_s=5, deadline_s=deadline_s, first_pause_s=0.001)
        return asyncio.run(run(client))


def test_what_may_change_is_asked_again(tmp_path: Path) -> None:
    vendors = Vendors({"/x": ok(b"yes")}, first=[BUSY, BROKEN, b"nonsense\r\n\r\n", BUSY])
    assert ask(tmp_path, vendors) == b"yes" and vendors.asked == ["/x"] * 5


@pytest.mark.parametrize("status", ["204 Nothing", "302 Found", "400 Bad", "401 No", "403 No", "404 Gone"])
def test_a_no_is_believed(tmp_path: Path, status: str) -> None:
    vendors = Vendors({"/x": ok(b"", status=status)})
    with pytest.raises(
        ProtocolError, match=f"GET https://127.0.0.1:[0-9]+/x: answer is {status[:3]}, want 200"
    ):
        ask(tmp_path, vendors)
    assert len(vendors.asked) == 1


def test_too_much_is_refused_at_once(tmp_path: Path) -> None:
    vendors = Vendors({"/x": ok(b"x" * 101)})
    with pytest.raises(ProtocolError, match="longer than 100 bytes"):
        ask(tmp_path, vendors)
    assert len(vendors.asked) == 1


def test_nothing_is_begun_after_the_deadline(tmp_path: Path) -> None:
    vendors = Vendors({"/x": BUSY})
    with pytest.raises(TransportError, match="answer is 429"):
        ask(tmp_path, vendors, deadline_s=0)
    assert len(vendors.asked) == 1


def test_a_stranger_in_a_service_s_place_is_asked_nothing(tmp_path: Path) -> None:
    vendors = Vendors({"/x": ok(b"yes")})
    with playing(tmp_path, vendors) as played:
        here = Service(played.heard.url, Pin(spki_sha256=bytes(32)))
        with pytest.raises(VerifyError, match="want the pinned one"):
            asyncio.run(Client(services={Vendor.AMD_KDS: here}).ask(REQUEST))
    assert vendors.asked == []


def test_a_body_is_posted_as_what_it_is(tmp_path: Path) -> None:
    vendors = Vendors(posts={"/x": lambda body: ok(b"heard " + body)})
    request = Request(
        vendor=Vendor.NVIDIA_OCSP, path="/x", body=b"?", content_type="application/ocsp-request"
    )
    assert ask(tmp_path, vendors, request) == b"heard ?"


def test_pauses_grow_to_a_limit_and_differ() -> None:
    pauses = [pause for pause, _ in zip(module._pauses(1.0), range(50), strict=False)]
    assert 0.5 <= pauses[0] <= 1 and 1 <= pauses[1] <= 2
    assert all(LONGEST_PAUSE / 2 <= pause <= LONGEST_PAUSE for pause in pauses[6:])
    assert len(set(pauses[6:])) > 40


@pytest.mark.parametrize(
    "url", ["http://kds.example", "https://u@kds.example", "https://kds.example/?a", "x"]
)
def test_a_service_is_a_plain_https_url(url: str) -> None:
    with pytest.raises(ConfigError, match="want https"):
        Service(url)


ISSUED = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("life", "renew_after", "due"),
    [
        (30 * DAY, DAY, DAY),
        (DAY, DAY, DAY / 2),  # never later than half of its life
        (7 * DAY, None, 7 * DAY),
        (7 * DAY, timedelta(0), timedelta(0)),
    ],
)
def test_when_there_may_be_news(life: timedelta, renew_after: timedelta | None, due: timedelta) -> None:
    signed = Signed(issued=ISSUED, until=ISSUED + life, renew_after=renew_after, rank=(1,), simulated=False)
    assert signed.is_due(ISSUED + due) and not signed.is_due(ISSUED + due - timedelta(seconds=1))


def test_older_is_older_in_any_place() -> None:
    def ranked(*rank: int) -> Signed:
        return Signed(issued=ISSUED, until=ISSUED + DAY, renew_after=None, rank=rank, simulated=False)

    assert ranked(1, 5).is_older_than(ranked(2, 4)) and ranked(2, 4).is_older_than(ranked(1, 5))
    assert not ranked(2, 5).is_older_than(ranked(2, 5)) and not ranked(3, 5).is_older_than(ranked(2, 5))


def test_hosts_of_vendors_stand_in_one_place() -> None:
    hosts = [URL(service.url).host for service in PUBLIC.values()]
    code = [path for top in ("strongroom", "guest", "sidecars") for path in (ROOT / top).rglob("*.py")]
    found = {path.name for path in code for host in hosts if host and host in path.read_text()}
    assert found == {"services.py"} and len(set(hosts)) == len(Vendor)


def test_what_is_kept_is_used_without_any_library_that_fetches() -> None:
    program = "import sys, strongroom.host.collateral.supply; print('aiohttp' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
