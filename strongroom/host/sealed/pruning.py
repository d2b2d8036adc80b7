"""What lies in a sealed tree and belongs to no release of it any more: found, and removed on request alone.

A reader of an older release may still need it, and only the tree's owner knows whether there is one.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.errors import MachineError
from strongroom.host.folder import Folder
from strongroom.host.sealed.destination import JOURNAL, OURS, PARTIAL, Destination, machine_errors
from strongroom.host.sealed.tree import OBJECTS, TAGS, SealedStore

_OBJECT: Final = re.compile(r"[0-9a-f]{32}")
_TAGS: Final = re.compile(r"[0-9a-f]{64}(\.partial)?")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that the manifest does not name. What was never ours is not among them."""

    path: Path
    size: int


def leftovers(store: SealedStore, dest: Path) -> tuple[Leftover, ...]:
    """Objects, tags and unfinished files beside those of `store`, which was opened from `dest`; sorted."""
    return tuple(leftover for leftover, _ in _find(store, dest))


def prune(store: SealedStore, dest: Path) -> tuple[Leftover, ...]:
    """Remove what leftovers() finds, a cut seal's work included; the result is what was removed.

    It is looked for and removed in the directories that `store` has open, whatever stands in their place by now.
    """
    with machine_errors(dest), Destination.hold(dest) as place:
        if place.root != store.volume.root:
            raise MachineError(f"{dest}: changed meanwhile, want one writer")
        found = _find(store, dest)
        for leftover, folder in found:
            folder.remove(leftover.path.name)
    return tuple(leftover for leftover, _ in found)


def _find(store: SealedStore, dest: Path) -> list[tuple[Leftover, Folder]]:
    top, tags, objects = map(Folder, (dest, dest / TAGS, dest / OBJECTS), store.folders)
    kept = {one.file.object_name for one in store.objects}
    names = [(objects, name) for name in objects.names() if _OBJECT.fullmatch(name) and name not in kept]
    names += [
        (tags, name) for name in tags.names() if _TAGS.fullmatch(name) and name != store.volume.tags_name
    ]
    names += [(top, name) for name in OURS if name == JOURNAL or name.endswith(PARTIAL)]
    sizes = ((folder, name, folder.size(name)) for folder, name in names)
    found = [(Leftover(folder.path / name, size), folder) for folder, name, size in sizes if size is not None]
    return sorted(found, key=lambda one: one[0].path)
