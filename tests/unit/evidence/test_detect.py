"""Mirrors strongroom/evidence/detect.py: what begins how, and that a guess is never more than a guess."""

import json
import sys

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.binding import Purpose
from strongroom.evidence.bundle import Bundle
from strongroom.evidence.detect import MAX_BYTES, Kind, detect
from strongroom.evidence.eventlog import EventLog
from strongroom.evidence.snp_certs import CertificateTable
from tests.fakes.silicon import silicon

REPORT = silicon().report(bytes(64))
TABLE = CertificateTable.parse(silicon().certificates())
BUNDLE = Bundle(
    report=REPORT, certificates=b"", events=EventLog(()), purpose=Purpose.APPLICATION, challenge=bytes(16)
)
LOG_HEAD = bytes(4) + b"\x03\0\0\0" + bytes(20) + (37).to_bytes(4, "little") + b"Spec ID Event03\0" + bytes(8)

SAMPLES = {
    Kind.SNP: [REPORT, REPORT[:-1], REPORT + b"\0"],
    Kind.SNP_TABLE: [silicon().certificates()],
    Kind.CERTIFICATES: [TABLE.vcek or b"", b"-----BEGIN CERTIFICATE-----\nAA==\n"],
    Kind.CRL: [b"-----BEGIN X509 CRL-----\n"],
    Kind.BUNDLE: [BUNDLE.pack(), BUNDLE.pack_cbor()],
    Kind.KEPT: [b'{"version": "strongroom/kept-evidence/v1"}'],
    Kind.SNP_KBS: [b'{"attestation_report": {}, "cert_chain": null}'],
    Kind.TDX: [b"\4\0\2\0\x81\0\0\0" + bytes(4) + bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")],
    Kind.TDREPORT: [b"\x81" + bytes(1023)],
    Kind.TDX_COLLATERAL: [b'{"tcb_info": "-----BEGIN CERTIFICATE-----", "qe_identity": ""}'],
    Kind.HCL: [b"HCLA"],
    Kind.TPM_QUOTE: [b"\xffTCG\x80\x18"],
    Kind.TPM_SIGNATURE: [bytes.fromhex("0014000b0100"), bytes.fromhex("0018000b0020")],
    Kind.TPM_NUMBER: [b"\x77" * 256],
    Kind.TPM_KEY: [bytes.fromhex("0001000b00050072"), bytes.fromhex("0023000b")],
    Kind.TPM_EVIDENCE: [b'{"ak_public": "", "tpm_quote": {}}'],
    Kind.PCRS: [json.dumps({"0": "00"}).encode(), json.dumps(["00"] * 24).encode()],
    Kind.EVENT_LOG: [
        LOG_HEAD + b"\2\0\0\0" + b"\4\0\x14\0\x0b\0\x20\0" + b"\0",
        bytes(4) + b"\x08\0\0\0" + bytes(20) + b"\4\0\0\0abcd",
    ],
    Kind.CC_LOG: [LOG_HEAD + b"\1\0\0\0" + b"\x0c\0\x30\0" + b"\0"],
    Kind.GPU: [b"\x11\xe0\x01\xff"],
    Kind.GPUS: [b'[{"arch": "HOPPER", "certificate": "", "evidence": "", "nonce": ""}]'],
    Kind.RIM: [b'<?xml version="1.0"?>', b"<SoftwareIdentity>"],
}


@pytest.mark.parametrize(("kind", "data"), [(k, d) for k, samples in SAMPLES.items() for d in samples])
def test_kinds(kind: Kind, data: bytes) -> None:
    assert detect(data) is kind


def test_every_kind_has_a_sample() -> None:
    assert SAMPLES.keys() == {*Kind}


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"{", b"hello", bytes(64), b"[" * 100_000, b"\xff" * 100]
)
def test_what_is_nothing_we_know(data: bytes) -> None:
    with pytest.raises(FormatError, match="no kind of evidence known"):
        detect(data)


def test_depth_is_bounded_whatever_the_interpreter_would_bear() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)  # some library may have done so
    try:
        with pytest.raises(FormatError, match="no kind of evidence known"):
            detect(b"[" * 1_000_000)
    finally:
        sys.setrecursionlimit(limit)


def test_too_much_is_not_looked_at() -> None:
    with pytest.raises(FormatError, match="want at most"):
        detect(bytes(MAX_BYTES + 1))


def test_a_cut_anywhere_is_a_kind_or_an_error_of_ours() -> None:
    for samples in SAMPLES.values():
        for data in samples:
            for end in range(0, len(data), 1 + len(data) // 64):
                try:
                    detect(data[:end])
                except FormatError:
                    continue
