"""Mirrors host/keeper.py: real verification and appraisal, over evidence of simulated silicon."""

import json
from pathlib import Path
from typing import Any

import pytest

from demo.silicon.mint import DEBUG, POLICY, Silicon
from strongroom.broker.proof import Proof
from strongroom.broker.resource import ResourceURI
from strongroom.errors import VerifyError
from strongroom.evidence.binding import kbs_report_data
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.host.keeper import ShelfKeeper
from strongroom.host.shelf import Shelf
from tests.fakes.broker import NOW, URI
from tests.fakes.silicon import silicon

DIGEST = bytes(range(48))
OTHER = ResourceURI.parse("kbs:///default/model/strict")


def policy(machine: Silicon, **change: Any) -> bytes:
    value: dict[str, Any] = {
        "version": 1,
        "measurements": [{"name": "image-1", "value": machine.measurement.hex()}],
        "host_data": [machine.host_data.hex()],
        "insecure_simulated_roots": [machine.pki.ark_sha256.hex()],
    }
    return json.dumps(value | change).encode()


def proof(machine: Silicon, digest: bytes = DIGEST) -> Proof:
    report = SNPReport.parse(machine.report(kbs_report_data(digest)))
    return Proof(report, CertificateTable.parse(machine.certificates()), DIGEST)


@pytest.fixture
def keeper(tmp_path: Path) -> ShelfKeeper:
    shelf = Shelf(tmp_path)
    shelf.create()
    shelf.put(URI, b"secret", policy(silicon()))
    return ShelfKeeper(shelf)


def reasons(keeper: ShelfKeeper, machine: Silicon, uri: ResourceURI = URI) -> str:
    ruling = keeper.judge(uri, proof(machine), NOW)
    assert ruling is not None and ruling.payload is None
    return "; ".join(ruling.reasons)


@pytest.mark.guarantee("G1")
def test_the_right_machine_gets_it_and_is_marked(keeper: ShelfKeeper) -> None:
    ruling = keeper.judge(URI, proof(silicon()), NOW)
    assert ruling is not None and ruling.payload == b"secret"
    assert ruling.rule.startswith("policy ") and "INSECURE-SIMULATED" in ruling.rule
    assert "secret" not in repr(ruling)
    assert keeper.verify(proof(silicon()), NOW) is True


@pytest.mark.guarantee("G1")
def test_another_measurement_gets_nothing(keeper: ShelfKeeper) -> None:
    assert "measurement is " + "ff" * 48 in reasons(keeper, silicon(measurement=b"\xff" * 48))


@pytest.mark.guarantee("G2")
def test_changed_userdata_gets_nothing(keeper: ShelfKeeper) -> None:
    got = reasons(keeper, silicon(host_data=b"\xff" * 32))
    assert f"host_data is {'ff' * 32}, want {silicon().host_data.hex()}" in got


@pytest.mark.guarantee("G6")
def test_a_debug_guest_gets_nothing(keeper: ShelfKeeper) -> None:
    assert "debug is on, want off" in reasons(keeper, silicon(policy=POLICY | DEBUG))


@pytest.mark.guarantee("G1")
def test_old_firmware_gets_nothing(keeper: ShelfKeeper) -> None:
    keeper.shelf.put(URI, b"secret", policy(silicon(), minimum_tcb={"snp": 24}))
    assert "reported tcb" in reasons(keeper, silicon())


@pytest.mark.guarantee("G7")
def test_evidence_for_another_digest_is_not_genuine(keeper: ShelfKeeper) -> None:
    other = proof(silicon(), digest=bytes(48))
    with pytest.raises(VerifyError, match="report_data differs"):
        keeper.verify(other, NOW)
    ruling = keeper.judge(URI, other, NOW)
    assert ruling is not None and ruling.payload is None and "report_data differs" in ruling.reasons[0]


@pytest.mark.guarantee("G18")
def test_one_resource_s_simulated_root_opens_no_other(keeper: ShelfKeeper) -> None:
    keeper.shelf.put(OTHER, b"strict secret", policy(silicon(), insecure_simulated_roots=[]))
    assert keeper.verify(proof(silicon()), NOW) is True
    assert reasons(keeper, silicon(), OTHER)


@pytest.mark.guarantee("G18")
def test_simulated_silicon_that_no_policy_names_is_not_genuine(keeper: ShelfKeeper) -> None:
    keeper.shelf.put(URI, b"secret", policy(silicon(), insecure_simulated_roots=[]))
    with pytest.raises(VerifyError):
        keeper.verify(proof(silicon()), NOW)


def test_what_is_not_there_is_none(keeper: ShelfKeeper) -> None:
    assert keeper.judge(OTHER, proof(silicon()), NOW) is None


def test_a_broken_neighbour_does_not_disturb(keeper: ShelfKeeper) -> None:
    keeper.shelf.put(OTHER, b"x", policy(silicon()))
    (keeper.shelf.directory / "resources/default/model/strict/policy.yaml").write_text("?")
    ruling = keeper.judge(URI, proof(silicon()), NOW)
    assert ruling is not None and ruling.payload == b"secret"
