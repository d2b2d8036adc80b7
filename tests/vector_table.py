"""`python -m tests.vector_table DIR`: does every vector of a set give what the set's own index.json expects?

One line for each kind with how many passed and failed, one sentence for each thing that is not as expected, and
an exit code of 1 when there is any. A kind nobody here can observe fails. The set says all there is to know: no
vector, file or figure is named in this code, so any set in the same form runs unchanged.
"""

import argparse
import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast

from strongroom.cli.terminal import table
from strongroom.verify.roots import PRODUCTION, Roots
from tests import VECTORS
from tests.vectors.index import Vector, VectorSet, kinds
from tests.vectors.judge import Observation, problems

Observer = Callable[[Vector, VectorSet, Roots], Observation]

# By kind: "module.function" below tests.vectors. A negative is observed as its kind is, and must be refused.
OBSERVERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "snp-report": "snp.observe_report",
        "snp-launch-digest": "snp.observe_launch",
        "tdx-quote": "tdx.observe_quote",
        "tdx-collateral": "tdx.observe_quote",
        "tdx-tdreport": "tdx.observe_tdreport",
        "sgx-quote": "sgx.observe_quote",
        "nvidia-report": "nvidia.observe_report",
        "nvidia-multi-evidence": "nvidia.observe_list",
        "nvidia-rim": "nvidia.observe_rim",
        "tpm-quote": "tpm.observe_quote",
        "tpm-eventlog": "tpm.observe_log",
        "tpm-uki": "tpm.observe_boot",
        "ccel": "tpm.observe_log",
        "azure-hcl": "azure.observe_hcl",
        "ratls-cert": "ratls.observe_certificate",
    }
)


@dataclass(frozen=True, slots=True)
class Outcome:
    vector: Vector
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.problems


def run(vectors: VectorSet, roots: Roots = PRODUCTION) -> list[Outcome]:
    """The outcome of every vector, in the order of the index."""
    return [Outcome(vector, tuple(_problems(vector, vectors, roots))) for vector in vectors.vectors]


def report(vectors: VectorSet, outcomes: list[Outcome]) -> str:
    """The table by kind, then what failed."""
    rows = [("kind", "vectors", "passed", "failed")]
    for kind in kinds(vectors.vectors):
        of_kind = [outcome for outcome in outcomes if outcome.vector.kind == kind]
        rows.append((kind, *_counts(of_kind)))
    rows.append((f"all of {vectors.name!r}", *_counts(outcomes)))
    lines = [table(rows)]
    for outcome in outcomes:
        lines += [f"FAILED {outcome.vector}: {problem}" for problem in outcome.problems[:8]]
        if len(outcome.problems) > 8:
            lines.append(f"FAILED {outcome.vector}: and {len(outcome.problems) - 8} more")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="vectors", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, nargs="?", default=VECTORS, metavar="DIR")
    directory = parser.parse_args(argv).directory
    try:
        vectors = VectorSet.load(directory)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"vectors: {directory}: no index.json that can be read: {error}", file=sys.stderr)
        return 2
    outcomes = run(vectors)
    print(report(vectors, outcomes))
    return 0 if outcomes and all(outcome.passed for outcome in outcomes) else 1


def _counts(outcomes: list[Outcome]) -> tuple[str, str, str]:
    passed = sum(outcome.passed for outcome in outcomes)
    return str(len(outcomes)), str(passed), str(len(outcomes) - passed)


def _problems(vector: Vector, vectors: VectorSet, roots: Roots) -> list[str]:
    name = OBSERVERS.get(vector.kind) or OBSERVERS.get(vector.kind.removesuffix("-negative"))
    if name is None:
        return [f"no verifier for the kind {vector.kind!r}"]
    module, _, function = name.rpartition(".")
    try:
        observe = cast(Observer, getattr(importlib.import_module(f"tests.vectors.{module}"), function))
        return list(problems(vector.expect, observe(vector, vectors, roots)))
    except Exception as error:  # noqa: BLE001 - one vector must not end the table
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return [f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {error}"]


if __name__ == "__main__":
    sys.exit(main())
