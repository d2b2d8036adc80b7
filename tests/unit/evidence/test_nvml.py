"""Mirrors strongroom/evidence/nvml.py."""

from dataclasses import replace
from typing import Any, Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.nvml import CC_MODES, NVMLState
from strongroom.wire.canonical import pack_json, parse_json

STATE: Final = NVMLState(environment=2, cc_feature=1, devtools=0, multi_gpu=0, driver="580.95.05", ready=0)
RAW: Final[dict[str, Any]] = {
    "environment": 2,
    "cc_feature": 1,
    "devtools": 0,
    "multi_gpu": 0,
    "driver": "580.95.05",
    "ready": 0,
}


def test_it_comes_back_from_an_event() -> None:
    assert STATE.to_json() == RAW
    assert NVMLState.from_json(parse_json(pack_json(STATE.to_json()), "x"), "x") == STATE


@pytest.mark.parametrize(
    ("cc_feature", "multi_gpu", "mode"),
    [
        (0, 0, "off"),
        (1, 0, "on"),
        (0, 1, "protected-pcie"),
        (1, 1, "protected-pcie"),
        (1, 2, "nvle"),
        (2, 0, "unknown (2, 0)"),
        (2, 1, "unknown (2, 1)"),
        (1, 3, "unknown (1, 3)"),
    ],
)
def test_the_mode_in_words(cc_feature: int, multi_gpu: int, mode: str) -> None:
    state = replace(STATE, cc_feature=cc_feature, multi_gpu=multi_gpu)
    assert state.cc_mode == mode
    assert (mode in CC_MODES) is (not mode.startswith(("off", "unknown")))


def test_the_rest_in_words() -> None:
    assert [replace(STATE, devtools=n).devtools_name for n in range(3)] == ["off", "on", "unknown (2)"]
    names = [replace(STATE, environment=n).environment_name for n in range(4)]
    assert names == ["unavailable", "simulation", "production", "unknown (3)"]
    assert [replace(STATE, ready=n).ready_name for n in range(3)] == ["clear", "set", "unknown (2)"]


@pytest.mark.parametrize("key", RAW)
def test_every_member_is_there_once(key: str) -> None:
    with pytest.raises(FormatError, match=r"event gpu\.nvml: want exactly the keys"):
        NVMLState.from_json({name: value for name, value in RAW.items() if name != key}, "event gpu.nvml")


@pytest.mark.parametrize("value", [None, [], "x", 1, {}, RAW | {"more": 1}])
def test_what_is_no_state(value: Any) -> None:
    with pytest.raises(FormatError, match="x: want exactly the keys"):
        NVMLState.from_json(value, "x")


@pytest.mark.parametrize("key", [key for key in RAW if key != "driver"])
@pytest.mark.parametrize("value", [None, -1, 2**32, True, "0", 1.0, []])
def test_numbers_are_numbers(key: str, value: Any) -> None:
    with pytest.raises(FormatError, match=rf"x\.{key}: got .*, want a whole number 0\.\.4294967295"):
        NVMLState.from_json(RAW | {key: value}, "x")


@pytest.mark.parametrize("value", [None, 580, "", "5\n8", "\x1b[1m", "5" * 81])
def test_a_driver_is_one_line(value: Any) -> None:
    with pytest.raises(FormatError, match=r"x\.driver: want one line of text"):
        NVMLState.from_json(RAW | {"driver": value}, "x")


def test_cut_anywhere_or_any_bit_flipped_it_is_refused_or_says_something_else() -> None:
    packed = pack_json(STATE.to_json())
    flipped = [
        packed[:at] + bytes((packed[at] ^ 1 << bit,)) + packed[at + 1 :]
        for at in range(len(packed))
        for bit in range(8)
    ]
    for changed in [*(packed[:size] for size in range(len(packed))), *flipped]:
        try:
            found = NVMLState.from_json(parse_json(changed, "x"), "x")
        except FormatError:
            continue
        assert found != STATE
