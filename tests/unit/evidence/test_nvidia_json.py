"""Mirrors strongroom/evidence/nvidia_json.py."""

from typing import Any, Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.nvidia_json import DeviceEvidence, from_nvidia, to_nvidia
from strongroom.evidence.spdm import SPDMReport
from strongroom.wire.canonical import parse_json
from tests.fakes.nvidia import content, vectors

ONE: Final = DeviceEvidence("hopper", b"chain", b"report", bytes(range(32)))
JSON_ONE: Final[dict[str, Any]] = {
    "arch": "HOPPER",
    "certificate": "Y2hhaW4=",
    "evidence": "cmVwb3J0",
    "nonce": bytes(range(32)).hex(),
}


def test_there_and_back() -> None:
    assert to_nvidia((ONE,)) == [JSON_ONE]
    assert from_nvidia([JSON_ONE]) == (ONE,)
    assert from_nvidia([JSON_ONE | {"version": "1.0", "driver_version": "1", "vbios_version": "2"}]) == (ONE,)


@pytest.mark.parametrize("vector", vectors("nvidia-multi-evidence"), ids=lambda vector: vector["id"])
def test_real_lists(vector: dict[str, Any]) -> None:
    devices = from_nvidia(parse_json(content(vector, "evidence"), "evidence"))
    assert len(devices) == vector["expect"]["count"]
    for device, expect in zip(devices, vector["expect"]["devices"], strict=True):
        assert device.architecture.upper() == expect["arch_field"]
        assert device.nonce.hex() == expect["nonce_field"]
        assert (SPDMReport.parse(device.report).nonce == device.nonce) is expect["nonce_matches_report"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [],
        [JSON_ONE] * 33,
        [{}],
        ["x"],
        [JSON_ONE | {"extra": ""}],
        [JSON_ONE | {"arch": "AMPERE"}],
        [JSON_ONE | {"arch": 1}],
        [JSON_ONE | {"certificate": "Y2hhaW4"}],
        [JSON_ONE | {"evidence": "*"}],
        [JSON_ONE | {"nonce": "00"}],
        [JSON_ONE | {"nonce": "zz" * 32}],
        [JSON_ONE | {"nonce": "00 " * 32}],
    ],
    ids=repr,
)
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(FormatError, match=r"^nvidia evidence"):
        from_nvidia(value)
