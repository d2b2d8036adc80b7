"""`python -m tests.flip_table [DIR] [--step N]`: single bits under a signature turned over, by kind."""

import argparse
import sys
from pathlib import Path

from strongroom.cli.terminal import table
from strongroom.verify.roots import PRODUCTION
from tests import VECTORS
from tests.vectors.flips import sweeps
from tests.vectors.index import VectorSet


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="flips", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, nargs="?", default=VECTORS, metavar="DIR")
    parser.add_argument("--step", type=int, default=1, metavar="N", help="try every N-th bit alone (1: all)")
    args = parser.parse_args(argv)
    if not (args.directory / "index.json").exists():
        print(f"flips: {args.directory}: no index.json, want a set of vectors", file=sys.stderr)
        return 2
    swept = [sweep.run(args.step) for sweep in sweeps(VectorSet.load(args.directory), PRODUCTION)]
    rows = [(one.what, str(one.tried), str(len(one.accepted)), str(len(one.defects))) for one in swept]
    total = sum(one.tried for one in swept)
    bad = [f"{one.what}: bit {bit} accepted" for one in swept for bit in one.accepted[:5]]
    bad += [f"{one.what}: {defect}" for one in swept for defect in one.defects[:5]]
    rows.append(
        ("all", str(total), str(sum(len(o.accepted) for o in swept)), str(sum(len(o.defects) for o in swept)))
    )
    print(table([("bits turned over", "tried", "accepted", "defects"), *rows]))
    print("\n".join(bad), end="\n" if bad else "")
    return 1 if bad or not swept else 0


if __name__ == "__main__":
    sys.exit(main())
