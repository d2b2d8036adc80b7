"""A new key and a new epoch for a sealed tree: MANIFEST is written anew, objects and tags stay as they are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from strongroom.errors import ConfigError, MachineError
from strongroom.host.sealed.destination import Destination, machine_errors
from strongroom.host.sealed.plain import Entropy
from strongroom.host.sealed.sealing import Release, index_of
from strongroom.host.sealed.tree import SealedStore
from strongroom.sealed.volume import seal_manifest


def rekey_tree(
    store: SealedStore,
    dest: Path,
    *,
    model_key: bytes | memoryview,
    epoch: int,
    entropy: Entropy,
    keep: Callable[[bytes], None],
    name: str | None = None,
) -> bytes:
    """Put `store`, opened from `dest`, under a new model key; the result is the new root digest.

    `keep` is called with it right before the commit. Until then the old key opens the tree, from then on the new one.
    """
    if epoch <= store.header.epoch:
        raise ConfigError(f"{dest}: epoch is {store.header.epoch}, want it to grow: got {epoch}")
    release = Release(model_key=model_key, epoch=epoch, chunk_log2=store.header.chunk_log2)
    manifest = replace(store.manifest, name=name or store.manifest.name)
    with machine_errors(dest), Destination.hold(dest) as place:
        if place.cut:
            raise ConfigError(f"{dest}: a seal into it was cut: finish it with --resume, or give it up")
        if place.root != store.volume.root:
            raise MachineError(f"{dest}: changed meanwhile, want one writer")
        place.furnish()
        head = release.head(entropy, volume_id=store.header.volume_id)
        data = seal_manifest(*head, manifest)
        root = place.commit(data, keep)
        tags_size = store.volume.tags_size
        place.settle(index_of(manifest, root=root, manifest_size=len(data), tags_size=tags_size))
    return root


def complete_rekey(dest: Path, *, before: bytes, root: bytes) -> None:
    """Commit the rekeying that was cut right before it: `root` is what its key file says, `before` the tree's root.

    ConfigError when the MANIFEST it was about to commit is not there.
    """
    with machine_errors(dest), Destination.hold(dest) as place:
        if place.root == root:
            return
        if place.root != before:
            raise MachineError(f"{dest}: changed meanwhile, want one writer")
        if place.staged != root:
            raise ConfigError(f"{dest}: holds nothing of a rekey to {root.hex()}, want another --key-out")
        place.recommit()
