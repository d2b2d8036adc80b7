"""Where things are, and what to do when this machine cannot run a test."""

import os
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
VECTORS: Final = ROOT.parent / "shared" / "vectors"  # real evidence, kept outside this repository
CI: Final = os.environ.get("STRONGROOM_CI") == "1"


def need(condition: object, reason: str) -> None:
    """Skip the running test unless `condition`; where the build machine has to show it, fail instead.

    For what ./setup.sh can bring about (a device, a program, an environment). What no machine is bound to have, such
    as a GPU or the vectors beside the checkout, is an ordinary pytest.skip.
    """
    if condition:
        return
    if CI:
        pytest.fail(f"this machine should be able to run this test: {reason}", pytrace=False)
    pytest.skip(reason)
