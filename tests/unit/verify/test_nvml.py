"""Mirrors strongroom/verify/nvml.py, on whole bundles."""

from dataclasses import replace
from typing import Any, Final

import pytest

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.nvml import NVMLState
from strongroom.verify.gpus import GPUSet
from strongroom.verify.nvml import said_of_gpus
from strongroom.wire.canonical import JSON, pack_json
from tests.fakes.composite import GPU_STATE, LOG, bundle, gpus, verify

ON: Final = GPU_STATE
PPCIE: Final = replace(ON, cc_feature=0, multi_gpu=1)
NVLE: Final = replace(ON, multi_gpu=2)


def event(name: str, state: NVMLState | None, **more: JSON) -> Event:
    said: dict[str, JSON] = {} if state is None else {"nvml": state.to_json()}
    return Event(name, pack_json({"count": 1} | said | more))


def log(*events: Event) -> EventLog:
    return EventLog((*events, Event("boot-done", b"{}")))


def devices(**changes: Any) -> GPUSet:
    claims = verify(bundle("snp", devices=gpus()))
    assert claims.devices is not None
    return replace(claims.devices.devices, **changes)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        (log(), None),
        (log(event("gpu", None)), None),
        (log(event("gpu", ON)), ON),
        (log(event("gpu", ON), event("gpu-ready", ON, evidence_sha384="00" * 48)), ON),
        (log(event("gpu", None), event("gpu-ready", ON)), ON),
    ],
)
def test_what_the_log_says_is_in_the_claims(events: EventLog, state: NVMLState | None) -> None:
    assert verify(bundle("snp", devices=gpus(), events=events)).gpu_state == state


def test_without_gpus_nobody_asks() -> None:
    assert verify(bundle("snp")).events == LOG
    assert verify(bundle("snp")).gpu_state is None
    assert verify(bundle("snp", events=log(Event("gpu", b"{")))).gpu_state is None


@pytest.mark.guarantee("G19")
@pytest.mark.parametrize(
    ("events", "error", "why"),
    [
        (log(event("gpu", ON), event("gpu-ready", NVLE)), VerifyError, "gpu and gpu-ready differ"),
        (log(event("gpu", replace(ON, driver="1.2"))), VerifyError, "gpu driver is 1.2, and the gpus signed '580"),
        (log(event("gpu", PPCIE)), VerifyError, "protected-pcie, and the gpus signed protected pcie off"),
        (log(event("gpu", ON), event("gpu", ON)), FormatError, "2 events named gpu, want one"),
        (log(event("gpu-ready", ON), event("gpu-ready", ON)), FormatError, "2 events named gpu-ready"),
        (log(Event("gpu", b"{")), FormatError, "event gpu: "),
        (log(Event("gpu", b"[]")), FormatError, "event gpu: not an object"),
        (log(Event("gpu", b'{"nvml":null}')), FormatError, "event gpu.nvml: want exactly the keys"),
        (log(event("gpu", ON), Event("gpu-ready", b'{"nvml":{}}')), FormatError, "event gpu-ready.nvml: want exactly"),
    ],
)  # fmt: skip
def test_a_log_that_contradicts_itself_or_the_devices_is_refused(
    events: EventLog, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        verify(bundle("snp", devices=gpus(), events=events))


@pytest.mark.parametrize(
    ("state", "protected", "agree"),
    [(ON, True, True), (PPCIE, True, True), (NVLE, False, True), (NVLE, True, False), (PPCIE, False, False)],
)
def test_protected_pcie_is_what_the_devices_signed(state: NVMLState, protected: bool, agree: bool) -> None:
    """A driver too old to say it says 0, which contradicts nothing."""
    found, events = devices(protected_pcie=protected), log(event("gpu", state))
    if agree:
        assert said_of_gpus(events, found) == state
        return
    with pytest.raises(VerifyError, match="and the gpus signed protected pcie"):
        said_of_gpus(events, found)


def test_the_log_is_bound_by_the_report() -> None:
    """The agent's word is as good as the measurement: changed by anyone else it is no log of this machine."""
    evidence = bundle("snp", devices=gpus(), events=log(event("gpu", replace(ON, devtools=1))))
    with pytest.raises(VerifyError, match="report_data differs"):
        verify(replace(evidence, events=log(event("gpu", ON))))
