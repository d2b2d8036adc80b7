"""What lies in a sealed tree and belongs to no release of it any more: found, and removed on request alone.

A reader of an older release may still need it, and only the tree's owner knows whether there is one.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.errors import MachineError
from strongroom.host.destination import JOURNAL, OURS, PARTIAL, Destination, machine_errors
from strongroom.host.sealed_tree import OBJECTS, TAGS, SealedStore

_OBJECT: Final = re.compile(r"[0-9a-f]{32}")
_TAGS: Final = re.compile(r"[0-9a-f]{64}(\.partial)?")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that the manifest does not name. What was never ours is not among them."""

    path: Path
    size: int


def leftovers(store: SealedStore, dest: Path) -> tuple[Leftover, ...]:
    """Objects, tags and unfinished files beside those of `store`, which was opened from `dest`; sorted."""
    objects = {one.file.object_name for one in store.objects}
    found = [path for path in (dest / OBJECTS).iterdir() if _OBJECT.fullmatch(path.name)]
    found = [path for path in found if path.name not in objects]
    found += [
        path
        for path in (dest / TAGS).iterdir()
        if _TAGS.fullmatch(path.name) and path.name != store.volume.tags_name
    ]
    found += [
        dest / name for name in OURS if name == JOURNAL or name.endswith(PARTIAL) if (dest / name).exists()
    ]
    return tuple(Leftover(path, path.lstat().st_size) for path in sorted(found))


def prune(store: SealedStore, dest: Path) -> tuple[Leftover, ...]:
    """Remove what leftovers() finds, a cut seal's work included; the result is what was removed."""
    with machine_errors(dest), Destination.hold(dest) as place:
        if place.root != store.volume.root:
            raise MachineError(f"{dest}: changed meanwhile, want one writer")
        found = leftovers(store, dest)
        for one in found:
            one.path.unlink()
    return found
