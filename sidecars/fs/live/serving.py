"""A live volume as the daemon serves it: from its configuration to a mount that answers."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from sidecars.fs.config import VolumeConfig
from sidecars.fs.live.mounted import mounted
from sidecars.fs.live.reports import once
from sidecars.fs.live.server import Server
from sidecars.fs.live.volume import open_volume
from strongroom.errors import MachineError
from strongroom.host.secret import Secret

_RUNTIME: Final = "RUNTIME_DIRECTORY"  # where systemd says what is not on disk goes
_DEFAULT_RUNTIME: Final = "/run/strongroom-fs"
# File systems that another machine, or whoever owns this one, may change behind our back.
_SHARED: Final = frozenset(
    "9p afs beegfs ceph cifs coda fuse gfs2 glusterfs lustre ncpfs nfs nfs4 ocfs2 smb3 smbfs virtiofs".split()
)


@contextmanager
def serve(
    config: VolumeConfig, key: Secret, report: Callable[[str], None], note: Callable[[str], None]
) -> Iterator[Server]:
    """The server of the gocryptfs volume that `config` names, mounted; unmounted at the end.

    `report` gets what does not verify and what is a defect of ours, each once; `note` gets what passes, as a store that
    is full. `key` is its master key, wiped by whoever gave it. Raises MachineError, FormatError or VerifyError. Sets
    the umask of the process: every mode that arrives is already what the caller wants.
    """
    os.umask(0)
    say, shared = once(report), is_shared(config.source)
    opening = open_volume(
        config.source,
        master_key=key.view(),
        intents=intents_path(config.source),
        report=say,
        note=note,
        shared=shared,
    )
    with opening as volume, mounted(volume, config.mount, say, note=note, shared=shared) as server:
        yield server


def is_shared(store: Path) -> bool:
    """Whether the store lies on a file system that other machines may use at the same time."""
    want, best, kind = os.fsencode(os.path.realpath(store)), b"", b""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        point = fields[4].replace(b"\\040", b" ")
        if len(point) >= len(best) and (want + b"/").startswith(point.rstrip(b"/") + b"/"):
            best, kind = point, fields[fields.index(b"-") + 1]
    return os.fsdecode(kind).partition(".")[0] in _SHARED


def intents_path(store: Path) -> Path:
    """Where writes under way are kept: in memory that outlives the daemon, one file for each store."""
    directory = Path(os.environ.get(_RUNTIME, _DEFAULT_RUNTIME).partition(":")[0])
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{directory}: {(error.strerror or 'failed').lower()}") from error
    return directory / f"{sha256(os.fsencode(os.path.realpath(store))).hexdigest()[:16]}.intents"
