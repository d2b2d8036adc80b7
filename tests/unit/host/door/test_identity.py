"""Mirrors strongroom/host/door/identity.py: when a certificate needs a successor."""

from datetime import timedelta

import pytest

from strongroom.host.door.identity import RENEW_AFTER, TLSIdentity
from strongroom.host.tls import ServerContext
from tests.fakes.exchange import NOT_BEFORE, certificate, certificate_bundle, tls_key
from tests.fakes.silicon import silicon

KEY = tls_key()
DER = certificate(KEY, certificate_bundle(silicon(), KEY))


@pytest.mark.parametrize(
    ("age", "fresh"),
    [
        (timedelta(0), True),
        (RENEW_AFTER, False),
        (timedelta(days=400), False),
        (timedelta(seconds=-1), False),
    ],
)
def test_freshness_follows_the_clock_clients_go_by(age: timedelta, fresh: bool) -> None:
    context = ServerContext.of(key=KEY, certificate=DER)
    identity = TLSIdentity(context=context, certificate=DER, spki=b"", not_before=NOT_BEFORE)
    assert identity.is_fresh(NOT_BEFORE + age) is fresh
