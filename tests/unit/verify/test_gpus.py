"""Mirrors strongroom/verify/gpus.py."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest

from strongroom.errors import VerifyError
from strongroom.evidence.nvidia_json import from_nvidia
from strongroom.evidence.spdm import Opaque, SPDMReport
from strongroom.verify.gpus import GPUSet, verify_set
from strongroom.verify.nvidia import GPUClaims, verify_device
from strongroom.verify.roots import PRODUCTION
from strongroom.wire.canonical import parse_json
from tests.fakes.nvidia import NOW, Device, content, nvidia, vectors

NV: Final = nvidia()
NONCE: Final = bytes(range(32))
GPUS: Final = [NV.device(n) for n in range(8)]
SWITCHES: Final = [NV.device(n, kind="switch") for n in range(4)]


def claims(
    device: Device, opaque: Mapping[Opaque, bytes | None] | None = None, nonce: bytes = NONCE
) -> GPUClaims:
    report = device.report(nonce, opaque=opaque)
    return verify_device(report, device.pem, nonce=nonce, roots=NV.roots(), now=NOW, kind=device.kind)


@cache
def wired() -> tuple[tuple[GPUClaims, ...], tuple[GPUClaims, ...]]:
    """Eight GPUs and four switches in protected PCIe, each naming all of the others."""
    links = b"".join(switch.pdi * 4 for switch in SWITCHES) + bytes(16)
    protected = {
        Opaque.PROTECTED_PCIE_STATUS: b"\xaa",
        Opaque.FEATURE_FLAG: b"\2\0",
        Opaque.SWITCH_PDI: links,
    }
    seen: dict[Opaque, bytes | None] = {Opaque.GPU_PDI: b"".join(gpu.pdi for gpu in GPUS) + b"\xff" * 64}
    return tuple(claims(gpu, protected) for gpu in GPUS), tuple(claims(switch, seen) for switch in SWITCHES)


@cache
def alone() -> tuple[GPUClaims, ...]:
    return tuple(claims(gpu) for gpu in GPUS[:2])


def verify(
    gpus: Sequence[GPUClaims] | None = None, switches: Sequence[GPUClaims] | None = None, **changes: Any
) -> GPUSet:
    gpus = wired()[0] if gpus is None else gpus
    switches = wired()[1] if switches is None else switches
    return verify_set(gpus, switches, **{"count": len(gpus)} | changes)


def test_a_wired_machine() -> None:
    found = verify()
    assert (len(found.gpus), len(found.switches)) == (8, 4)
    assert (found.architecture, found.protected_pcie, found.simulated) == ("hopper", True, True)
    assert found.not_checked == ()


def test_gpus_on_their_own() -> None:
    for n in (1, 2):
        assert not verify(alone()[:n], ()).protected_pcie


@pytest.mark.parametrize("vector", vectors("nvidia-multi-evidence"), ids=lambda vector: vector["id"])
def test_real_lists_give_the_listed_verdict(vector: dict[str, Any]) -> None:
    devices = from_nvidia(parse_json(content(vector, "evidence"), "evidence"))
    kind: Any = "switch" if devices[0].architecture == "ls10" else "gpu"
    found = [
        verify_device(
            SPDMReport.parse(device.report),
            device.certificates,
            nonce=device.nonce,
            roots=PRODUCTION,
            now=NOW,
            kind=kind,
        )
        for device in devices
    ]
    expect = vector["expect"]
    assert len({claims.device_serial for claims in found}) == expect["distinct_devices"]
    assert [str(claims.serial) for claims in found] == [device["ueid"] for device in expect["devices"]]
    if kind == "switch":
        with pytest.raises(VerifyError, match="are 2 by serial, want all distinct"):
            verify(alone()[:1], found)
        return
    machine = verify(found, (), topology="skip")
    assert machine.protected_pcie and machine.not_checked == ("wiring of gpus and switches",)
    with pytest.raises(VerifyError, match="gpu 0: linked to 4 switches, want the 0 attested ones"):
        verify(found, ())


def test_the_number_is_what_was_expected() -> None:
    for gpus, count in ((wired()[0], 7), (wired()[0][:7], 8), ((), 0), ((), 1)):
        with pytest.raises(VerifyError, match=f"gpus: {len(gpus)} attested, want {count}"):
            verify(gpus, count=count)


def test_one_device_counts_once() -> None:
    one, other = alone()
    for twin in (
        one,
        replace(other, serial=one.serial),
        replace(other, device_serial=one.device_serial),
        replace(other, pdi=one.pdi),
    ):
        with pytest.raises(VerifyError, match="2 devices are 1 by"):
            verify([one, twin], ())


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": bytes(32)},
        {"root_sha256": bytes(32)},
        {"chip": "GB100"},
        {"driver_version": "1"},
        {"vbios_version": "1"},
        {"protected_pcie": True},
        {"feature_flag": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_gpus_are_alike(change: dict[str, Any]) -> None:
    one, other = alone()
    with pytest.raises(VerifyError, match=r"gpus: 2 values of .*, want one in all"):
        verify([one, replace(other, **change)], ())


def test_each_is_of_its_kind() -> None:
    gpus, switches = wired()
    for pair in ((switches[:1], ()), (gpus, gpus[:1])):
        with pytest.raises(VerifyError, match="a switch among the gpus, or a gpu among the switches"):
            verify(*pair)


def test_switches_belong_to_protected_pcie() -> None:
    with pytest.raises(VerifyError, match="4 switches without protected pcie, want none"):
        verify(alone())


def test_every_link_leads_to_an_attested_device_and_back() -> None:
    gpus, switches = wired()
    stranger = frozenset({b"stranger"})
    for changed, why in (
        ((gpus, switches[:3]), "gpu 0: linked to 4 switches, want the 3 attested ones"),
        ((gpus, ()), "gpu 0: linked to 4 switches, want the 0"),
        ((gpus[:7], switches), "switch 0: linked to 8 gpus, want the 7"),
        (
            ((*gpus[:7], replace(gpus[7], switch_pdis=gpus[7].switch_pdis | stranger)), switches),
            "gpu 7: linked to 5",
        ),
        (((*gpus[:7], replace(gpus[7], switch_pdis=frozenset())), switches), "gpu 7: linked to 0"),
        ((gpus, (*switches[:3], replace(switches[3], gpu_pdis=stranger))), "switch 3: linked to 1 gpus"),
        (
            (gpus, (*switches[:3], replace(switches[3], vbios_version="1"))),
            "2 values of vbios version of switches",
        ),
        ((gpus, (*switches[:3], replace(switches[3], nonce=bytes(32)))), "2 values of nonce"),
    ):
        with pytest.raises(VerifyError, match=why):
            verify(*changed)
    none = tuple(replace(gpu, switch_pdis=frozenset()) for gpu in gpus)
    with pytest.raises(VerifyError, match="gpu 0: linked to 0 switches, want the 0 attested ones"):
        verify(none, ())
