"""Modes, owners, times and extended attributes in a mounted volume."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.live import Live, refused
from tests.fakes.sealed import pattern

pytestmark = pytest.mark.usefixtures("fuse_device", "real")
BLOCK = 4096
MIB = 1 << 20


def test_modes_owners_and_times(top: Path) -> None:
    (top / "f").write_bytes(b"x")
    os.chmod(top / "f", 0o4751)
    assert stat.S_IMODE((top / "f").stat().st_mode) == 0o4751
    os.chown(top / "f", 1000, 1001)
    status = (top / "f").stat()
    assert (status.st_uid, status.st_gid) == (1000, 1001)
    os.chown(top / "f", -1, 5)
    assert (top / "f").stat().st_uid == 1000
    os.utime(top / "f", ns=(123456789012345678, 987654321098765432))
    status = (top / "f").stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == (123456789012345678, 987654321098765432)
    subprocess.run(["touch", "-m", "-d", "@5", str(top / "f")], check=True)
    status = (top / "f").stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == (123456789012345678, 5 * 10**9)
    subprocess.run(["touch", "-a", str(top / "f")], check=True)
    assert (top / "f").stat().st_mtime_ns == 5 * 10**9
    os.mkdir(top / "d", 0o2770)
    os.chmod(top / "d", 0o2770)
    os.chmod(top, 0o755)


def test_writing_takes_setuid_away(top: Path) -> None:
    (top / "f").write_bytes(b"x")
    script = "import os, sys; os.chdir(sys.argv[1]); os.setuid(1000); open('f', sys.argv[2]).write('y')"
    os.chmod(top, 0o777)
    for mode in ("r+", "w"):
        os.chmod(top / "f", 0o6777)
        subprocess.run([sys.executable, "-c", script, str(top), mode], check=True)
        assert stat.S_IMODE((top / "f").stat().st_mode) == 0o777, mode


def test_what_a_user_makes_is_the_users(top: Path) -> None:
    os.chmod(top, 0o777)
    os.mkdir(top / "group")
    os.chown(top / "group", 0, 77)
    os.chmod(top / "group", 0o2777)
    script = """if True:
        import os, sys
        os.chdir(sys.argv[1]); os.setgid(1001); os.setuid(1000); os.umask(0o027)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o666)); os.mkdir("dir"); os.symlink("x", "link")
        os.mkfifo("pipe"); os.close(os.open("group/file", os.O_CREAT | os.O_WRONLY)); os.mkdir("group/dir")
        try: os.chown("file", 0, 0)
        except PermissionError: pass
        else: sys.exit("chown")
    """
    subprocess.run([sys.executable, "-c", script, str(top)], check=True)
    for name, mode in {"file": 0o640, "dir": 0o750, "link": 0o777, "pipe": 0o640}.items():
        status = (top / name).lstat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 1001, mode), name
    assert (top / "group/file").stat().st_gid == 77
    assert (top / "group/dir").stat().st_gid == 77
    assert (top / "group/dir").stat().st_mode & stat.S_ISGID
    os.unlink(top / "pipe")  # the real program's own check does not like to see them


def test_extended_attributes(top: Path) -> None:
    (top / "f").write_bytes(b"x")
    os.setxattr(top / "f", "user.one", b"1")
    os.setxattr(top / "f", "user.empty", b"")
    os.setxattr(top / "f", "user.long", pattern(2000, 1))
    assert sorted(os.listxattr(top / "f")) == ["user.empty", "user.long", "user.one"]
    assert os.getxattr(top / "f", "user.long") == pattern(2000, 1)
    assert os.getxattr(top / "f", "user.empty") == b""
    with refused(errno.EEXIST):
        os.setxattr(top / "f", "user.one", b"2", os.XATTR_CREATE)
    with refused(errno.ENODATA):
        os.setxattr(top / "f", "user.none", b"2", os.XATTR_REPLACE)
    with refused(errno.ENODATA):
        os.getxattr(top / "f", "user.none")
    with refused(errno.EOPNOTSUPP):
        os.setxattr(top / "f", "trusted.one", b"1")
    os.removexattr(top / "f", "user.one")
    assert sorted(os.listxattr(top / "f")) == ["user.empty", "user.long"]


def test_the_room_left_is_that_of_the_store(top: Path, live: Live) -> None:
    ours, stores = os.statvfs(top), os.statvfs(live.store)
    assert (ours.f_blocks * ours.f_frsize, ours.f_namemax) == (stores.f_blocks * stores.f_frsize, 255)
