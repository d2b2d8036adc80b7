"""`strongroom scrub`: read back every chunk of a sealed tree, and say which are not as they were sealed."""

import argparse
import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from strongroom.broker.resource import MAX_VOLUME_KEY, VolumeKey
from strongroom.cli.progress import Progress, size
from strongroom.errors import FormatError, MachineError, VerifyError
from strongroom.host.sealed_tree import SealedTree, StoredObject
from strongroom.sealed.chunks import TAG_SIZE


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "scrub",
        help="read back every chunk of a sealed model",
        description="Decrypt every chunk of SEALED in memory and compare every file with the digest it was sealed "
        "with. Each damaged chunk is named on stderr.",
    )
    parser.add_argument("sealed", metavar="SEALED", type=Path, help="directory that `strongroom seal` made")
    parser.add_argument("--key", required=True, metavar="FILE", type=Path, help="the volume key file")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    key = _volume_key(args.key)
    with SealedTree.open(args.sealed, model_key=key.key, epoch=key.epoch, root=key.root) as tree:
        progress = Progress("scrubbing", sum(one.file.size for one in tree.objects))
        bad: list[str] = []
        done = 0
        for one in tree.objects:
            bad += _damage(one, done, progress)
            done += one.file.size
        progress.end()
        name, chunks = tree.manifest.name, sum(one.chunking.count for one in tree.objects)
    for sentence in bad:
        print(sentence, file=sys.stderr)
    if args.json:
        facts = {"name": name, "epoch": key.epoch, "root": key.root.hex(), "chunks": chunks, "damaged": bad}
        print(json.dumps(facts))
    if bad:
        raise VerifyError(f"{args.sealed}: {len(bad)} of {chunks} chunks or files are damaged, want none")
    if not args.json:
        print(f"genuine  {name} epoch {key.epoch}: {chunks} chunks, {size(done)}, root {key.root.hex()}")
    return 0


def _volume_key(path: Path) -> VolumeKey:
    with path.open("rb") as file:
        data = file.read(MAX_VOLUME_KEY + 1)
    try:
        return VolumeKey.parse(data)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


def _damage(one: StoredObject, done: int, progress: Progress) -> list[str]:
    """A sentence for each chunk that does not open, or one when all open but are not the file that was sealed."""
    chunk = one.chunking.chunk_size
    slot, plain = memoryview(bytearray(chunk + TAG_SIZE)), memoryview(bytearray(chunk))
    digest, bad = sha256(), list[str]()
    for index in range(one.chunking.count):
        length = one.chunking.length(index)
        try:
            one.load(index, [slot[:length]])
            one.open(index, slot[: length + TAG_SIZE], plain[:length])
        except (VerifyError, MachineError) as error:
            bad.append(str(error))
        digest.update(plain[:length])
        progress.show(done + (index + 1) * chunk)
    if not bad and digest.digest() != one.file.sha256:
        bad.append(f"object {one.name}: digest is {digest.hexdigest()}, want {one.file.sha256.hex()}")
    return bad
