"""Every numbered guarantee of docs/threat-model.md has a test that shows it; no test claims one that is not there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests import ROOT

# A guarantee is stated once, as a line of the form "**G7. Replayed evidence is refused.** ...".
STATED: Final = re.findall(r"^\*\*(G\d+)\. ", (ROOT / "docs/threat-model.md").read_text(), re.MULTILINE)


def marks(source: str) -> Iterator[str]:
    """What every pytest.mark.guarantee(...) of a file names, on functions, classes, parameters or the module.

    Where the argument is a name (of a loop over a table), the numbers that stand in the file are what it can be.
    """
    nodes = list(ast.walk(ast.parse(source)))
    constants = [str(node.value) for node in nodes if isinstance(node, ast.Constant)]
    for node in nodes:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "guarantee"
        ):
            for argument in node.args:
                if isinstance(argument, ast.Constant):
                    yield str(argument.value)
                else:
                    yield from (value for value in constants if re.fullmatch(r"G\d+", value))


def claimed() -> dict[str, set[Path]]:
    found: dict[str, set[Path]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for number in marks(path.read_text()):
            found.setdefault(number, set()).add(path.relative_to(ROOT))
    return found


def test_guarantees_are_numbered_without_a_gap() -> None:
    assert sorted(int(number[1:]) for number in STATED) == [*range(1, len(STATED) + 1)]
    assert STATED


def test_every_guarantee_has_a_test() -> None:
    assert sorted(set(STATED) - claimed().keys()) == []


def test_no_test_claims_an_unknown_guarantee() -> None:
    assert {number: paths for number, paths in claimed().items() if number not in STATED} == {}


def test_marks_are_found_wherever_they_stand() -> None:
    source = """
pytestmark = pytest.mark.guarantee("G1")
@pytest.mark.guarantee("G2")
class Tests:
    @pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.guarantee("G3"))])
    def test(self, x): ...
"""
    assert sorted(marks(source)) == ["G1", "G2", "G3"]
    assert list(marks('for g in ["G4"]: pytest.param(g, marks=pytest.mark.guarantee(g))')) == ["G4"]
