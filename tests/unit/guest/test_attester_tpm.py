"""Mirrors guest/attester.py where there is a vTPM: a real swtpm, certified by a cloud or vouched for by a paravisor."""

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256, sha384
from pathlib import Path
from typing import Any, Self

import pytest

from demo.silicon.vtpm import vtpm
from demo.silicon.vtpm_authority import AK_TEMPLATE, certify, define
from guest.attester import Attester
from guest.machine.azure import HCL_REPORT, USER_DATA, Paravisor, report_with
from guest.machine.tpm import TPM, opened
from guest.machine.tpm_nv import TPM_CC_NV_WRITE, TPM_RH_OWNER, keep, read_index, write_index
from guest.machine.tpm_quote import AZURE_KEY, attestation_key
from guest.machine.tsm import TSMReport
from guest.machine.vtpm import BROKER_KEY, VTPM
from strongroom.appraise.policy import Policy
from strongroom.appraise.verdict import appraise
from strongroom.broker.exchange import Collect
from strongroom.broker.messages import Challenge
from strongroom.errors import MachineError, PolicyError, VerifyError
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.hcl import HCLReport, ReportType
from strongroom.evidence.kbs import Digests
from strongroom.evidence.tdx import TDReport
from strongroom.evidence.tpm import Hash, TPMPublic
from strongroom.verify.bundle import verify_bundle
from strongroom.verify.claims import Claims
from strongroom.verify.kbs import verify_kbs
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
INIT_DATA = sha384(b"init-data").digest()
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


def test_on_azure_there_is_no_evidence_without_a_quote(path: Path) -> None:
    device = on_azure(path, ReportType.SNP)
    assert device.paravisor_report is not None
    paravisor = Hosted(device.paravisor_report)
    with pytest.raises(MachineError, match="azure: the vtpm gave no quote"):
        evidence(Attester(Absent(), VTPM(path), paravisor=paravisor))
    with pytest.raises(MachineError, match="azure: there is no vtpm"):
        asyncio.run(Attester(Absent(), paravisor=paravisor).for_broker(ASKED))


class AtWork:
    """The paravisor: it sees what the guest writes into its index, and after a while makes the report anew."""

    def __init__(self, path: Path, kind: ReportType) -> None:
        self._path, self._kind = path, kind
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _work(self) -> None:
        seen = b""
        while not self._end.wait(0.01):
            with opened(self._path) as tpm:
                written = read_index(tpm, USER_DATA) or b""
            if written == seen:
                continue
            seen = written
            with opened(self._path) as tpm:
                report = HCLReport.parse(read_index(tpm, HCL_REPORT) or b"")
                value = json.loads(report.variable_data) | {"user-data": written.hex().upper()}
                renewed = _report(json.dumps(value).encode(), self._kind)
                write_whole(tpm, HCL_REPORT, renewed)


def _report(data: bytes, kind: ReportType) -> bytes:
    bound = Hash.SHA256.digest(data).ljust(64, b"\0")
    if kind is ReportType.SNP:
        report = silicon().report(bound)
    else:
        body = replace(BODY_1_5, report_data=bound)
        report = TDReport(version=0, cpu_svn=bytes(16), mac=bytes(32), valid=b"\xff" * 8, body=body).pack()
    return replace(hcl(data, report, kind), size=2048).pack()


def write_whole(tpm: TPM, index: int, content: bytes) -> None:
    for offset in range(0, len(content), 512):
        piece = content[offset : offset + 512]
        written = len(piece).to_bytes(2, "big") + piece + offset.to_bytes(2, "big")
        handles = TPM_RH_OWNER.to_bytes(4, "big") + index.to_bytes(4, "big")
        tpm.authorised(TPM_CC_NV_WRITE, handles, written, "nv_write")


