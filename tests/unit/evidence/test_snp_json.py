"""Mirrors strongroom/evidence/snp_json.py."""

import copy
from typing import Any, Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.snp import SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.evidence.snp_json import from_kbs, to_kbs
from strongroom.wire.canonical import pack_json, parse_json
from tests import VECTORS
from tests.fakes.silicon import silicon

REAL: Final = sorted(VECTORS.glob("snp/*/report.bin"))
REPORT: Final = silicon().report(bytes(range(64)))
TABLE: Final = CertificateTable(vcek=b"leaf", ask=b"intermediate", ark=b"root")


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.parent.name)
def test_a_real_report_survives_json(path: Any) -> None:
    data = path.read_bytes()
    report, table = from_kbs(parse_json(pack_json(to_kbs(data, CertificateTable())), "evidence"))
    assert report.pack() == data
    assert table == CertificateTable()


def test_members_have_the_names_of_the_protocol() -> None:
    evidence: Any = to_kbs(REPORT, TABLE)
    report = evidence["attestation_report"]
    assert report["version"] == 3
    assert report["sig_algo"] == 1
    assert report["report_data"] == list(range(64))
    assert report["reported_tcb"] == {"fmc": None, "bootloader": 10, "tee": 0, "snp": 23, "microcode": 84}
    assert report["current"] == {"major": 1, "minor": 55, "build": 40}
    assert (report["cpuid_fam_id"], report["launch_mit_vector"]) == (0x19, None)
    assert len(report["signature"]["r"]) == 72
    assert evidence["cert_chain"][0] == {"cert_type": "VCEK", "data": list(b"leaf")}
    assert from_kbs(evidence) == (SNPReport.parse(REPORT), TABLE)


def test_releases_without_mitigation_vectors_are_read() -> None:
    evidence: Any = to_kbs(REPORT, TABLE)
    del (
        evidence["attestation_report"]["launch_mit_vector"],
        evidence["attestation_report"]["current_mit_vector"],
    )
    assert from_kbs(evidence)[0].pack() == REPORT


def test_certificates_of_other_kinds_are_passed_over() -> None:
    evidence: Any = to_kbs(REPORT, CertificateTable())
    assert evidence["cert_chain"] is None
    evidence["cert_chain"] = [
        {"cert_type": "Empty", "data": []},
        {"cert_type": {"OTHER": "00000000-0000-4000-8000-000000000001"}, "data": [1]},
        {"cert_type": "VCEK", "data": [1, 2]},
    ]
    assert from_kbs(evidence)[1] == CertificateTable(vcek=b"\1\2")


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("", None, "snp evidence: not an object"),
        ("quote", 1, "snp evidence: unknown key 'quote'"),
        ("attestation_report", [], "attestation_report: not an object"),
        ("attestation_report/_reserved", 0, "unknown key '_reserved'"),
        ("attestation_report/policy", "0x3", "policy: got '0x3', want a whole number"),
        ("attestation_report/policy", True, "policy: got True"),
        ("attestation_report/policy", None, "policy: got None"),
        ("attestation_report/policy", 2**64, "policy does not fit 8 bytes"),
        ("attestation_report/version", 9, "version is 9, want 2..5"),
        ("attestation_report/measurement", "00", "want a list of at most 64 bytes"),
        ("attestation_report/measurement", [0] * 65, "want a list of at most 64 bytes"),
        ("attestation_report/measurement", [0] * 47, "measurement is 47 bytes, want 48"),
        ("attestation_report/measurement", [256] * 48, "holds 256, want bytes 0..255"),
        ("attestation_report/measurement", [False] * 48, "holds False"),
        ("attestation_report/launch_tcb", {"fmc": None}, "launch_tcb: no bootloader"),
        ("attestation_report/launch_tcb/snp", 256, "tcb: snp is 256"),
        ("attestation_report/launch_tcb/fmc", 1, "launch_tcb has the layout of another processor family"),
        ("attestation_report/current/build", 256, "firmware version: 1.55.256"),
        ("attestation_report/signature/r", [0] * 71, "signature.r: 71 bytes, want 72"),
        ("attestation_report/signature/s", [1] * 72, "signature_s does not fit 48 bytes"),
        ("attestation_report/current_mit_vector", 1, "mitigation vectors in version 3"),
        ("cert_chain", {}, "cert_chain: want null or a list of at most 16"),
        ("cert_chain", [{}] * 17, "cert_chain: want null or a list of at most 16"),
        ("cert_chain", [{"cert_type": "VCEK"}], r"cert_chain\[0\]: no data"),
        ("cert_chain", [{"cert_type": "VCEK", "data": [1]}] * 2, "VCEK appears twice"),
        ("cert_chain", [{"cert_type": "ASK", "data": []}], "ask is 0 bytes"),
        ("cert_chain", [{"cert_type": "ASK", "data": [0] * 16385}], "at most 16384 bytes"),
    ],
)
def test_other_shapes_are_refused(path: str, value: Any, why: str) -> None:
    evidence: Any = copy.deepcopy(to_kbs(REPORT, TABLE))
    *parents, last = path.split("/")
    at = evidence
    for name in parents:
        at = at[name]
    if last:
        at[last] = value
    with pytest.raises(FormatError, match=why):
        from_kbs(evidence if last else value)
