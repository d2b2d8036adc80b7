"""The section `volumes` of userdata -> StateVolumes. Every error is a ConfigError that names the key path.

- {name: state, source: /srv/state.enc, key: "kbs:///default/volumes/state"}
- {name: data, source: /srv/data.enc, key: "kbs:///default/volumes/data", read_only: true, side: /srv/data.side}

Each is a gocryptfs volume on storage that nobody trusts. What is written changes, so nothing can pin it; one that is
only read may have a side manifest, and then its key says which.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from guest import bounds
from guest.section import Section, distinct, mapping
from strongroom.errors import ConfigError

MOUNTS: Final = "/run/strongroom/volumes"
UNITS: Final = "strongroom-live@*.service"  # all of them, whatever their names are


@dataclass(frozen=True, slots=True, kw_only=True)
class StateVolume:
    name: str
    source: str  # cipher directory; its contents are untrusted
    key: str  # kbs:/// URI
    read_only: bool = False
    side: str | None = None  # the side manifest that pins it, where one does

    @property
    def unit(self) -> str:
        """The unit that serves it."""
        return UNITS.replace("*", self.name)

    @property
    def mount(self) -> str:
        return f"{MOUNTS}/{self.name}"


def parse_volumes(items: Sequence[object], at: str) -> tuple[StateVolume, ...]:
    volumes = tuple(_volume(item, f"{at}[{n}]") for n, item in enumerate(items))
    distinct((volume.name for volume in volumes), f"{at}: name")
    distinct((volume.key for volume in volumes), f"{at}: key")
    check_apart([(f"{at}[{n}].source", volume.source) for n, volume in enumerate(volumes)])
    return volumes


def check_apart(sources: Sequence[tuple[str, str]]) -> None:
    """ConfigError where of two (key path, directory) one lies in the other: who writes one would change the other."""
    for n, (at, source) in enumerate(sources):
        for other, before in sources[:n]:
            one, two = PurePosixPath(source), PurePosixPath(before)
            if one.is_relative_to(two) or two.is_relative_to(one):
                raise ConfigError(
                    f"{at}: got {bounds.shown(source)}, want none inside another: {other} is {before}"
                )


def _volume(raw: object, at: str) -> StateVolume:
    section = Section(mapping(raw, at), at)
    volume = StateVolume(
        name=section.value("name", bounds.VOLUME_NAME.check),
        source=section.value("source", bounds.SOURCE.check),
        key=section.value("key", bounds.RESOURCE.check),
        read_only=section.value("read_only", bounds.FLAG.check, default=False),
        side=section.value("side", bounds.SOURCE.check) if section.has("side") else None,
    )
    section.end()
    if volume.side is not None and not volume.read_only:
        raise ConfigError(
            f"{at}.side: got one, want it with read_only: true: what is written cannot be pinned"
        )
    return volume