ASKED = Collect(Challenge("n" * 44, takes_events=True), {"kty": "EC"})


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("kind", ReportType)
def test_azures_evidence_for_a_broker_carries_the_digest_twice(path: Path, kind: ReportType) -> None:
    device = on_azure(path, kind)
    assert device.paravisor_report is not None
    attester = booted(Attester(Absent(), device, paravisor=Hosted(device.paravisor_report)))
    tee = asyncio.run(attester.broker_tee())
    assert tee == f"az-{kind.name.lower()}-vtpm"
    with AtWork(path, kind):
        for nonce in ("n" * 44, "m" * 44):  # again and again, and each is made anew
            asked = Collect(Challenge(nonce, takes_events=True), {"kty": "EC"})
            made = asyncio.run(attester.for_broker(asked))
            wanted = Digests(primary=asked.digest((), attester.log), device=asked.device_nonce + bytes(16))
            claims = verify_kbs(made, wanted, roots=roots(), now=NOW, collateral=collateral())
            assert (made.primary.tee, claims.events) == (tee, attester.log)
            assert claims.azure is not None and claims.azure.user_data == wanted.primary + bytes(16)
            assert claims.tpm is not None and claims.tpm.pcrs[15] == attester.log.pcr
            other = replace(wanted, primary=bytes(48))
            with pytest.raises(VerifyError, match="tpm quote: extra_data differs"):
                verify_kbs(made, other, roots=roots(), now=NOW, collateral=collateral())
        # Evidence of the other kind goes on beside it, by the report of the boot.
        assert verified(evidence(attester), roots()).azure is not None


def test_a_paravisor_that_makes_no_new_report_is_named(path: Path) -> None:
    on_azure(path, ReportType.SNP)
    moments = iter(range(0, 100, 5))
    with pytest.raises(MachineError, match="azure: no report with our data within 15 s"):
        report_with(path, b"data", clock=lambda: float(next(moments)), sleep=lambda _: None)
    with opened(path) as tpm:
        assert read_index(tpm, USER_DATA) == b"data".ljust(64, b"\0")
        write_index(tpm, USER_DATA, b"shorter")  # as another agent may have left it
    with pytest.raises(MachineError, match="no report with our data"):
        report_with(path, b"other", clock=iter([0.0, 99.0]).__next__, sleep=lambda _: None)
    with opened(path) as tpm:
        assert read_index(tpm, USER_DATA) == b"other".ljust(64, b"\0")


def test_a_tpm_alone_speaks_by_a_key_that_stays(path: Path) -> None:
    attester = booted(Attester(None, VTPM(path)))
    made = asyncio.run(attester.for_broker(ASKED))
    again = asyncio.run(booted(Attester(None, VTPM(path))).for_broker(ASKED))
    assert made.primary.key == again.primary.key
    believed = roots().with_tpm_keys([sha256(made.primary.key).digest()])
    wanted = Digests(primary=ASKED.digest((), attester.log), device=ASKED.device_nonce + bytes(16))
    claims = verify_kbs(made, wanted, roots=believed, now=NOW)
    assert claims.tee == "tpm" and claims.tpm is not None and claims.tpm.pcrs[15] == attester.log.pcr
    with opened(path) as tpm, attestation_key(tpm, AK_TEMPLATE) as key:
        keep(tpm, key.handle, BROKER_KEY)
    kept = asyncio.run(attester.for_broker(ASKED))
    assert kept.primary.key == made.primary.key  # of the same template


@pytest.mark.guarantee("G2")
def test_init_data_enters_its_register_once(path: Path) -> None:
    attester = Attester(None, VTPM(path))
    asyncio.run(attester.bind_init_data(INIT_DATA))
    made = asyncio.run(attester.for_broker(ASKED))
    wanted = Digests(primary=ASKED.digest((), attester.log), device=ASKED.device_nonce, init_data=INIT_DATA)
    believed = roots().with_tpm_keys([sha256(made.primary.key).digest()])
    assert verify_kbs(made, wanted, roots=believed, now=NOW).tpm is not None
    with pytest.raises(VerifyError, match="tpm quote: pcr 8 is"):
        verify_kbs(made, replace(wanted, init_data=bytes(32)), roots=believed, now=NOW)
    with pytest.raises(MachineError, match=r"tpm pcr 8: is [0-9a-f]{64}, want zeros"):
        asyncio.run(attester.bind_init_data(INIT_DATA))


@pytest.mark.guarantee("G8")
def test_no_broker_gets_evidence_over_a_digest_that_a_program_could_choose() -> None:
    asked = Collect(Challenge("n" * 44, hash="sha256"), {"kty": "EC"})
    with pytest.raises(PolicyError, match="hash is sha256"):
        asyncio.run(Attester(FakeTSM()).for_broker(asked))
