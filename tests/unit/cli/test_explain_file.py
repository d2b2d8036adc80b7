"""Mirrors strongroom/cli/explain_file.py."""

from pathlib import Path

import pytest

from strongroom.cli.main import main
from tests.fakes.silicon import silicon
from tests.fuzz.targets import specimens

Capture = pytest.CaptureFixture[str]


def explained(tmp_path: Path, content: bytes) -> int:
    (tmp_path / "evidence").write_bytes(content)
    return main(["explain", str(tmp_path / "evidence")])


def test_a_report_field_by_field(tmp_path: Path, capsys: Capture) -> None:
    assert explained(tmp_path, silicon().report(bytes(64))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("evidence: snp report, 1184 bytes")
    (measurement,) = [line for line in lines if " MEASUREMENT " in line]
    assert measurement.split() == ["0x00090", "48", "MEASUREMENT", silicon().measurement.hex()]


def test_a_damaged_report_is_shown_as_far_as_it_goes(tmp_path: Path, capsys: Capture) -> None:
    assert explained(tmp_path, silicon().report(bytes(64))[:-1]) == 4
    out, err = capsys.readouterr()
    assert " SIGNATURE.S " in out and err == "strongroom: snp report: got 1183 bytes, want 1184\n"


def test_certificates_and_a_table_of_them(tmp_path: Path, capsys: Capture) -> None:
    assert explained(tmp_path, silicon().certificates()) == 0
    assert "entry[0].guid" in capsys.readouterr().out


def test_json_by_its_keys(tmp_path: Path, capsys: Capture) -> None:
    assert explained(tmp_path, b'{"0": "00", "1": "\x1b[2J"}'.replace(b"\x1b", b"\\u001b")) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\\x1b[2J" in out


def test_a_folder_and_what_nobody_knows(tmp_path: Path, capsys: Capture) -> None:
    assert main(["explain", str(tmp_path)]) == 3
    assert explained(tmp_path, b"hello") == 4
    assert capsys.readouterr().err.count("\n") == 2


def test_every_specimen_is_explained_or_refused_in_one_line(tmp_path: Path, capsys: Capture) -> None:
    for kind, contents in specimens().items():
        for content in contents:
            code = explained(tmp_path, content)
            out, err = capsys.readouterr()
            assert code in (0, 4, 5) and out.splitlines()[0].endswith(f"{kind}, {len(content)} bytes")
            assert err == "" if code == 0 else err.count("\n") == 1 and "defect" not in err
