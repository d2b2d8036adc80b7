"""Mirrors guest/coco/rest.py and guest/resources.py where programs add to the event log."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from guest.aael import AAELLog
from guest.coco.plan import Plan
from strongroom.evidence.aael import AAELEntry
from strongroom.wire.canonical import JSON, pack_json
from tests.fakes.coco import UID, Coco, everything, served
from tests.unit.guest.test_aael import Memory


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coco]:
    with served(tmp_path_factory.mktemp("s"), plan=Plan(rules=everything())) as coco:
        yield coco


ENTRY: Final[dict[str, JSON]] = {"domain": "app.example", "operation": "load", "content": '{"plugin": "a b"}'}


def test_an_event_of_a_program_enters_our_log_once(tmp_path: Path) -> None:
    register = Memory()
    log = AAELLog.open(tmp_path / "aael", register)
    with served(tmp_path, log=log) as coco:
        before = len(coco.events.events)
        assert len(log.records) == before  # what the boot did is there already
        for _ in range(2):
            found = coco.get("/aa/aael", method="POST", body=pack_json(ENTRY))
            assert found == (200, "application/json", b'{"success":"true"}')
        assert len(coco.events.events) == before + 1
        assert coco.events.find("aael") == pack_json({**ENTRY, "caller": f"uid-{UID}"})
        assert len(log.records) == before + 1 == register.extended
        assert log.records[-1].entry == AAELEntry("app.example", "load", '{"plugin": "a b"}')


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"domain": "strongroom"}, "not allowed: aael entry: domain strongroom is this machine's own"),
        ({"domain": "a b"}, "failed: aael entry: 'a b' is not one word"),
        ({"content": "a\nb"}, "failed: aael entry: content is not one line"),
        ({"content": "a" * 5000}, "failed: aael entry: content is over 4096 bytes"),
    ],
)
def test_an_event_that_cannot_be_is_told_in_the_answer(
    shared: Coco, change: dict[str, JSON], why: str
) -> None:
    status, _, body = shared.get("/aa/aael", method="POST", body=pack_json({**ENTRY, **change}))
    said = json.loads(body)
    assert status == 200 and said["success"] == "false" and said["message"].startswith(why)
    assert shared.events.find("aael") is None


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"domain":1}', b'{"domain":"a","domain":"b"}', b"\xff"]
)
def test_a_body_that_is_no_event_is_refused(shared: Coco, body: bytes) -> None:
    assert shared.get("/aa/aael", method="POST", body=body)[0] == 400


def test_programs_do_not_fill_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guest.resources.MAX_EVENTS", 2)
    with served(tmp_path) as coco:
        answers = [
            json.loads(coco.get("/aa/aael", method="POST", body=pack_json({**ENTRY, "content": str(n)}))[2])
            for n in range(3)
        ]
    assert [answer["success"] for answer in answers] == ["true", "true", "false"]
    assert answers[2]["message"] == "refused: aael: there are 2 of programs already, want no more"
