"""From the volume credential and the key to an opened volume, of whichever format."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sidecars.fs.config import Format, VolumeConfig
from strongroom.errors import ConfigError
from strongroom.host.gocryptfs.volume import GocryptfsVolume
from strongroom.host.sealed.source import SealedSource
from strongroom.host.sealed.tree import open_directory, read_small
from strongroom.host.stored import Source
from strongroom.sealed.gocryptfs.side import MAX_SIDE, SideManifest
from strongroom.sealed.keys import Octets


@dataclass(frozen=True, slots=True)
class Opened:
    source: Source
    title: str  # for the status: which volume this is


@contextmanager
def open_volume(config: VolumeConfig, key: Octets) -> Iterator[Opened]:
    """The volume, and its files closed at the end. Raises what its format's open() raises."""
    if config.format is Format.GOCRYPTFS:
        side = _side(config, key)
        with GocryptfsVolume.open(config.source, master_key=key, side=side) as volume:
            yield Opened(volume, f"{side.name} epoch {side.epoch}" if side else config.source.name)
        return
    if config.root is None or config.epoch is None:
        raise ConfigError("volume.root: got none, want the root and epoch of the sealed tree")
    with SealedSource.open(config.source, model_key=key, epoch=config.epoch, root=config.root) as source:
        yield Opened(source, f"{source.name} epoch {config.epoch}")


def _side(config: VolumeConfig, key: Octets) -> SideManifest | None:
    """What pins a gocryptfs volume; None where nothing does, and contents are as authentic as gocryptfs makes them."""
    if config.side is None or config.root is None or config.epoch is None:
        return None
    folder = open_directory(config.side.parent, None, "side manifest")
    try:
        data = read_small(config.side.name, folder, MAX_SIDE, "side manifest")
    finally:
        os.close(folder)
    return SideManifest.open(data, master_key=key, epoch=config.epoch, root=config.root)
