"""Mirrors strongroom/host/door/peer.py: whom limits hold for. tests/integration/test_door.py has the rest."""

import pytest

from strongroom.host.door.peer import _origin


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),  # whoever has one address there has them all
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_origins(one: str, other: str, same: bool) -> None:
    assert (_origin((one, 1)) == _origin((other, 2, 0, 0))) is same


def test_who_left_already_has_none() -> None:
    assert _origin(None) == b""
