"""Mirrors sidecars/proxy/__main__.py."""

import pytest

from sidecars.proxy import __main__ as daemon


@pytest.mark.guarantee("G14")
def test_a_defect_of_the_process_is_told_as_little(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise KeyError("correct horse battery staple")

    monkeypatch.setattr(daemon, "read_credential", fail)
    assert daemon.main() == 1
    assert "defect: KeyError at test_main.py:" in caplog.text
    assert "correct" not in caplog.text + "".join(capfd.readouterr())
