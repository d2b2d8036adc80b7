"""Mirrors bench/ingress: small rounds of ours and of plain Python, and a last line that is one JSON object."""

import json
import shutil
from pathlib import Path

import pytest

from bench.ingress import __main__ as ingress
from bench.ingress import report, subjects
from bench.ingress.cases import CASES, Measured, Round
from tests import need


def measured(**cpu: float) -> Measured:
    one = Measured(next(case for case in CASES if case.name == "16 clients ask"))
    one.rounds = {name: [Round(1000, spent / 1000, 10, 20)] for name, spent in cpu.items()}
    return one


def test_targets_are_judged_where_both_sides_were_measured() -> None:
    found = list(report.judged([measured(strongroom=39.0, aiohttp=100.0)]))
    assert [(one.target.over, round(one.value, 2), one.met) for one in found] == [
        ("", 39.0, True),
        ("aiohttp", 0.39, False),
    ]
    assert "MISSED" in report.text([measured(strongroom=50.0)], ["a note"])


@pytest.mark.slow
def test_every_subject_that_is_there_has_figures(capsys: pytest.CaptureFixture[str]) -> None:
    need(shutil.which("cc") is not None, "there is no C compiler")
    need(Path("/usr/include/openssl/ssl.h").exists(), "there are no headers of OpenSSL")
    arguments = ["--rounds", "1", "--seconds", "0.3", "--only", "one client asks", "--only", "16 streams"]
    assert ingress.main([*arguments, "--subject", subjects.OURS, "--subject", subjects.PYTHON]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["cases"].keys() == {"one client asks", "16 streams"}
    for case in found["cases"].values():
        assert case.keys() == {subjects.OURS, subjects.PYTHON}
        assert all(figure["count"] > 0 and figure["cpu_us"] > 0 for figure in case.values())
