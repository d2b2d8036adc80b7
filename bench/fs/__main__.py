"""`make bench-fs`: the model filesystem beside its peers. Prints figures and judges none; one JSON line comes last.

A part is also run alone: `python -m bench.fs --only read --only memory`. Root, /dev/fuse and a C compiler are needed.
What a part lacks (a peer, vLLM) is named on stderr and left out of its table.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from bench.fs import disk, engine, growth, loader, memory, metadata, read, write
from bench.fs.options import Options
from bench.fs.ours import ROOT
from bench.fs.report import Part
from bench.fs.stage import Place
from strongroom.errors import MachineError, StrongroomError

PARTS: Final[dict[str, Callable[[Place, Options], Part]]] = {
    "read": read.measure,
    "write": write.measure,
    "metadata": metadata.measure,
    "loader": loader.measure,
    "vllm": engine.measure,
    "disk": disk.measure,
    "growth": growth.measure,
    "memory": memory.measure,
}
MEMORY: Final = Path("/dev/shm")  # a tmpfs on every Linux; our folder in it is private
_ON_DISK: Final = {"disk", "growth"}
_CACHE: Final = ROOT / "build" / "bench-fs"


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    options = Options(
        size=int(arguments.size_gb * 1e9)
        if arguments.size_gb
        else 256_000_000
        if arguments.quick
        else 1_000_000_000,
        files=200 if arguments.quick else 2000,
        rounds=arguments.repeats or (3 if arguments.quick else 5),
        folder=arguments.dir,
        disk=arguments.disk,
        quick=arguments.quick,
        subjects=frozenset(arguments.subject),
    )
    try:
        if os.geteuid() != 0 or not Path("/dev/fuse").exists():
            raise MachineError("bench-fs: mounting takes root and /dev/fuse")
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -20)  # daemons inherit it: the rest of the machine weighs less
        _CACHE.mkdir(parents=True, exist_ok=True)
        parts = [_run(name, options, quiet=arguments.json) for name in arguments.only or PARTS]
    except StrongroomError as error:
        print(f"bench-fs: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(_object(parts, options)))
    return 0


def _run(name: str, options: Options, *, quiet: bool) -> Part:
    print(f"bench-fs: {name}", file=sys.stderr, flush=True)
    folder = options.disk if name in _ON_DISK else options.folder
    with tempfile.TemporaryDirectory(prefix="strongroom-bench-", dir=folder) as work:
        part = PARTS[name](Place(Path(work), _CACHE), options)
    if not quiet:
        print(part.text(), end="\n\n", flush=True)
    return part


def _object(parts: list[Part], options: Options) -> dict[str, Any]:
    ratios = [ratio for part in parts for ratio in part.ratios()]
    return {
        "bench": "fs",
        "kernel": platform.release(),
        "processors": len(os.sched_getaffinity(0)),
        "bytes": options.size,
        "rounds": options.rounds,
        "met": sum(ratio.met for ratio in ratios),
        "missed": sum(not ratio.met for ratio in ratios),
        "parts": {part.name: part.to_json() for part in parts},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.fs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="small files and few rounds: to see that it runs"
    )
    parser.add_argument(
        "--only", action="append", choices=PARTS, default=[], metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument(
        "--subject", action="append", default=[], metavar="NAME", help="only these, and plain files"
    )
    parser.add_argument("--size-gb", type=float, metavar="N", help="of the large file (1, quick: 0.25)")
    parser.add_argument("--repeats", type=int, metavar="N", help="rounds (5, quick: 3)")
    parser.add_argument(
        "--dir", type=Path, default=MEMORY, help="where volumes are made, best a tmpfs (/dev/shm)"
    )
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"), help="the same on a disk (/var/tmp)")
    parser.add_argument("--json", action="store_true", help="only the last line")
    return parser


if __name__ == "__main__":
    sys.exit(main())
