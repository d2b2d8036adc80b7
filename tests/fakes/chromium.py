"""Headless Chromium, as Debian packages it: what a page looks like to a browser, as text and as a picture."""

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests import need

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE: Final = 120  # seconds: it may start on a machine that has much else to do
_FLAGS: Final = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--no-default-browser-check", "--mute-audio", "--enable-logging=stderr", "--v=0",
)  # fmt: skip


def browser() -> str:
    """The program; the running test is skipped, or fails in CI, where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    need(found, "no chromium: run ./setup.sh peers")
    return str(found)


def run(directory: Path, url: str, *flags: str) -> tuple[str, str]:
    """What it prints, and what it complains of; its profile lives below `directory`."""
    command = [browser(), *_FLAGS, f"--user-data-dir={directory / 'profile'}", *flags, url]
    environment = {**os.environ, "HOME": str(directory), "XDG_RUNTIME_DIR": str(directory)}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=directory,
        env=environment,
        start_new_session=True,
    ) as child:
        try:
            out, told = child.communicate(timeout=_PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # its helpers, should any be left
    assert child.returncode == 0, told.decode()
    return out.decode(), told.decode()


def dom(directory: Path, url: str, *flags: str) -> tuple[str, str]:
    """The document after it was loaded, and what the browser said of it."""
    return run(directory, url, "--dump-dom", *flags)


def picture(directory: Path, url: str, *flags: str, width: int = 1100, height: int = 1900) -> bytes:
    """A PNG of the page."""
    path = directory / "page.png"
    run(directory, url, f"--screenshot={path}", f"--window-size={width},{height}", *flags)
    return path.read_bytes()
