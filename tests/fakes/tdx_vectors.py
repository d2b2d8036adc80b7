"""Genuine TDX evidence from the vectors beside the checkout, with what index.json expects of it."""

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

from strongroom.verify.tdx_collateral import TDXCollateral
from tests import VECTORS

INDEX: Final = VECTORS / "index.json"
KINDS: Final = {"tdx-quote", "tdx-quote-negative", "tdx-collateral-negative", "sgx-quote"}


@dataclass(frozen=True, slots=True)
class Case:
    """One quote with one collateral at one time."""

    name: str
    kind: str
    quote: bytes
    collateral: TDXCollateral
    now: datetime
    fields: dict[str, Any]  # empty for negatives
    pck: dict[str, Any]
    trailing: int  # bytes that follow the quote, as index.json counts them
    expected: dict[str, Any]  # of an evaluation, or {"reject": why}

    def __str__(self) -> str:
        return self.name


@cache
def cases() -> tuple[Case, ...]:
    """Every TDX and SGX quote and every collateral negative; none where the vectors are absent."""
    if not INDEX.exists():
        return ()
    vectors = json.loads(INDEX.read_text())["vectors"]
    return tuple(case for v in vectors if v["kind"] in KINDS for case in _cases(v))


def case(name: str) -> Case:
    return next(case for case in cases() if case.name == name)


@cache
def collateral(path: str) -> TDXCollateral:
    return TDXCollateral.from_json(json.loads((VECTORS / path).read_text()))


def _cases(vector: dict[str, Any]) -> list[Case]:
    files, expect = vector["files"], vector["expect"]
    evaluations = expect.get("evaluations") or [
        {"collateral": files["collateral"], "at": expect["at"], "expected": {"reject": expect["reject"]}}
    ]
    return [
        Case(
            name=vector["id"],
            kind=vector["kind"],
            quote=(VECTORS / files["quote"]).read_bytes(),
            collateral=collateral(evaluation["collateral"]),
            now=datetime.fromisoformat(evaluation["at"]),
            fields=expect.get("fields", {}),
            pck=expect.get("pck", {}),
            trailing=expect.get("fields", {}).get("trailing_bytes", 0),
            expected=evaluation["expected"],
        )
        for evaluation in evaluations
    ]
