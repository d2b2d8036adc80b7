"""Mirrors guest/cc_log.py: a genuine TD's log from the vectors beside the checkout, and the log of a double."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from guest.attester import Attester
from guest.cc_log import cc_log
from strongroom.broker.exchange import Collect
from strongroom.broker.messages import Challenge
from strongroom.evidence.aael import END, GUEST_REGISTER, records_of, whole_log
from strongroom.evidence.eventlog import Event, EventLog
from strongroom.evidence.kbs import Digests
from strongroom.evidence.kbs_json import from_json, to_json
from strongroom.evidence.tcglog import LogKind, TCGLog
from strongroom.evidence.tdx import TDXQuote
from strongroom.evidence.tpm import Hash
from strongroom.verify.kbs import verify_kbs
from strongroom.verify.tcglog import confirmed
from tests import VECTORS, need
from tests.fakes.composite import NOW, collateral, roots
from tests.fakes.keysock import FakeTD, ccel

REAL = VECTORS / "tdx" / "v4-cos113-ccel"
OURS = EventLog((Event("userdata", bytes(32)), Event("boot-done", b"{}")))


def quote(third: bytes = OURS.head) -> bytes:
    td = FakeTD()
    td.third = third
    return td.report(bytes(64)).outblob


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "ccel").write_bytes(ccel())
    return tmp_path / "ccel"


def test_a_genuine_machines_log_goes_with_its_quote() -> None:
    need(REAL.is_dir(), "the vectors are not there")
    raw = (REAL / "quote.bin").read_bytes()
    whole = cc_log(raw, OURS, REAL / "ccel_data.bin")  # its register 3 is nobody's: our log is not in it
    firmware = TCGLog.parse((REAL / "ccel_data.bin").read_bytes(), LogKind.CC)
    assert whole == firmware.pack() + END and len(whole) < 20_000
    assert TCGLog.parse(whole, LogKind.CC).records == firmware.records
    registers = dict(enumerate(TDXQuote.parse(raw).body.rtmrs, 1))
    assert len(confirmed(TCGLog.parse(whole, LogKind.CC), registers, Hash.SHA384)) == 43


def test_a_log_that_does_not_lead_to_the_registers_stays_here() -> None:
    need(REAL.is_dir(), "the vectors are not there")
    raw = (REAL / "quote.bin").read_bytes()
    for other in ("ccel-dup-separator", "ccel-ovmf-qemu", "ccel-aael-alibaba"):
        assert cc_log(raw, OURS, VECTORS / "tpm" / other / "ccel.bin") == b""


def test_our_events_follow_the_firmwares(path: Path) -> None:
    whole = cc_log(quote(), OURS, path)
    assert whole == whole_log(ccel(), records_of(OURS)) and whole.endswith(records_of(OURS) + END)
    log = TCGLog.parse(whole, LogKind.CC)
    said = [record.event for record in log.records if record.register == GUEST_REGISTER]
    assert said == [event.measured for event in OURS.events]


def test_without_a_register_that_follows_them_they_are_left_out(path: Path) -> None:
    assert cc_log(quote(bytes(48)), OURS, path) == whole_log(ccel(), b"")
    assert cc_log(quote(bytes([1]) * 48), OURS, path) == b""  # somebody else's events are in it
    assert cc_log(quote(), EventLog(OURS.events[:1]), path) == b""


def test_a_log_that_would_not_fit_into_a_request_is_left_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(cc_log(quote(), OURS, path))
    monkeypatch.setattr("guest.cc_log.MAX_BYTES", size)
    assert len(cc_log(quote(), OURS, path)) == size
    monkeypatch.setattr("guest.cc_log.MAX_BYTES", size - 1)
    assert cc_log(quote(), OURS, path) == b""


def test_a_machine_without_a_log_has_none(path: Path) -> None:
    assert cc_log(quote(), OURS, path.with_name("absent")) == b""
    assert cc_log(b"no quote", OURS, path) == b""


def test_every_cut_and_every_flipped_byte_gives_none(path: Path) -> None:
    good, size = ccel(), len(ccel()) - 64
    kept = 0
    for at in range(0, size, 7):
        path.write_bytes(good[:at])
        assert cc_log(quote(), OURS, path) == b""
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        changed = cc_log(quote(), OURS, path)  # what is only said beside a digest is not measured
        assert changed == b"" or len(changed) == len(cc_log_of(good, path))
        kept += changed != b""
    assert kept < size // 7 // 4


def cc_log_of(firmware: bytes, path: Path) -> bytes:
    path.write_bytes(firmware)
    return cc_log(quote(), OURS, path)


@pytest.mark.guarantee("G1")
def test_a_broker_gets_the_log_with_the_quote_and_replays_it(path: Path) -> None:
    td = FakeTD()
    attester = Attester(td, rtmr=td, ccel=path)
    for event in OURS.events:
        asyncio.run(attester.extend(event.name, event.payload))
    asked = Collect(Challenge("n" * 44), {"kty": "EC"})
    made = asyncio.run(attester.for_broker(asked))
    assert made.primary.tee == "tdx" and made.primary.log == whole_log(ccel(), records_of(attester.log))
    assert from_json("tdx", to_json(made.primary)) == made.primary
    wanted = Digests(primary=asked.digest((), None), device=asked.device_nonce)
    claims = verify_kbs(made, wanted, roots=roots(), now=NOW, collateral=collateral())
    assert claims.tee == "tdx"
    path.unlink()
    bare = asyncio.run(attester.for_broker(asked))
    assert bare.primary.log == b"" and bare.primary.report
    verify_kbs(
        replace(bare, primary=replace(bare.primary, log=made.primary.log)),
        wanted,
        roots=roots(),
        now=NOW,
        collateral=collateral(),
    )
