"""Mirrors sidecars/proxy/__main__.py."""

import asyncio

import pytest

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
