"""Mirrors strongroom/evidence/eventlog.py. Its fixed head is checked in test_binding.py."""

from hashlib import sha256
from typing import Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.eventlog import MAX_EVENTS, MAX_PAYLOAD, Event, EventLog
from strongroom.wire.canonical import JSON

LOG: Final = EventLog().extend(Event("userdata", bytes(32))).extend(Event("model", b'{"epoch":1}'))


def test_an_empty_log_has_a_zero_head() -> None:
    assert EventLog().head == bytes(48)


def test_the_head_knows_names_payloads_and_order() -> None:
    a, b = Event("a", b"1"), Event("b", b"2")
    logs = [
        (a, b),
        (b, a),
        (a,),
        (a, b, b),
        (Event("a", b"2"), b),
        (Event("ab", b"1"), b),
        (Event("a", b""), b),
    ]
    assert len({EventLog(events).head for events in logs}) == len(logs)


def test_extending_leaves_the_old_log_as_it_was() -> None:
    assert len(LOG.events) == 2
    LOG.extend(Event("boot-done", b"{}"))
    assert len(LOG.events) == 2


def test_finds_one_and_refuses_two() -> None:
    assert LOG.find("model") == b'{"epoch":1}'
    assert LOG.find("engine") is None
    with pytest.raises(FormatError, match="event log: 2 events named model, want one"):
        LOG.extend(Event("model", b"{}")).find("model")


def test_json_round_trips() -> None:
    assert EventLog.from_json(LOG.to_json()) == LOG


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a" * 65, "a\n", "ä"])
def test_odd_names_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match="event: name is"):
        Event(name, b"")


def test_sizes_are_bounded() -> None:
    with pytest.raises(FormatError, match="event a: 65537 bytes, want at most 65536"):
        Event("a", bytes(MAX_PAYLOAD + 1))
    with pytest.raises(FormatError, match="event log: 257 events, want at most 256"):
        EventLog((Event("a", b""),) * (MAX_EVENTS + 1))
    with pytest.raises(FormatError, match="event log: 257 events, want at most 256"):
        EventLog.from_json([{"name": "a", "payload": ""}] * 257)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [1],
        [{"name": "a"}],
        [{"name": "a", "payload": "", "more": 1}],
        [{"name": 1, "payload": ""}],
        [{"name": "a", "payload": 1}],
        [{"name": "a", "payload": "A"}],
    ],
)
def test_other_shapes_are_refused(value: JSON) -> None:
    with pytest.raises(FormatError, match=r"^event log"):
        EventLog.from_json(value)


def test_a_register_that_followed_the_log_has_one_value() -> None:
    log, register = EventLog(), bytes(32)
    assert log.pcr == register
    for name in ("userdata", "keys", "boot-done"):
        log = log.extend(Event(name, name.encode()))
        register = sha256(register + sha256(log.head).digest()).digest()
        assert log.pcr == register
