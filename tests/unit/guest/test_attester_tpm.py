"""Mirrors guest/attester.py where there is a vTPM: a real swtpm, certified by a cloud or vouched for by a paravisor."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from demo.silicon.vtpm import vtpm
from demo.silicon.vtpm_authority import AK_TEMPLATE, certify, define
from guest.attester import Attester
from guest.machine.azure import Paravisor
from guest.machine.tpm import opened
from guest.machine.tpm_nv import keep
from guest.machine.tpm_quote import AZURE_KEY, attestation_key
from guest.machine.tsm import TSMReport
from guest.machine.vtpm import HCL_REPORT, VTPM
from strongroom.appraise.policy import Policy
from strongroom.appraise.verdict import appraise
from strongroom.errors import MachineError, VerifyError
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.hcl import ReportType
from strongroom.evidence.tdx import TDReport
from strongroom.evidence.tpm import Hash, TPMPublic
from strongroom.verify.bundle import verify_bundle
from strongroom.verify.claims import Claims
from strongroom.verify.roots import Roots
from strongroom.wire.canonical import b64u
from tests import need
from tests.fakes.composite import PLATFORM, collateral, roots
from tests.fakes.intel import BODY, BODY_1_5
from tests.fakes.silicon import HOST_DATA, MEASUREMENT, silicon
from tests.fakes.tpm import hcl
from tests.unit.guest.machine.test_azure import TABLE
from tests.unit.guest.test_evidence import CHALLENGE, KEY, FakeTSM

NOW = datetime.now(UTC)
STEPS = ("userdata", "model", "boot-done")


@pytest.fixture
def path(socket_dir: Path) -> Iterator[Path]:
    need(shutil.which("swtpm"), "there is no swtpm")
    with vtpm(socket_dir) as path:
        yield path


def evidence(attester: Attester) -> Bundle:
    return asyncio.run(attester.evidence(purpose=Purpose.CHANNEL, challenge=CHALLENGE, key=KEY))


def verified(bundle: Bundle, believed: Roots, **changes: Any) -> Claims:
    arguments: dict[str, Any] = {
        "purpose": Purpose.CHANNEL,
        "challenge": CHALLENGE,
        "key": KEY,
        "roots": believed,
        "now": NOW,
        "collateral": collateral(),
    }
    return verify_bundle(bundle, **arguments | changes)


def booted(attester: Attester) -> Attester:
    for name in STEPS:
        asyncio.run(attester.extend(name, name.encode()))
    return attester


@pytest.mark.guarantee("G7")
def test_a_certified_vtpm_quotes_the_log_beside_every_report(path: Path) -> None:
    believed = roots().with_insecure([certify(path)])
    device = VTPM(path)
    device.prepare()
    attester = booted(Attester(FakeTSM(), device))
    bundle = evidence(attester)
    claims = verified(bundle, believed)
    assert claims.tpm is not None and claims.tpm.pcrs[15] == attester.log.pcr
    policy = Policy.from_raw(
        {
            "version": 1,
            "measurements": [{"name": "test", "value": MEASUREMENT.hex()}],
            "host_data": [HOST_DATA.hex()],
            "insecure_simulated_roots": [digest.hex() for digest in believed.insecure],
            "tpm": {"states": [{"name": "followed", "pcrs": {"pcr15": "events"}}]},
        }
    )
    assert appraise(claims, policy, now=NOW).passed
    without = verified(replace(bundle, tpm=None), believed)
    assert appraise(without, policy, now=NOW).reasons == ("tpm quote is absent, want one",)
    # A log and a register that differ are refused, whichever of the two was changed.
    device.extend(bytes(32))
    with pytest.raises(VerifyError, match="tpm quote: pcr 15 is"):
        verified(evidence(attester), believed)
    attester._log = EventLog(attester.log.events[:-1])
    with pytest.raises(VerifyError, match="tpm quote: pcr 15 is"):
        verified(evidence(attester), believed)


def test_an_uncertified_vtpm_follows_the_log_and_gives_no_quote(path: Path) -> None:
    device = VTPM(path)
    assert device.prepare() is not None
    attester = booted(Attester(FakeTSM(), device))
    assert evidence(attester).tpm is None
    with opened(path) as tpm:
        assert tpm.read(15) == attester.log.pcr


def on_azure(path: Path, kind: ReportType) -> VTPM:
    """The vTPM as Azure's paravisor leaves it: a key under its handle, a report that names it in an index."""
    with opened(path) as tpm:
        with attestation_key(tpm, AK_TEMPLATE) as key:
            keep(tpm, key.handle, AZURE_KEY)
            modulus = TPMPublic.parse(key.public).unique[0]
        jwk = {"kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": b64u(modulus)}
        configuration = {"console-enabled": False, "secure-boot": True, "vmUniqueId": "A-1"}
        data = json.dumps({"keys": [jwk], "vm-configuration": configuration}).encode()
        bound = Hash.SHA256.digest(data).ljust(64, b"\0")
        if kind is ReportType.SNP:
            report = silicon().report(bound)
        else:
            body = replace(BODY_1_5, report_data=bound)
            report = TDReport(
                version=0, cpu_svn=bytes(16), mac=bytes(32), valid=b"\xff" * 8, body=body
            ).pack()
        define(tpm, HCL_REPORT, replace(hcl(data, report, kind), size=2048).pack())
    device = VTPM(path)
    assert device.prepare() is None
    return device


class Hosted(Paravisor):
    """With a host that answers at once."""

    def _quote(self) -> bytes:
        return replace(PLATFORM, body=replace(BODY, report_data=self.report.report_data)).quote().pack()

    def _certificates(self) -> bytes:
        return TABLE


class Absent(FakeTSM):
    def report(self, report_data: bytes, *, privlevel: int | None = None) -> TSMReport:
        raise AssertionError("behind a paravisor nobody asks the hardware")


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("kind", ReportType)
def test_azures_bundle_is_the_paravisors_report_and_a_fresh_quote(path: Path, kind: ReportType) -> None:
    device = on_azure(path, kind)
    assert device.paravisor_report is not None
    attester = booted(Attester(Absent(), device, paravisor=Hosted(device.paravisor_report)))
    bundle = evidence(attester)
    claims = verified(bundle, roots())
    assert bundle.tee == f"azure-{kind.name.lower()}"
    assert claims.azure is not None and claims.azure.vm_unique_id == "A-1"
    assert claims.tpm is not None and claims.tpm.pcrs[15] == attester.log.pcr
    with pytest.raises(VerifyError, match="tpm quote: extra_data differs"):
        verified(bundle, roots(), key=KEY + b"!")
    launch = asyncio.run(attester.launch())
    assert (launch.tee, launch.measurement) == (kind.name.lower(), claims.measurement)
    device.extend(bytes(32))
    with pytest.raises(VerifyError, match="tpm quote: pcr 15 is"):
        verified(evidence(attester), roots())


def test_on_azure_there_is_no_evidence_for_a_broker_and_none_without_a_quote(path: Path) -> None:
    device = on_azure(path, ReportType.SNP)
    assert device.paravisor_report is not None
    paravisor = Hosted(device.paravisor_report)
    with pytest.raises(MachineError, match="on azure no report of the hardware can carry it"):
        asyncio.run(Attester(Absent(), device, paravisor=paravisor).for_broker(b"\1" * 48 + bytes(16)))
    with pytest.raises(MachineError, match="azure: the vtpm gave no quote"):
        evidence(Attester(Absent(), VTPM(path), paravisor=paravisor))
