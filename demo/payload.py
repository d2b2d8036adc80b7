"""What the guest is made of, laid out and measured: our code in its own environment, the units, the engine's records.

The trusted environment is measured file by file. Of the engine's (gigabytes of foreign wheels) the demo measures the
list of installed files with their hashes, which pip keeps; a real image measures every block of it by dm-verity.
"""

import compileall
import py_compile
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.container import Bind
from strongroom.errors import MachineError
from strongroom.host.tree import measure

ROOT: Final = Path(__file__).resolve().parents[1]
BUILD: Final = ROOT / "build"
PACKAGES: Final = ("strongroom", "guest", "sidecars")
_IGNORED: Final = shutil.ignore_patterns("__pycache__")

SILICON_DROP_IN: Final = """\
# The demo's machine has its report interface and its vTPM at other paths. Nothing else differs from a real guest.
[Service]
ExecStart=
ExecStart=/usr/lib/strongroom/venv/bin/python -P -m guest \\
    --seed /var/lib/cloud/seed/nocloud --tsm /run/tsm --tpm /run/vtpm/tpm.sock
ReadWritePaths=/run/tsm
"""


@dataclass(frozen=True, slots=True)
class Payload:
    """The trees of one guest."""

    venv: Path
    engine: Path
    units: Path
    records: Path

    @property
    def images(self) -> list[str]:
        """NAME=DIR arguments, as `strongroom measure` and the silicon take them."""
        return [f"venv={self.venv}", f"units={self.units}", f"engine={self.records}"]

    def measure(self) -> bytes:
        return measure(self.images)

    def binds(self) -> list[Bind]:
        return [
            Bind(self.venv, "/usr/lib/strongroom/venv"),
            Bind(self.engine, "/usr/lib/strongroom/engine"),
            Bind(self.units, "/etc/systemd/system"),
            Bind(ROOT / "systemd" / "strongroom.sysusers", "/etc/sysusers.d/strongroom.conf"),
            Bind(ROOT / "systemd" / "strongroom.tmpfiles", "/etc/tmpfiles.d/strongroom.conf"),
        ]


def make_payload(folder: Path) -> Payload:
    """Install the working tree into the guest's environment and gather what is measured. MachineError if not set up."""
    payload = Payload(
        venv=BUILD / "guest",
        engine=BUILD / "engine",
        units=folder / "units",
        records=folder / "engine-records",
    )
    for venv in (payload.venv, payload.engine):
        if not (venv / "bin" / "python").exists():
            raise MachineError(f"demo: {venv} is missing, run ./setup.sh all first")
    _install(_site_packages(payload.venv))
    _units(payload.units)
    _records(_site_packages(payload.engine), payload.records)
    return payload


def _site_packages(venv: Path) -> Path:
    (found,) = venv.glob("lib/python3.*/site-packages")
    return found


def _install(site_packages: Path) -> None:
    for package in PACKAGES:
        target = site_packages / package
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(ROOT / package, target, ignore=_IGNORED)
        # Compiled ahead and never checked against a clock: the tree is read-only and measured with its bytecode.
        compileall.compile_dir(
            target, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )


def _units(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for unit in sorted((ROOT / "systemd").glob("strongroom*.*")):
        if unit.suffix in {".service", ".socket", ".target"}:
            shutil.copyfile(unit, target / unit.name)
    drop_in = target / "strongroom-agent.service.d"
    drop_in.mkdir()
    (drop_in / "silicon.conf").write_text(SILICON_DROP_IN)


def _records(site_packages: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for record in site_packages.glob("*.dist-info/RECORD"):
        shutil.copyfile(record, target / record.parent.name)
