"""Mirrors guest/stages/certify.py: the keys that the door is given are the ones the agent speaks for."""

from guest.evidence import DOOR_UNIT
from guest.grants import Grants
from guest.stages.certify import door_keys
from strongroom.receipts import legacy
from strongroom.receipts.keys import DoorKeys

ASKED = b"\0abc/unit/strongroom-proxy.service/door-secret"


def test_the_door_derives_the_keys_the_agent_knows() -> None:
    grants = Grants()
    known = door_keys(grants)
    given = DoorKeys.from_secret(grants.take(ASKED, 0, DOOR_UNIT).reveal())
    assert legacy.address(given.receipt) == legacy.address(known.receipt)
    assert legacy.address(given.ethereum) == legacy.address(known.ethereum)


def test_every_boot_has_keys_of_its_own() -> None:
    first, second = door_keys(Grants()), door_keys(Grants())
    assert legacy.address(first.receipt) != legacy.address(second.receipt)
