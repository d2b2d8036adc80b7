"""The newest gocryptfs Debian carries, unpacked beside this tree. Nothing is installed: apt gets a root of its own.

Mirror, proxy and keys are those this machine's apt is configured with.
"""

import platform
from pathlib import Path
from typing import Final

from strongroom.errors import MachineError
from strongroom.host.run import run

SUITE: Final = "sid"
_TARGETS: Final = "$(REPO_URI)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)|$(SIGNED_BY)"


def newest(package: str, folder: Path) -> Path:
    """The folder `package` of SUITE is unpacked in, fetched into `folder` unless it is there.

    Raises MachineError where apt, the mirror or the suite is not to be had.
    """
    unpacked = folder / f"{package}-{SUITE}-{platform.machine()}"
    if not unpacked.is_dir():
        apt = folder / "apt"
        for part in ("lists/partial", "archives/partial", "sources"):
            (apt / part).mkdir(parents=True, exist_ok=True)
        (apt / "sources" / "newest.list").write_text(_source())
        options = [f"-o={name}={value}" for name, value in _settings(apt).items()]
        run(["apt-get", *options, "update", "-qq"], timeout=300)
        run(["apt-get", *options, "download", "-qq", package], cwd=apt / "archives", timeout=300)
        archive = max((apt / "archives").glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)
        run(["dpkg", "-x", archive, unpacked])
    return unpacked


def _source() -> str:
    """One line of sources.list: the mirror of this machine's own Debian, with the newest suite."""
    listed = run(["apt-get", "indextargets", f"--format={_TARGETS}", "Created-By: Packages"]).stdout.decode()
    for line in listed.splitlines():
        uri, name, component, origin, keys = line.split("|")
        if origin == "Debian" and component == "main" and "-" not in name:
            signed = f"[signed-by={keys}] " if keys.startswith("/") else ""
            return f"deb {signed}{uri} {SUITE} main\n"
    raise MachineError("apt: no index of Debian's main component, want one to learn the mirror from")


def _settings(apt: Path) -> dict[str, str]:
    return {
        "Dir::State": str(apt),
        "Dir::State::lists": str(apt / "lists"),
        "Dir::State::status": "/dev/null",
        "Dir::Cache": str(apt),
        "Dir::Cache::archives": str(apt / "archives"),
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": str(apt / "sources"),
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",  # it downloads into a folder of ours
    }
