"""Mirrors sidecars/proxy/admin.py; what it answers is in tests/integration/test_door.py."""

import asyncio
from pathlib import Path

import pytest

from sidecars.proxy.admin import serve_admin
from strongroom.errors import MachineError


def test_a_socket_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"admin socket .*: no such file or directory"):
        asyncio.run(serve_admin(tmp_path / "absent" / "admin.sock", lambda: None))
