"""Mirrors sidecars/proxy/__main__.py."""

import asyncio

import pytest

from sidecars.proxy import __main__ as daemon
from sidecars.proxy.__main__ import report


@pytest.mark.guarantee("G14")
def test_a_defect_is_logged_by_kind_and_place_never_by_its_text(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    try:
        raise KeyError("correct horse battery staple")
    except KeyError as error:
        report(loop, {"exception": error, "message": "Task exception was never retrieved"})
    report(loop, {"message": "something with a prompt: correct horse"})
    loop.close()
    assert "defect: KeyError at test_main.py:" in caplog.text
    assert "correct" not in caplog.text


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
