"""Mirrors guest/keysock/plan.py: what the boot packs is what the process reads, and nothing else."""

import pytest

from guest.keysock.plan import MAX_PLAN, Origin, Plan
from guest.keysock.rights import Method, Rights, Rule
from strongroom.errors import FormatError
from strongroom.wire.canonical import JSON, pack_json, parse_json
from tests.fakes.keysock import ROOT, firmware

PLAN = Plan(
    name="llama",
    app_id=b"\1" * 20,
    userdata_sha256=b"\2" * 32,
    userdata="#cloud-config\n",
    origin=Origin(kind="broker", resource="kbs:///a/b/c", provider=b"\3" * 32, epoch=9),
    rights=Rights(units={"a.service": Rule(methods=frozenset(Method), paths=("x/",))}, others=False),
    strict=False,
    firmware=firmware(),
)


def test_it_is_read_as_it_was_written() -> None:
    assert Plan.parse(PLAN.pack()) == PLAN
    assert ROOT.hex().encode() not in PLAN.pack()


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize("size", range(0, len(PLAN.pack()), 37))
def test_cut_short_it_is_refused(size: int) -> None:
    with pytest.raises(FormatError):
        Plan.parse(PLAN.pack()[:size])


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"more": 1},
        {"origin": {}},
        {"rights": None},
        {"strict": 1},
        {"firmware": [{}]},
        {"short": 32},
    ],
)
def test_another_form_is_refused(change: dict[str, JSON]) -> None:
    value = parse_json(PLAN.pack(), "plan", max_bytes=MAX_PLAN)
    assert isinstance(value, dict)
    with pytest.raises(FormatError):
        Plan.parse(pack_json(value | change))
