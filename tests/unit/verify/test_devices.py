"""Mirrors strongroom/verify/devices.py."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest

from strongroom.errors import FormatError, VerifyError
from strongroom.evidence.collateral import Collateral
from strongroom.verify.devices import DeviceClaims, verify_devices
from tests.fakes.composite import DRIVER_RIM, GPU, VBIOS_RIM, collateral, gpus, roots
from tests.fakes.nvidia import NOW, golden, nvidia

NONCE: Final = bytes(range(32))
OTHER: Final = nvidia().device(2)


def verify(evidence: Any, entries: dict[str, bytes] | None = None, **changes: Any) -> DeviceClaims:
    known = collateral() if entries is None else Collateral.of(entries)
    arguments: dict[str, Any] = {"nonce": NONCE, "collateral": known, "roots": roots(), "now": NOW}
    return verify_devices(evidence, **arguments | changes)


def entries(*dropped: str) -> dict[str, bytes]:
    return {name: data for name, data in collateral() if not name.startswith(dropped)}


def test_a_whole_device_is_measured_and_answered_for() -> None:
    claims = verify(gpus(nonce=NONCE))
    assert claims.measured
    assert claims.answered_at is not None
    assert claims.expired_signers == ()
    assert len(claims.roots) == 2
    assert [gpu.architecture for gpu in claims.devices.gpus] == ["hopper"]
    assert claims.not_checked == ("revocation of the rim signer: no ocsp answers given",)


def test_what_collateral_lacks_is_told() -> None:
    claims = verify(gpus(nonce=NONCE), {})
    assert not claims.measured
    assert claims.answered_at is None
    assert (
        "measurements of a gpu or switch: its reference values are not in the collateral"
        in claims.not_checked
    )
    for half in (DRIVER_RIM, VBIOS_RIM):
        assert not verify(gpus(nonce=NONCE), entries(half)).measured


def test_a_signer_beyond_its_time_is_told() -> None:
    late = NOW + timedelta(days=31)
    claims = verify(gpus(nonce=NONCE), entries("nvidia-ocsp"), now=late)
    assert claims.measured
    assert claims.expired_signers


def test_wrong_measurements_are_refused_wherever_values_exist() -> None:
    spoiled = gpus(nonce=NONCE, measured={21: b"\1" * 48})
    with pytest.raises(VerifyError, match=r"indices \[21\] differ from the golden values"):
        verify(spoiled)
    assert golden("GH100", 21) != b"\1" * 48


def test_a_device_is_what_it_is_called() -> None:
    (good,) = gpus(nonce=NONCE)
    with pytest.raises(VerifyError, match="device 0: called 'blackwell', its certificates say hopper"):
        verify([replace(good, kind="blackwell")])
    with pytest.raises(VerifyError, match="device 0: "):
        verify([replace(good, kind="ls10")])


def test_devices_are_distinct_and_each_is_verified() -> None:
    pair = gpus([GPU, OTHER], nonce=NONCE)
    assert len(verify(pair, entries("nvidia-ocsp")).devices.gpus) == 2
    with pytest.raises(VerifyError, match="want all distinct"):
        verify([pair[0], pair[0]])
    with pytest.raises(VerifyError, match="device 1: gpu report: made for another nonce"):
        verify([pair[0], *gpus([OTHER], nonce=bytes(32))], entries("nvidia-ocsp"))
    with pytest.raises(VerifyError, match="device 1: ocsp: no answer names"):
        verify(pair)


def test_switches_alone_are_no_machine() -> None:
    switch = nvidia().device(1, kind="switch")
    with pytest.raises(VerifyError, match="gpus: 0 attested"):
        verify(gpus([switch], nonce=NONCE), entries("nvidia-ocsp"))


@pytest.mark.parametrize("n", [0, 3, 36, 100, -1])
def test_a_cut_report_is_refused(n: int) -> None:
    (good,) = gpus(nonce=NONCE)
    with pytest.raises(FormatError):
        verify([replace(good, report=good.report[:n])])
    with pytest.raises((FormatError, VerifyError)):
        verify([replace(good, certificates=good.certificates[:n])])
