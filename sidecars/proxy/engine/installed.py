"""The interface of an engine as it is installed, for people: every route and field, and where each stands."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from sidecars.proxy.engine import listing, surface
from sidecars.proxy.routes import ASKED
from strongroom.errors import FormatError, ProtocolError
from strongroom.host.run import run
from strongroom.wire.canonical import JSON, parse_json

DEFAULT_PYTHON: Final = Path("/usr/lib/strongroom/engine/bin/python")
WITHIN: Final = 300.0  # seconds; importing the engine takes ten on a quiet machine
_MAX_LISTING: Final = 4 << 20  # bytes
_ENVIRONMENT: Final = {
    "HOME": "/nonexistent",
    "VLLM_PLUGINS": "",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True, slots=True)
class Listing:
    version: str
    routes: tuple[str, ...]
    description: JSON

    @classmethod
    def of(cls, python: Path) -> "Listing":
        """What the engine beside this Python exposes. MachineError when it cannot be asked."""
        done = run(
            [python.absolute(), "-I", Path(listing.__file__)], env=_ENVIRONMENT, cwd=Path("/"), timeout=WITHIN
        )
        try:
            value = parse_json(
                done.stdout, "engine listing", max_bytes=_MAX_LISTING, max_depth=32, max_values=1_000_000
            )
        except FormatError as error:
            raise ProtocolError(str(error)) from error
        match value:
            case {"version": str(version), "routes": [*routes], "openapi": description}:
                return cls(version, tuple(map(str, routes)), description)
        raise ProtocolError("engine listing: want version, routes and openapi")


def show_engine(python: Path, out: TextIO) -> int:
    """Print the table; 0 when all of it is known. Raises ProtocolError naming what is not, after printing."""
    found = Listing.of(python)
    print(f"engine {found.version}", file=out)
    for line in _lines(found):
        print(f"  {line}", file=out)
    surface.check(found.description, version=found.version, routes=found.routes)
    print("every route and field is known", file=out)
    return 0


def _lines(found: Listing) -> Iterator[str]:
    for route, standing in surface.routes(found.description, version=found.version, routes=found.routes):
        yield f"{standing:8} {route}"
    for asked in sorted(ASKED):
        for name, standing in surface.fields(found.description, asked, version=found.version):
            yield f"{standing:8} {asked} {name}"
