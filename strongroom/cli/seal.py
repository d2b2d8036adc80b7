"""`strongroom seal`: a directory of weights becomes a sealed tree and one key file; or the next release of one."""

import argparse
import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from strongroom.cli.progress import size
from strongroom.cli.volume import KEY_HELP, Stages, add_workers, check_release, opened, stages
from strongroom.errors import ConfigError, StrongroomError
from strongroom.host.sealed.crew import default_workers
from strongroom.host.sealed.destination import is_cut, tree_root
from strongroom.host.sealed.digests import digests
from strongroom.host.sealed.keyfile import STDIN, NewKeyFile
from strongroom.host.sealed.pruning import prune
from strongroom.host.sealed.sealing import Manner, Plan, Release, Sealed, seal_tree, settle_tree
from strongroom.host.sealed.tree import SealedStore
from strongroom.sealed.changes import SameContent, same_stamp
from strongroom.sealed.header import DEFAULT_CHUNK_LOG2
from strongroom.sealed.manifest import InlineFile, SealedFile

CHUNK_KIB: Final = (64, 128, 256, 512, 1024)
_GOES_ON: Final = "what is finished is kept, the same command with --resume goes on"


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "seal",
        help="encrypt a model so that only an attested machine can read it",
        description="Encrypt the directory SRC into the directory DEST and write its key to a file. Anyone may hold "
        "DEST; the key belongs into a broker. A seal that was cut loses nothing: --resume goes on where it was.",
        epilog="An update seals only what changed, under a new key and a larger epoch. The older release can be read "
        "until the moment the new one is complete; what only it used stays until --prune.",
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="directory with the model's files")
    parser.add_argument("dest", metavar="DEST", type=Path, help="directory to make; absent or empty at first")
    parser.add_argument("--name", help="the model's name, as clients will ask for it (an update keeps it)")
    parser.add_argument(
        "--epoch", required=True, type=int, help="release number of this model, larger than any before it"
    )
    parser.add_argument(
        "--key-out", required=True, metavar="FILE", type=Path, help="new file for the volume key"
    )
    parser.add_argument("--update", action="store_true", help="make the next release of the tree in DEST")
    parser.add_argument(
        "--key", metavar="FILE", type=Path, help=f"with --update, of the old release: {KEY_HELP}"
    )
    parser.add_argument(
        "--checksum", action="store_true", help="with --update, compare contents instead of size and time"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a seal that was cut")
    parser.add_argument(
        "--prune", action="store_true", help="remove what no release uses any more, at the end"
    )
    parser.add_argument("--chunk-kib", type=int, choices=CHUNK_KIB, help="chunk size (default: 128)")
    parser.add_argument("--dereference", action="store_true", help="seal what links lead to, not the links")
    parser.add_argument(
        "--no-sha256", action="store_true", help="do not note the files' digests: twice as fast"
    )
    parser.add_argument("--no-verify", action="store_true", help="do not read back what was written")
    add_workers(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    _check(args)
    with stages() as shown:
        sealed = None if _is_committed(args) else _seal(args, shown)
    # From here on the key is read from its file, as whoever uses it will.
    with opened(args.dest, args.key_out) as (_, store):
        if sealed is None:
            settle_tree(store, args.dest)
        removed = prune(store, args.dest) if args.prune else ()
        _tell(args, store, sealed, sum(one.size for one in removed))
    return 0


def _check(args: argparse.Namespace) -> None:
    check_release(epoch=args.epoch, name=args.name)
    for option, path in (("--key-out", args.key_out), ("--key", args.key)):
        _check_outside(option, path, args.source)
    if args.update != (args.key is not None):
        raise ConfigError("seal: want --update and --key together, the key of the release that is there")
    if args.checksum and not args.update:
        raise ConfigError("seal: --checksum is for --update")
    if args.name is None and not args.update:
        raise ConfigError("seal: want --name, as clients will ask for it")
    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers: got {args.workers}, want at least 1")


def _check_outside(option: str, path: Path | None, source: Path) -> None:
    """A key in the model would be sealed with it, and be there for everybody who may read the model."""
    if path is None or path == STDIN:
        return
    for place in (path.resolve(), path.parent.resolve() / path.name):
        if place.is_relative_to(source.resolve()):
            raise ConfigError(f"{option}: {path} lies inside {source}, want a place outside")


def _is_committed(args: argparse.Namespace) -> bool:
    """Whether the seal to resume was cut behind its commit, so that nothing but tidying up is left."""
    if not args.resume or (root := tree_root(args.dest)) is None:
        return False
    if not args.key_out.exists() or not args.key_out.stat().st_size:
        return False
    key = NewKeyFile.reopen(args.key_out, epoch=args.epoch, entropy=secrets.token_bytes)
    with key.key:
        if key.root is not None and key.root != root and not is_cut(args.dest):
            raise ConfigError(f"{args.key_out}: opens another tree, want the key of the seal that was cut")
        return key.root == root


def _seal(args: argparse.Namespace, shown: Stages) -> Sealed:
    with ExitStack() as stack:
        before = stack.enter_context(opened(args.dest, args.key))[1] if args.update else None
        name = args.name or (before.manifest.name if before else "")
        plan = Plan.make(args.source, name=name, dereference=args.dereference, entropy=secrets.token_bytes)
        manner = Manner(
            workers=args.workers or default_workers(),
            hashed=not args.no_sha256,
            verify=not args.no_verify,
            resume=args.resume,
            same=_by_content(plan, before, shown) if args.checksum and before else same_stamp,
        )
        key = stack.enter_context(_key_file(args))
        return seal_tree(
            plan,
            args.dest,
            Release(model_key=key.key.view(), epoch=args.epoch, chunk_log2=_chunk_log2(args, before)),
            entropy=secrets.token_bytes,
            keep=key.finish,
            before=before,
            manner=manner,
            announce=shown.begin,
        )


@contextmanager
def _key_file(args: argparse.Namespace) -> Iterator[NewKeyFile]:
    """The key to seal under: on disk before anything is, gone again when nothing was sealed."""
    was_cut = is_cut(args.dest)
    take = NewKeyFile.reopen if args.resume else NewKeyFile.create
    key = take(args.key_out, epoch=args.epoch, entropy=secrets.token_bytes)
    if key.root is not None and not was_cut:
        raise ConfigError(f"{args.key_out}: opens a finished tree, want the key of the seal that was cut")
    try:
        with key.key:
            yield key
    except BaseException as error:
        worth_keeping = is_cut(args.dest) and not (was_cut and key.fresh)
        if key.fresh and key.root is None and not worth_keeping:  # with a root, it may open a tree by now
            key.discard()
        if worth_keeping and isinstance(error, StrongroomError):
            raise type(error)(f"{error}; {_GOES_ON}") from error
        if worth_keeping:
            print(f"seal: {_GOES_ON}", file=sys.stderr)
        raise


def _by_content(plan: Plan, before: SealedStore, shown: Stages) -> SameContent:
    """Equality of contents. The digests of files that may be as they were in `before` are computed here, at once; those
    of others that a cut seal has finished, when they are asked for."""
    sizes = {one.file.path: one.file.size for one in before.objects}
    files = [file for file in plan.due if sizes.get(file.path) == file.size]
    found = digests(plan.source, files, shown.begin("comparing", sum(file.size for file in files)))

    def same(old: SealedFile, new: SealedFile) -> bool:
        if old.sha256 is None:
            return False
        if new.path not in found:
            found.update(digests(plan.source, [new]))
        return found[new.path] == old.sha256

    return same


def _chunk_log2(args: argparse.Namespace, before: SealedStore | None) -> int:
    if args.chunk_kib is not None:
        return 10 + int(args.chunk_kib).bit_length() - 1
    return DEFAULT_CHUNK_LOG2 if before is None else before.header.chunk_log2


def _tell(args: argparse.Namespace, store: SealedStore, sealed: Sealed | None, freed: int) -> None:
    files = [entry for entry in store.manifest.entries if isinstance(entry, InlineFile | SealedFile)]
    name, epoch, root = store.manifest.name, store.header.epoch, store.volume.root.hex()
    total = sum(file.size for file in files)
    objects = (sealed.sealed, sealed.kept) if sealed else (0, len(store.objects))
    if args.json:
        result = {"name": name, "epoch": epoch, "root": root, "files": len(files), "bytes": total}
        result |= {"key": str(args.key_out), "sealed": objects[0], "kept": objects[1], "freed": freed}
        print(json.dumps(result))
        return
    print(f"sealed   {name} epoch {epoch}: {len(files)} files, {size(total)}")
    if objects[1]:
        print(f"kept     {objects[1]} of {sum(objects)} objects, as they were")
    if freed:
        print(f"freed    {size(freed)}")
    print(f"root     {root}")
    print(f"key      {args.key_out}")
    print(
        f"next     strongroom broker put DIR kbs:///REPOSITORY/TYPE/TAG {args.key_out} --policy FILE",
        file=sys.stderr,
    )
