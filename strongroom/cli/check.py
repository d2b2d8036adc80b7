"""`strongroom check`: read back a sealed tree, whole or a sample, and say what is not as it was sealed."""

import argparse
import json
import math
import random
import re
import sys
from fractions import Fraction
from typing import Any, Final

from strongroom.broker.resource import VolumeKey
from strongroom.cli.progress import size
from strongroom.cli.volume import add_volume, add_workers, opened, stages
from strongroom.errors import ConfigError, VerifyError
from strongroom.host.sealed.blocks import Room
from strongroom.host.sealed.checking import Checking, Sampling
from strongroom.host.sealed.crew import Crew, default_workers
from strongroom.host.sealed.pruning import leftovers
from strongroom.host.sealed.tree import SealedStore

_PERCENT: Final = re.compile(r"([0-9]{1,3}(\.[0-9]{1,6})?)%")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "check",
        help="read back every chunk of a sealed model, or a sample",
        description="Decrypt every chunk of SEALED in memory and compare every file with the digest it was sealed "
        "with. Each damaged chunk is named on stderr.",
        epilog="The tags show what the store did. The digests show what the sealer did, and take most of the time.",
    )
    add_volume(parser)
    parser.add_argument(
        "--sample",
        metavar="N%",
        help="read this share of each file's chunks, chosen at random, and no digests",
    )
    parser.add_argument("--no-sha256", action="store_true", help="check the tags alone: four times as fast")
    add_workers(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    share = None if args.sample is None else _share(args.sample)
    with opened(args.sealed, args.key) as (key, store), stages() as shown:
        jobs, total, checked = _jobs(store, share, hashed=not args.no_sha256)
        crew = Crew(lambda: Room(store.header.chunk_log2), workers=args.workers or default_workers())
        crew.run(jobs, shown.begin("checking", total))
        shown.end()
        bad = [sentence for job in jobs for sentence in job.damage]
        unused = leftovers(store, args.sealed)
        facts = _facts(key, store, checked, bad)
    facts["leftovers"] = {"files": len(unused), "bytes": sum(one.size for one in unused)}
    _tell(args, facts, bad, total)
    return 0


def _share(text: str) -> Fraction:
    if (match := _PERCENT.fullmatch(text)) is None or not 0 < (share := Fraction(match[1]) / 100) <= 1:
        raise ConfigError(f"--sample: got {text[:20]!r}, want a share such as 1%, above 0% and at most 100%")
    return share


def _jobs(store: SealedStore, share: Fraction | None, *, hashed: bool) -> tuple[list[Checking], int, int]:
    """One job an object, the bytes they read, and the chunks."""
    if share is None:
        whole = [Checking(one, store.stored, hashed=hashed) for one in store.objects]
        return whole, sum(o.file.size for o in store.objects), sum(o.chunking.count for o in store.objects)
    jobs, total, chunks, chance = list[Checking](), 0, 0, random.SystemRandom()
    for one in store.objects:
        count = one.chunking.count
        chosen = sorted(chance.sample(range(count), math.ceil(count * share)))
        jobs.append(Sampling(one, store.stored, chosen))
        total, chunks = total + sum(map(one.chunking.length, chosen)), chunks + len(chosen)
    return jobs, total, chunks


def _facts(key: VolumeKey, store: SealedStore, checked: int, bad: list[str]) -> dict[str, Any]:
    chunks = sum(one.chunking.count for one in store.objects)
    facts = {"name": store.manifest.name, "epoch": key.epoch, "root": key.root.hex()}
    return facts | {"objects": len(store.objects), "chunks": chunks, "checked": checked, "damaged": bad}


def _tell(args: argparse.Namespace, facts: dict[str, Any], bad: list[str], total: int) -> None:
    for sentence in bad:
        print(sentence, file=sys.stderr)
    if args.json:
        print(json.dumps(facts))
    checked, chunks = facts["checked"], facts["chunks"]
    if bad:
        raise VerifyError(f"{args.sealed}: {len(bad)} of {checked} chunks or files are damaged, want none")
    if args.json:
        return
    amount = f"{chunks} chunks" if checked == chunks else f"{checked} of {chunks} chunks"
    print(f"genuine  {facts['name']} epoch {facts['epoch']}: {amount}, {size(total)}, root {facts['root']}")
    if (unused := facts["leftovers"])["files"]:
        print(f"unused   {unused['files']} files, {size(unused['bytes'])}: `strongroom prune` removes them")
