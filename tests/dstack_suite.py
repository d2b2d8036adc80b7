"""The tests that dstack's own SDK ships, unmodified, against our key socket on each kind of machine.

    python -m tests.dstack_suite [snp] [tdx] [vtpm]      SUITE=DIR runs the tests in DIR instead

The source distribution comes from the package index, into an environment of its own under build/dstack-suite: what it
depends on is no part of ours. Its check of itself by mypy is left out.
"""

import os
import sys
import tempfile
import venv
from pathlib import Path
from typing import Final

from strongroom.errors import MachineError
from strongroom.host.run import run
from tests import ROOT
from tests.fakes.keysock import BACKENDS, served

VERSION: Final = "0.5.4"
FOLDER: Final = ROOT / "build" / "dstack-suite"
ENVIRONMENT: Final = FOLDER / "venv"
TESTS: Final = FOLDER / f"dstack_sdk-{VERSION}" / "tests"
_NEEDS: Final = (f"dstack-sdk[all]=={VERSION}", "pytest", "pytest-asyncio", "evidence-api")
_NETWORK: Final = 600.0  # seconds
_SUITE: Final = 300.0


def prepare() -> Path:
    """The folder of the SDK's tests, with an environment to run them in; fetched where they are not there yet."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / ".complete").exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        _pip(python, "install", *_NEEDS)
        (ENVIRONMENT / ".complete").touch()
    if not TESTS.is_dir():
        wanted = f"dstack-sdk=={VERSION}"
        _pip(python, "download", wanted, "--no-binary", ":all:", "--no-deps", "--dest", str(FOLDER))
        archive = FOLDER / f"dstack_sdk-{VERSION}.tar.gz"
        run(["tar", "--extract", "--no-same-owner", "--file", archive, "--directory", FOLDER])
    return TESTS


def suite(tests: Path, backend: str) -> tuple[int, str]:
    """pytest's exit status and words for these tests on one kind of machine."""
    with (
        tempfile.TemporaryDirectory(prefix="keysock-") as directory,
        served(Path(directory), backend) as keysock,
    ):
        env = {
            "DSTACK_SIMULATOR_ENDPOINT": str(keysock.path("dstack")),
            "TAPPD_SIMULATOR_ENDPOINT": str(keysock.path("tappd")),
        }
        argv: list[str | Path] = [
            ENVIRONMENT / "bin" / "python",
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
        ]
        argv += [tests, "--deselect", f"{tests.name}/test_mypy_check.py"]
        done = run(argv, env=env, cwd=tests.parent, check=False, timeout=_SUITE)
    return done.status, done.stdout.decode() + done.stderr.decode()


def main(argv: list[str]) -> int:
    chosen = os.environ.get("SUITE")
    tests = prepare()
    if chosen:
        tests = Path(chosen).resolve()
    worst = 0
    for backend in argv or BACKENDS:
        if backend not in BACKENDS:
            raise MachineError(f"dstack suite: {backend} is no machine, want one of {', '.join(BACKENDS)}")
        status, said = suite(tests, backend)
        worst = max(worst, status)
        print(f"{backend:5} {said.strip().splitlines()[-1] if status == 0 else said}", flush=True)
    return worst


def _pip(python: Path, *arguments: str) -> None:
    home = {
        name: os.environ[name] for name in ("HOME", "PIP_INDEX_URL", "PIP_CONFIG_FILE") if name in os.environ
    }
    argv: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    run(argv, env=home, timeout=_NETWORK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
