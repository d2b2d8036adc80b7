"""`python -m tests.fuzz TARGET [--seconds N]`: one target under atheris, led by coverage. Without it: own mutations.

Exits 0 when nothing but errors of ours came out in that time. `--list` names the targets.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.fuzz.mutator import mutations

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

_BATCH: Final = 200
_LIMITS: Final = ("-rss_limit_mb=2048", "-timeout=5", "-max_len=65536", "-print_final_stats=1")


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", nargs="?")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    try:
        import atheris  # noqa: PLC0415 - imported before what it has to instrument

        with atheris.instrument_imports(include=["strongroom"]):
            from tests.fuzz.targets import TARGETS  # noqa: PLC0415
    except ImportError:
        atheris = None
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415
    if args.list:
        print("\n".join(TARGETS))
        return 0
    if args.target not in TARGETS:
        parser.error(f"target: got {args.target}, want one of {', '.join(TARGETS)}")
    target = TARGETS[args.target]
    if atheris is None:
        return _mutate(args.target, target, args.seconds)
    with tempfile.TemporaryDirectory() as corpus:
        for n, seed in enumerate(target.seeds()):
            (Path(corpus) / str(n)).write_bytes(seed)
        options = [sys.argv[0], corpus, f"-max_total_time={args.seconds}", *_LIMITS]
        atheris.Setup(options, lambda data: target.try_one(data) and None)
        atheris.Fuzz()
    return 0


def _mutate(name: str, target: "Target", seconds: int) -> int:
    begun, tried, accepted, slowest = time.monotonic(), 0, 0, 0.0
    while time.monotonic() - begun < seconds:
        for data in mutations(target.seeds(), _BATCH, tried):
            before = time.perf_counter()
            accepted += target.try_one(data)
            slowest = max(slowest, time.perf_counter() - before)
            tried += 1
    print(f"{name}: {tried} tried, {accepted} accepted, slowest {slowest * 1e3:.1f} ms, no defect")
    return 0


if __name__ == "__main__":
    sys.exit(main())
