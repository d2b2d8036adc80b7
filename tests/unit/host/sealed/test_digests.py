"""Mirrors strongroom/host/sealed/digests.py."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from strongroom.errors import MachineError
from strongroom.host.sealed.digests import digests
from strongroom.host.sealed.plain import scan
from strongroom.sealed.manifest import SealedFile
from tests.fakes.sealed import counter, make_source


def test_digests_of_large_files(tmp_path: Path) -> None:
    contents = make_source(tmp_path)
    (tmp_path / "big").write_bytes(os.urandom((3 << 20) + 11))
    contents["big"] = (tmp_path / "big").read_bytes()
    files = [
        one for one in scan(tmp_path, dereference=False, entropy=counter()) if isinstance(one, SealedFile)
    ]
    done: list[int] = []
    found = digests(tmp_path, files, done.append)
    assert found == {file.path: sha256(contents[file.path]).digest() for file in files}
    assert done[-1] == sum(file.size for file in files)
    os.truncate(tmp_path / "big", 100)
    with pytest.raises(MachineError, match="big: changed while it was sealed"):
        digests(tmp_path, files)
