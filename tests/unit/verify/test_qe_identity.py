"""Mirrors strongroom/verify/qe_identity.py. The refusal of each foreign enclave is shown with whole quotes."""

import json
from dataclasses import replace
from typing import Any

import pytest

from strongroom.errors import FormatError, VerifyError
from strongroom.verify.qe_identity import QEIdentity
from strongroom.verify.tdx_tcb import TCBStatus
from tests.fakes.intel import QE_IDENTITY, QE_REPORT, isv_level


def identity(**changes: Any) -> QEIdentity:
    return QEIdentity.parse(json.dumps({**QE_IDENTITY, **changes}).encode())


@pytest.mark.parametrize(("isv_svn", "status"), [(9, "UpToDate"), (6, "UpToDate"), (5, "OutOfDate")])
def test_the_first_level_reached_counts(isv_svn: int, status: str) -> None:
    assert identity().standing(replace(QE_REPORT, isv_svn=isv_svn)).status is TCBStatus(status)


def test_a_masked_bit_is_free_and_any_other_is_not() -> None:
    good = bytearray(QE_REPORT.attributes)
    good[0] ^= 4
    good[15] ^= 0x80
    identity().standing(replace(QE_REPORT, attributes=bytes(good)))
    for at in range(8):
        bad = bytearray(QE_REPORT.attributes)
        bad[at] ^= 0x80
        with pytest.raises(VerifyError, match="want the identity's, no debug"):
            identity().standing(replace(QE_REPORT, attributes=bytes(bad)))


def test_a_debug_enclave_is_refused_whatever_the_mask() -> None:
    debug = replace(QE_REPORT, attributes=b"\x17" + QE_REPORT.attributes[1:])
    with pytest.raises(VerifyError, match="no debug"):
        identity(attributesMask="00" * 16, attributes="00" * 16).standing(debug)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "QE"},
        {"version": 1},
        {"version": "2"},
        {"mrsigner": "00"},
        {"isvprodid": 65536},
        {"tcbLevels": [{"tcb": {}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "UpToDate"}]},
        {"issueDate": "2026-01-01"},
    ],
)
def test_other_documents_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="qe identity"):
        identity(**changes)


def test_an_unknown_status_and_no_level_are_refused() -> None:
    with pytest.raises(VerifyError, match="tcbStatus is 'Fine'"):
        identity(tcbLevels=[isv_level(1, "Fine")])
    with pytest.raises(VerifyError, match="below every level"):
        identity(tcbLevels=[]).standing(QE_REPORT)
