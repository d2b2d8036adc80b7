"""Mirrors guest/coco/rest.py and guest/resources.py where they give evidence: over which bytes, of which machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from demo.silicon.vtpm import SOCKET
from guest.coco.plan import Plan
from guest.coco.rules import Right, Rule, Rules
from strongroom.evidence.binding import tpm_nonce
from strongroom.evidence.hcl import ReportType
from strongroom.evidence.kbs_json import from_json
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.tcglog import LogKind, TCGLog
from strongroom.evidence.tdx import TDXQuote
from strongroom.evidence.tpm import Hash, TPMQuote
from strongroom.verify.tcglog import replay
from strongroom.wire.canonical import b64u
from tests.fakes.coco import UID, Coco, allowed, everything, over, served
from tests.unit.guest.test_attester_tpm import AtWork


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coco]:
    with served(tmp_path_factory.mktemp("s"), plan=Plan(rules=everything())) as coco:
        yield coco


def test_evidence_is_over_the_bytes_of_the_caller(shared: Coco) -> None:
    for target, data in (
        ("/aa/evidence?runtime_data=hello%20you", b"hello you"),
        ("/aa/evidence?runtime_data=" + b64u(bytes(range(20))) + "&encoding=base64", bytes(range(20))),
        ("/aa/evidence?runtime_data=", b""),
    ):
        status, kind, body = shared.get(target)
        assert (status, kind) == (200, "application/json")
        found = from_json("snp", json.loads(body))
        assert SNPReport.parse(found.report).report_data == data.ljust(64, b"\0")


OURS: Final = (b"strongroom/rd/v1", bytes(range(1, 49)), bytes(range(1, 34)), bytes(range(1, 65)))


@pytest.mark.guarantee("G8")
def test_bytes_that_could_speak_for_a_key_take_a_right_of_their_own(tmp_path: Path) -> None:
    with allowed(tmp_path, Rule(allow=frozenset({Right.EVIDENCE}))) as coco:
        assert coco.get(over(bytes(range(1, 33)) + bytes(32)))[0] == 200
        for data in OURS[1:]:
            status, _, body = coco.get(over(data))
            assert status == 403 and b"no rule allows raw_evidence" in body
        status, _, body = coco.get(over(OURS[0]))  # short, and yet of our own shape
        assert status == 500 and body.startswith(b"refused: report data: of a shape that is ours")


def test_who_may_have_raw_evidence_has_it(shared: Coco) -> None:
    for data in OURS[1:]:
        status, _, body = shared.get(over(data))
        found = from_json("snp", json.loads(body))
        assert status == 200 and SNPReport.parse(found.report).report_data == data.ljust(64, b"\0")


@pytest.mark.guarantee("G8")
def test_the_agent_counts_the_bytes_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(rules=Rules(uids={UID: Rule(allow=frozenset({Right.EVIDENCE}))}))
    with served(tmp_path, plan=plan) as coco:
        monkeypatch.setattr("guest.resources.SHORT", 30)
        status, _, body = coco.get(over(bytes(range(1, 32))))
        assert (status, body) == (403, b"not allowed: runtime data: 31 bytes, want at most 30")
        assert coco.get(over(bytes(range(1, 34))))[0] == 403


def test_evidence_of_a_td_brings_a_log_that_replays(tmp_path: Path) -> None:
    with served(tmp_path, "tdx") as coco:
        found = from_json("tdx", json.loads(coco.get("/aa/evidence?runtime_data=a")[2]))
        body, log = TDXQuote.parse(found.report).body, TCGLog.parse(found.log, LogKind.CC)
        assert replay(log, Hash.SHA384) == dict(enumerate(body.rtmrs, 1)) and body.rtmr3 == coco.events.head
        (tmp_path / "ccel").unlink()
        bare = from_json("tdx", json.loads(coco.get("/aa/evidence?runtime_data=a")[2]))
        assert bare.log == b""
        assert json.loads(coco.get("/info")[2])["tee"] == "tdx"


def azure_quote(answer: tuple[int, str, bytes]) -> TPMQuote:
    status, kind, body = answer
    assert (status, kind) == (200, "application/json")
    found = from_json("az-snp-vtpm", json.loads(body))
    assert found.tpm is not None and found.tpm.indices == frozenset(range(24))
    return TPMQuote.parse(found.tpm.attest)


def test_evidence_of_azure_is_over_exactly_the_bytes_of_the_caller(tmp_path: Path) -> None:
    rule = Rule(allow=frozenset({Right.EVIDENCE}))
    with allowed(tmp_path, rule, "vtpm") as coco, AtWork(tmp_path / "tpm" / SOCKET, ReportType.SNP):
        for data in (b"hello", bytes(range(1, 33)) + b"\0"):
            assert azure_quote(coco.get(over(data))).extra_data == data
        status, _, body = coco.get(over(b""))
        assert (status, body[:29]) == (500, b"refused: report data: 0 bytes")


@pytest.mark.guarantee("G8")
def test_no_program_gets_a_quote_that_could_be_a_bundles(tmp_path: Path) -> None:
    nonce = tpm_nonce(b"strongroom/rd/v1" + bytes(48))  # for whatever key and purpose
    with allowed(tmp_path, Rule(allow=frozenset({Right.EVIDENCE})), "vtpm") as coco:
        for data in (nonce, bytes(32), b"strongroom/rd/v1"):
            status, _, body = coco.get(over(data))
            assert status == 500 and body.startswith(b"refused: report data: of a shape that is ours")
        assert coco.get(over(bytes(range(1, 49))))[0] == 403
    everywhere = Rule(allow=frozenset({Right.EVIDENCE, Right.RAW_EVIDENCE}))
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw/tpm" / SOCKET
    with allowed(tmp_path / "raw", everywhere, "vtpm") as coco, AtWork(path, ReportType.SNP):
        for data in (nonce, bytes(range(1, 49))):
            assert azure_quote(coco.get(over(data))).extra_data == data


def test_evidence_of_devices_is_a_map(shared: Coco) -> None:
    assert shared.get("/aa/additional-evidence?runtime_data=a") == (200, "application/json", b"{}")
