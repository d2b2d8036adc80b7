"""Objects that are here and not what was sealed, found with the key: of the right size, and with other bytes."""

from collections.abc import Callable

from strongroom.host.pull.landing import Landing
from strongroom.host.sealed.blocks import Room
from strongroom.host.sealed.checking import Checking
from strongroom.host.sealed.crew import Crew, default_workers
from strongroom.host.sealed.tree import OBJECTS, TAGS, StoredObject, read_small
from strongroom.sealed.volume import OpenedObject, Volume


def damaged(landing: Landing, volume: Volume, progress: Callable[[int], None] = lambda _: None) -> list[str]:
    """The names of such objects of a tree whose files have all come. VerifyError for tags that were not sealed."""
    tags = read_small(volume.tags_name, landing.directory(TAGS), volume.tags_size, "tags")
    objects = landing.directory(OBJECTS)

    def stored(opened: OpenedObject) -> StoredObject:
        return StoredObject(opened, objects)

    opened = volume.open_objects(tags)
    jobs = [Checking(one, stored) for one in opened]
    Crew(lambda: Room(volume.header.chunk_log2), workers=default_workers()).run(jobs, progress)
    return [f"{OBJECTS}/{one.file.object_name}" for one, job in zip(opened, jobs, strict=True) if job.damage]
