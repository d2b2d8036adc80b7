"""Mirrors guest/machine/firmware_log.py: a real log leads to the registers of its quote, others to nothing."""

from pathlib import Path

import pytest

from guest.machine.firmware_log import firmware_log
from strongroom.evidence.dstack_log import replay
from strongroom.evidence.tdx import TDXQuote
from tests import VECTORS

MACHINE = VECTORS / "tdx" / "v4-cos113-ccel"


def test_a_real_log_leads_to_the_registers_of_its_quote() -> None:
    if not MACHINE.is_dir():
        pytest.skip("there are no vectors beside the checkout")
    log = firmware_log(MACHINE / "ccel_data.bin")
    body = TDXQuote.parse((MACHINE / "quote.bin").read_bytes()).body
    assert [replay(log, n) for n in range(3)] == [body.rtmr0, body.rtmr1, body.rtmr2]
    assert {entry.imr for entry in log} == {0, 1, 2}
    assert all(entry.payload == b"" for entry in log)


def test_no_log_is_none(tmp_path: Path) -> None:
    assert firmware_log(tmp_path / "absent") == ()
    for content in (b"", bytes(100), b"\xff" * 100):
        (tmp_path / "bad").write_bytes(content)
        assert firmware_log(tmp_path / "bad") == ()
