"""No bit under a signature can be turned over; a part of what `python -m tests.flip_table` tries in full."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.snp import SIGNED_SIZE, SNPReport
from strongroom.evidence.snp_certs import CertificateTable
from strongroom.verify.roots import PRODUCTION
from strongroom.verify.snp import verify_report
from tests import VECTORS
from tests.fakes import silicon as silicon_fake
from tests.flip_table import main
from tests.vectors.flips import Sweep, sweeps
from tests.vectors.index import VectorSet

STEP = 61  # coprime to 8: every bit of a byte has its turn


def test_a_sweep_finds_what_is_accepted_and_what_is_a_defect() -> None:
    def check(data: bytes) -> object:
        if data[0] == 3:
            raise FormatError("refused")
        return 1 // (data[0] ^ 0x42)

    swept = Sweep("made", b"\x02", ((0, 1),), check).run()
    assert swept.tried == 8 and len(swept.accepted) == 6  # 3 is refused, 0x42 divides by nothing
    assert swept.defects == ("bit 6: ZeroDivisionError: integer division or modulo by zero",)


def test_what_reads_the_same_is_no_change() -> None:
    sweep = Sweep("made", b"a", ((0, 1),), lambda data: data, bytes.upper)
    assert sweep.run().tried == 7


def test_simulated_silicon(record_property: Callable[[str, object], None]) -> None:
    silicon = silicon_fake.silicon()
    table, roots = CertificateTable.parse(silicon.certificates()), silicon_fake.roots(silicon)
    sweep = Sweep(
        "snp report by simulated silicon",
        silicon.report(bytes(64)),
        ((0, SIGNED_SIZE), (0x2A0, 0x2D0), (0x2E8, 0x318)),
        lambda data: verify_report(
            SNPReport.parse(data), table, roots=roots, now=silicon_fake.NOT_BEFORE.replace(year=2026)
        ),
    )
    swept = sweep.run(STEP)
    record_property("tried", swept.tried)
    assert swept.tried > 100 and not swept.accepted and not swept.defects


def test_genuine_evidence_of_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    if not (VECTORS / "index.json").exists():
        pytest.skip("no real vectors beside this checkout")
    assert main([str(VECTORS), "--step", str(STEP)]) == 0
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last[0] == "all" and int(last[1]) > 3000 and last[2:] == ["0", "0"]


def test_the_ranges_lie_inside_the_evidence() -> None:
    if not (VECTORS / "index.json").exists():
        pytest.skip("no real vectors beside this checkout")
    found = list(sweeps(VectorSet.load(VECTORS), PRODUCTION))
    assert len(found) >= 7
    for sweep in found:
        assert all(0 <= start < end <= len(sweep.data) for start, end in sweep.ranges), sweep.what
        assert replace(sweep).bits()


def test_no_set_is_a_usage_error(tmp_path: object) -> None:
    assert main([str(tmp_path)]) == 2
